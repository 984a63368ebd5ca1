"""Training of the language model: it learns, goes on where it was, and begins with another's weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lm_scene import CONFIG, SHAPE, random_sentence

from daemon.errors import ModelError
from training.journal import Journal
from training.lm import Training
from training.lm_check import Check
from training.lm_generate import generate
from training.lm_model import load_lm
from training.runner import Run
from training.stopping import StopRequest

DATA = [random_sentence(n, characters=5 + n, frames=4 + n) for n in range(8)]
FAST = CONFIG.model_copy(update={"rate": 4e-3, "noise": 0.0, "dropout": 0.0, "depth_share": 1.0, "steps": 200})


class Interrupted(Run):
    """Is asked to stop after so many steps."""

    def __init__(self, after: int | None = None) -> None:
        super().__init__(0, 1, torch.device("cpu"), StopRequest())
        self._left = after

    def should_stop(self) -> bool:
        if self._left is not None:
            self._left -= 1
        return self._left == 0


def trained(folder: Path, config=CONFIG, shape=SHAPE, after: int | None = None) -> Training:
    """Train in ``folder`` until the end, or for ``after`` steps."""
    torch.set_num_threads(1)  # as a process of a stage has; two are slower at these sizes
    run = Interrupted(after)
    training = Training(run, config, folder, shape)
    with Journal(run, folder / "lm.jsonl", total=config.steps, start=training.step) as journal:
        training.go_on(DATA, Check(run, config, DATA[:3], folder), journal)
    return training


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Path:
    """The folder of a model that knows the sentences by heart."""
    folder = tmp_path_factory.mktemp("lm")
    trained(folder, FAST)
    return folder


def test_it_learns_sentences_by_heart(learned):
    """Greedy speech of a text it was trained on is the codes it was trained on, in any company."""
    model = load_lm(learned / "last.pt", "cpu")
    prompts = [one.tokens.tolist() for one in DATA]
    for one, said in zip(DATA, generate(model, prompts, [40] * len(DATA)), strict=True):
        assert said.ended
        assert said.codes.tolist() == one.codes.tolist()
    (alone,) = generate(model, prompts[:1], [40])
    assert alone.codes.tolist() == DATA[0].codes.tolist()


def test_what_does_not_end_is_cut_off(learned):
    """A sentence stops at its limit and says that it did not end."""
    model = load_lm(learned / "last.pt", "cpu")
    said = generate(model, [one.tokens.tolist() for one in DATA[5:7]], [3, 40])
    assert [one.ended for one in said] == [False, True]
    assert said[0].codes.tolist() == DATA[5].codes[:3].tolist()


def test_an_interrupted_training_comes_to_the_same(tmp_path):
    """Weights after a stop and a restart are, bit for bit, those of a training that was left alone."""
    whole = trained(tmp_path / "whole")
    trained(tmp_path / "parts", after=13)
    parts = trained(tmp_path / "parts")
    assert parts.step == whole.step == CONFIG.steps
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, parts.model.state_dict()[name]), name


def test_a_longer_training_goes_on_from_before_the_decay(tmp_path):
    """With more steps than it was finished with, the decay is taken back."""
    trained(tmp_path)
    longer = CONFIG.model_copy(update={"steps": 60})
    assert Training(Interrupted(), longer, tmp_path, SHAPE).step == 24
    assert Training(Interrupted(), CONFIG, tmp_path, SHAPE).step == 40


def test_a_new_speaker_begins_as_the_mean_of_the_others(tmp_path, learned):
    """With ``init``, a checkpoint of two speakers starts a model of three."""
    begin = CONFIG.model_copy(update={"init": str(learned / "last.pt")})
    model = Training(Interrupted(), begin, tmp_path, replace(SHAPE, num_tokens=37)).model
    table = load_lm(learned / "last.pt", "cpu").te.weight
    torch.testing.assert_close(model.te.weight[:36], table)
    torch.testing.assert_close(model.te.weight[36], table[34:].mean(dim=0))


def test_a_checkpoint_of_another_shape_is_refused(tmp_path, learned):
    """The sizes are named, not torch's tensors."""
    with pytest.raises(ModelError, match=r"last\.pt: expected a model of"):
        Training(Interrupted(), CONFIG, learned, replace(SHAPE, codebook_size=32))
    begin = CONFIG.model_copy(update={"init": str(learned / "last.pt")})
    with pytest.raises(ModelError, match=r"lm\.init"):
        Training(Interrupted(), begin, tmp_path, replace(SHAPE, codebook_size=32))
