"""Trained codecs on disk."""

from typing import Any

import torch

from daemon.errors import ModelError
from training.checkpoint import load
from training.codec_model import Codec, Sizes
from training.workspace import Workspace

RECON, ADVERSARY = "recon.pt", "adversary.pt"
"""Files of the two trainings, below Workspace.codec."""


def load_codec(work: Workspace, device: torch.device | str) -> Codec:
    """The codec as far as it is trained: after the adversary, or before if there was none yet.

    Raises:
        ModelError: there is none, or its checkpoint is damaged.
    """
    for name in (ADVERSARY, RECON):
        path = work.codec / name
        state = load(path, device)
        if state is not None:
            return codec_of(state).to(device).eval()
    raise ModelError(f"{work.codec}: no {RECON}; run the stage codec first")


def codec_of(state: dict[str, Any]) -> Codec:
    """The codec in a checkpoint of either training.

    Raises:
        ModelError: the checkpoint is of something else.
    """
    try:
        codec = Codec(Sizes(**state["sizes"]))
        codec.load_state_dict(state["codec"])
    except (KeyError, TypeError, RuntimeError) as err:
        raise ModelError(f"not a checkpoint of the codec: {str(err).splitlines()[0]}") from err
    return codec
