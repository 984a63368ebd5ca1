"""Training of the language model: it learns, goes on where it was, and begins with another's weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from codec_scene import Interrupted
from lm_scene import CONFIG, SHAPE, random_sentence

from daemon.errors import ModelError
from training.checkpoint import load
from training.course import Course
from training.lm import LmLearner
from training.lm_check import Check
from training.lm_generate import generate
from training.lm_loss import Losses
from training.lm_model import SpeechLm, load_lm

DATA = [random_sentence(n, characters=5 + n, frames=4 + n) for n in range(8)]
FAST = CONFIG.model_copy(update={"rate": 4e-3, "noise": 0.0, "dropout": 0.0, "depth_share": 1.0, "steps": 200})


def course(folder: Path, config=CONFIG, shape=SHAPE, *, after: int | None = None, codec: str = "one") -> Course:
    """A training in ``folder``, where its last checkpoint left it."""
    torch.set_num_threads(1)  # as a process of a stage has; two are slower at these sizes
    run = Interrupted(after)
    learner = LmLearner(run, config, shape, codec)
    made = Course(
        run, folder / "last.pt", learner, steps=config.steps, warmup=config.warmup, decay=config.decay,
        every=config.evaluate_every,
    )  # fmt: skip
    learner.take(DATA, Check(run, config, DATA[:3], folder), made.step)
    return made


def trained(folder: Path, config=CONFIG, after: int | None = None) -> dict[str, torch.Tensor]:
    """Train in ``folder`` until the end, or for ``after`` steps; the weights."""
    course(folder, config, after=after).go_on(folder / "lm.jsonl")
    return load(folder / "last.pt")["model"]


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
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_a_gradient_that_is_no_number_spoils_nothing(tmp_path, monkeypatch):
    """The weights stay as they were."""
    monkeypatch.setattr(Losses, "total", lambda self, *_: self.depth * torch.nan)
    made = trained(tmp_path, after=1)
    torch.manual_seed(CONFIG.seed)
    assert all(torch.equal(value, made[name]) for name, value in SpeechLm(SHAPE).state_dict().items())


def test_a_longer_training_goes_on_from_before_the_decay(tmp_path):
    """With more steps than it was finished with, the decay is taken back."""
    trained(tmp_path)
    longer = CONFIG.model_copy(update={"steps": 60})
    assert course(tmp_path, longer).step == 24
    assert course(tmp_path).step == 40


def test_a_new_speaker_begins_as_the_mean_of_the_others(learned):
    """A checkpoint of two speakers starts a model of three."""
    learner = LmLearner(Interrupted(), CONFIG, replace(SHAPE, num_tokens=37), "one")
    learner.begin_with(learned / "last.pt")
    table = load_lm(learned / "last.pt", "cpu").te.weight
    torch.testing.assert_close(learner.model.te.weight[:36], table)
    torch.testing.assert_close(learner.model.te.weight[36], table[34:].mean(dim=0))


def test_a_checkpoint_of_another_shape_is_refused(learned):
    """The sizes are named, not torch's tensors."""
    other = replace(SHAPE, codebook_size=32)
    with pytest.raises(ModelError, match=r"last\.pt: shape: expected .*'codebook_size': 32"):
        course(learned, shape=other)
    with pytest.raises(ModelError, match=r"lm\.init"):
        LmLearner(Interrupted(), CONFIG, other, "one").begin_with(learned / "last.pt")


def test_a_checkpoint_of_another_codec_is_refused(learned):
    """Its codes mean other sounds; what can be done is said."""
    with pytest.raises(ModelError, match=r"last\.pt: codec: expected two, found one; remove it .* lm\.init"):
        course(learned, codec="two")
