"""A tiny language model and sentences for it, random but the same every time."""

import numpy as np

from training.lm_config import LmConfig
from training.lm_data import Sentence
from training.lm_model import LmShape

SHAPE = LmShape(
    width=64,
    layers=3,
    ffn=96,
    depth_width=64,
    depth_layers=2,
    depth_ffn=64,
    num_tokens=36,
    num_codebooks=3,
    codebook_size=24,
    num_phones=5,
    phone_layer=2,
    guide_layer=1,
)
CONFIG = LmConfig(
    width=64, layers=3, ffn=96, depth_width=64, depth_layers=2, depth_ffn=64, phone_layer=2, guide_layer=1,
    positions=256, longest=64, steps=40, warmup=5, evaluate_every=1000, compile=False,
)  # fmt: skip


def random_sentence(seed: int, characters: int = 8, frames: int = 6) -> Sentence:
    """A sentence whose text and codes are drawn from ``seed``."""
    rng = np.random.default_rng(seed)
    return Sentence(
        tokens=np.array([32, 34 + seed % 2, *rng.integers(0, 32, characters), 33]),
        codes=rng.integers(0, SHAPE.codebook_size, (frames, SHAPE.num_codebooks)).astype(np.int16),
        character=np.linspace(0, characters - 1, frames + 1, dtype=np.float32),
        text_phones=rng.integers(0, 5, (characters, 2)).astype(np.int8),
        frame_phones=rng.integers(0, 5, (frames, 4)).astype(np.int8),
    )
