"""Trained codecs on disk."""

import hashlib
import sys
from pathlib import Path
from typing import Any

import torch

from daemon.errors import ModelError
from training.checkpoint import load, save
from training.codec_model import Codec, Sizes
from training.workspace import Workspace

RECON, ADVERSARY = "recon.pt", "adversary.pt"
"""Files of the two trainings, below Workspace.codec."""
PHONE_NAMES, DISCRIMINATORS = "phones", "discriminators"
"""Keys of what names the phones in the first training, and of what a decoder is judged by in the second."""
_TAKEN_FROM = "taken_from"


def load_codec(work: Workspace, device: torch.device | str) -> Codec:
    """The codec as far as it is trained: after the adversary, or before if there was none yet.

    Raises:
        ModelError: there is none, or its checkpoint is damaged.
    """
    return codec_of(latest(work)).to(device).eval()


def latest(work: Workspace) -> dict[str, Any]:
    """The checkpoint of the second training, or of the first if there was none yet.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    state = load(work.codec / ADVERSARY) or load(work.codec / RECON)
    if state is None:
        raise ModelError(f"{work.codec}: no {RECON}; run the stage codec first")
    return state


def print_of(codec: Codec) -> str:
    """What codes depend on, as a digest: encoder and codebooks."""
    digest = hashlib.sha256()
    for name, value in codec.state_dict().items():
        if name.startswith(("enc.", "q.e")):
            digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()


def trained_elsewhere(source: Path, sizes: dict[str, Any]) -> dict[str, Any]:
    """What another voice's codec can give to a new one: states of ``codec``, ``phones``, ``discriminators``.

    The last two only where they are there.

    Args:
        source: the other voice's work folder.
        sizes: that the codec must be of.

    Raises:
        ModelError: there is none, its first training is not finished, or it is of other sizes.
    """
    work = Workspace(source)
    state = load(work.codec / RECON)
    if state is None:
        raise ModelError(f"{work.codec}: codec.init: no {RECON}; run the stage codec there first")
    if state.get("step", 0) < state.get("steps", 0):
        raise ModelError(f"{source}: codec.init: its first training is at step {state['step']} of {state['steps']}")
    state |= load(work.codec / ADVERSARY) or {}
    if state.get("sizes") != sizes:
        raise ModelError(f"{source}: codec.init: expected a codec of {sizes}, found {state.get('sizes')}")
    codec_of(state)
    return {name: state[name] for name in ("sizes", "codec", PHONE_NAMES, DISCRIMINATORS) if name in state}


def take_over(source: Path, work: Workspace, sizes: dict[str, Any]) -> None:
    """Make another voice's codec the result of this one's first training, unless it already is.

    Args:
        source: the other voice's work folder.
        work: this one's.
        sizes: what this one's configuration asks for.

    Raises:
        ModelError: there is no codec of these sizes, or this voice has trained one of its own.
        StoreError: it cannot be written.
    """
    own = load(work.codec / RECON)
    if own is None:
        save(work.codec / RECON, trained_elsewhere(source, sizes) | {_TAKEN_FROM: str(source)})
        print(f"codec: taken over from {source}", file=sys.stderr)
    elif own.get(_TAKEN_FROM) != str(source):
        raise ModelError(f"{work.codec / RECON}: expected the codec of {source} (codec.init); remove {work.codec}")


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
