"""A tiny codec's configuration, and a workspace in which two voices have said a few sentences."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from training import speak
from training.codec_config import AdversaryConfig, CodecConfig
from training.codec_model import Codec, Sizes
from training.config import Config, PathsConfig
from training.runner import Run
from training.stopping import StopRequest
from training.workspace import Workspace

SIZES = Sizes(
    num_codebooks=3, codebook_size=16, width_latent=8, width=16, hidden=24, frame_blocks=1, step_blocks=2,
    bandwidth_hz=7600.0,
)  # fmt: skip
ADVERSARY = AdversaryConfig(steps=4, batch=1, segment_frames=3, context_frames=1, warmup=1, checkpoint_every=100)
CODEC = CodecConfig(
    num_codebooks=3, keep_codebooks=2, codebook_size=16, width_latent=8, width=16, hidden=24, frame_blocks=1,
    step_blocks=2, steps=8, batch=2, segment_frames=6, start_codebooks=3, restart_every=2, warmup=2,
    checkpoint_every=100, compile=False, adversary=ADVERSARY,
)  # fmt: skip
TEXTS = ["the kettle has boiled.", "yes.", "the box is open, please close it.", "one, two, three."]


def spoken(work: Path) -> Config:
    """Have the real flite speak into ``work``."""
    if not shutil.which("flite"):
        pytest.skip("flite is not installed")
    config = Config(paths=PathsConfig(work=str(work)), codec=CODEC)
    work.mkdir(parents=True, exist_ok=True)
    corpus = {"held": [["good morning.", "sentences"]], "train": [[text, "sentences"] for text in TEXTS]}
    Workspace(work).corpus.write_text(json.dumps(corpus), encoding="utf-8")
    speak.run(config)
    return config


def codec(seed: int = 0) -> Codec:
    """A codec with random weights and codebooks."""
    torch.manual_seed(seed)
    made = Codec(SIZES).eval()
    made.q.e.normal_()
    return made


class Interrupted(Run):
    """One process, asked to stop after so many steps."""

    def __init__(self, after: int | None = None) -> None:
        super().__init__(0, 1, torch.device("cpu"), StopRequest())
        self._left = after

    def should_stop(self) -> bool:
        if self._left is not None:
            self._left -= 1
        return self._left == 0
