"""The language model: who sees whom, padding, compiled layers, and what the converter makes of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from lm_scene import CONFIG, SHAPE, random_sentence

from training.lm_data import Sentence, collate
from training.lm_loss import embed, losses
from training.lm_model import SpeechLm

FLAT = 96


@pytest.fixture(scope="module")
def model() -> SpeechLm:
    torch.manual_seed(3)
    return SpeechLm(SHAPE).eval()


def final(model: SpeechLm, rows: list[Sentence], flat: int = FLAT) -> torch.Tensor:
    """The backbone's output of each row, [B, T, D]."""
    batch = collate(rows, flat, SHAPE.codebook_size, torch.float32)
    with torch.no_grad():
        hidden = model.backbone(embed(model, batch, batch.codes), batch.layout).final
    rows_, length = batch.layout.rows, batch.layout.length
    return hidden[: rows_ * length].view(rows_, length, -1)


def changed(before: torch.Tensor, after: torch.Tensor) -> np.ndarray:
    return (before - after).abs().amax(dim=-1).numpy() > 1e-4


def test_a_later_character_changes_everything(model):
    """Text is read in both directions: each position sees the last character."""
    one = random_sentence(1, characters=9, frames=7)
    tokens = one.tokens.copy()
    tokens[-2] = (tokens[-2] + 1) % 32
    used = len(one)
    assert changed(final(model, [one]), final(model, [replace(one, tokens=tokens)]))[0, :used].all()


def test_a_later_frame_changes_nothing_before_it(model):
    """No frame sees a later one, and the text sees none."""
    one = random_sentence(1, characters=9, frames=7)
    codes = one.codes.copy()
    codes[4] = (codes[4] + 1) % SHAPE.codebook_size
    place = len(one.tokens) + 4
    moved = changed(final(model, [one]), final(model, [replace(one, codes=codes)]))[0]
    assert not moved[:place].any()
    assert moved[place : len(one)].all()


def test_a_row_is_the_same_in_any_company(model):
    """Padding and neighbours leave a sentence alone."""
    short, long = random_sentence(1, characters=5, frames=4), random_sentence(2, characters=14, frames=16)
    alone = final(model, [short])[0, : len(short)]
    beside = final(model, [long, short])[1, : len(short)]
    torch.testing.assert_close(beside, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(600)  # a C++ compiler runs for 20 s
@pytest.mark.filterwarnings("ignore")  # of torch.compile itself
def test_compiled_layers_compute_the_same(model):
    """Loss and gradients are those of the plain layers."""
    batch = collate([random_sentence(n) for n in range(3)], FLAT, SHAPE.codebook_size, torch.float32)
    fused = SpeechLm(SHAPE)
    fused.load_state_dict(model.state_dict())
    fused.compile_layers()
    fused.train()
    quiet = CONFIG.model_copy(update={"noise": 0.0, "dropout": 0.0})
    sums = [losses(each, batch, quiet, None).total(quiet, 1.0) for each in (model, fused)]
    torch.testing.assert_close(sums[0], sums[1])
    gradients = [
        torch.autograd.grad(total, each.bl[0].qkv.weight)[0] for total, each in zip(sums, (model, fused), strict=True)
    ]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-6)


def test_the_depth_decoder_does_not_see_the_code_it_predicts(model):
    """Changing code k changes the logits of later codebooks alone."""
    hidden = torch.randn(5, SHAPE.width)
    codes = torch.randint(SHAPE.codebook_size, (5, SHAPE.num_codebooks))
    other = codes.clone()
    other[:, 1] = (other[:, 1] + 1) % SHAPE.codebook_size
    with torch.no_grad():
        before, after = model.depth_logits(hidden, codes), model.depth_logits(hidden, other)
    torch.testing.assert_close(before[:, 0], after[:, 0])
    assert changed(before, after)[:, 1:].all()
