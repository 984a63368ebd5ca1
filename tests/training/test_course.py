"""Steps and checkpoints of any training: what is skipped, and where a longer one goes on from."""

import pytest
import torch
from codec_scene import Interrupted

from daemon.errors import BadRequestError, ModelError
from training.checkpoint import load
from training.course import Course
from training.journal import read_log
from training.workspace import hold


class Line:
    """One weight, whose gradient is always 1, or no number at some steps."""

    def __init__(self, bad=()):
        self.model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(self.model.weight)
        self.bad = bad
        self.parts = {"model": self.model}
        self.facts = {"of": "a line"}
        self.otherwise = ", or leave it"

    def learn(self, step):
        """The gradient."""
        self.gradient = torch.tensor(float("nan") if step in self.bad else 1.0)
        return {"loss": self.gradient * 2, "gradient": self.gradient}

    def move(self, step, factor):
        """One more, at any rate."""
        del step, factor
        with torch.no_grad():
            self.model.weight += self.gradient

    def look(self):
        """Nothing is seen."""
        return {}


def course(folder, steps, learner=None, *, after=None, decay=0.5):
    """A training of so many steps, half of them at a falling rate, done until ``after`` of them are."""
    made = Course(
        Interrupted(after), folder / "last.pt", learner or Line(), steps=steps, warmup=1, decay=decay, every=100
    )
    if after != 0:
        made.go_on(folder / "line.jsonl")
    return made


def weight(folder, name="last.pt"):
    return float(load(folder / name)["model"]["weight"])


def test_a_gradient_that_is_no_number_moves_nothing(tmp_path):
    """Its step is skipped and said, and those after it are done."""
    course(tmp_path, 30, Line(bad=(0, 5, *range(9, 28))))
    assert weight(tmp_path) == 30 - 2 - 19
    log = read_log(tmp_path / "line.jsonl")
    assert sum("skipped" in line for line in log) == 21
    assert all(line["loss"] == 2 for line in log if "loss" in line)


def test_a_training_whose_gradients_stay_useless_ends(tmp_path):
    """After twenty steps of that, in one line, with the last checkpoint as it was."""
    course(tmp_path, 40, after=4)
    with pytest.raises(ModelError, match=r"last\.pt: no finite gradient in 20 steps up to 24") as caught:
        course(tmp_path, 40, Line(bad=range(40)))
    assert "\n" not in str(caught.value)
    assert weight(tmp_path) == load(tmp_path / "last.pt")["step"] == 4


def test_a_longer_training_goes_on_from_before_the_decay(tmp_path, capsys):
    """From the weights that the whole rate had made, as is said; one that had not decayed goes on where it was."""
    course(tmp_path, 20)
    assert course(tmp_path, 40, after=1).step == 11
    assert weight(tmp_path) == 11
    assert capsys.readouterr().err.endswith("last.pt: more steps than before: goes on from step 10\n")
    assert course(tmp_path, 60, after=0).step == 11
    assert not capsys.readouterr().err


def test_a_longer_training_says_that_nothing_from_before_the_decay_is_of_use(tmp_path, capsys):
    """There is none after a training was shortened; or it is from after the step at which the rate now falls."""
    course(tmp_path, 40, after=16)
    course(tmp_path, 20)  # the decay began at 10
    assert course(tmp_path, 40, after=0).step == 20
    assert "there is no last.stable.pt, so what follows begins after a fall" in capsys.readouterr().err
    course(tmp_path, 80)
    assert weight(tmp_path, "last.stable.pt") == 40
    assert course(tmp_path, 90, after=0, decay=0.8).step == 80
    assert "last.stable.pt is of another length" in capsys.readouterr().err


def test_a_training_begun_anew_forgets_the_one_before(tmp_path):
    """What the one before left for a longer one is not taken for this one's."""
    course(tmp_path, 20)
    (tmp_path / "last.pt").unlink()
    course(tmp_path, 20, after=2)
    assert not (tmp_path / "last.stable.pt").exists()


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    """With what differs, also where it was not noted yet, and with what can be done."""
    other = Line()
    other.facts = {"of": "a circle", "radius": 1}
    course(tmp_path, 4)
    with pytest.raises(ModelError, match=r"of: expected a circle, found a line; remove it to begin anew, or leave it$"):
        course(tmp_path, 4, other)
    other.facts = {"of": "a line", "radius": 1}
    with pytest.raises(ModelError, match="radius: expected 1, found None"):
        course(tmp_path, 4, other)


def test_a_run_that_is_refused_takes_nothing_from_the_one_at_work(tmp_path):
    """Its checkpoint of before the fall stays, though there is no other one yet."""
    course(tmp_path, 10, after=6)
    (tmp_path / "last.pt").unlink()
    log = tmp_path / "line.jsonl"
    with log.open("a") as at_work:
        hold(at_work)
        with pytest.raises(BadRequestError, match="another run"):
            course(tmp_path, 10)
    assert (tmp_path / "last.stable.pt").exists()


def test_a_finished_training_says_so(tmp_path, capsys):
    """Whoever runs it again, after a change perhaps, is not left to think that it learned something."""
    course(tmp_path, 4)
    course(tmp_path, 4)
    assert "last.pt: all 4 steps are done" in capsys.readouterr().err
