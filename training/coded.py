"""The teacher's speech through the codec and back: how much of what is lost is lost there."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from daemon.values import Pcm16
from training.codec_model import Codec
from training.codec_store import load_codec
from training.crew import Crew
from training.shelf import Made, Shelf, write
from training.speech import FRAME_SAMPLES, Speech
from training.workspace import Workspace

_KEY = 16


@dataclass(frozen=True, slots=True)
class _Order:
    work: Path
    device: str
    num_codebooks: int
    pcm: Pcm16
    path: Path


class Coded:
    """The codec of a workspace, and what has been coded with it so far.

    Args:
        work: the workspace.
        num_codebooks: how many the voice uses.
        device: where to run it.
        crew: who runs it.

    Raises:
        ModelError: there is no codec yet.
    """

    def __init__(self, work: Workspace, num_codebooks: int, device: str, crew: Crew) -> None:
        digest = hashlib.sha256(f"{num_codebooks}".encode())
        for tensor in load_codec(work, "cpu").state_dict().values():
            digest.update(np.asarray(tensor).tobytes())
        self._kept = work.evaluation / f"codec-{digest.hexdigest()[:_KEY]}"
        self._shelf = Shelf(self._kept, crew)
        self._work, self._num_codebooks, self._device = work, num_codebooks, device

    def speak(self, speech: Speech, numbers: Sequence[int]) -> list[Made]:
        """Utterances of the teacher, coded and decoded.

        Raises:
            StoreError: the disk is full.
            Stopped: asked to; what was made is kept.
        """
        orders = [
            _Order(
                self._work.root,
                self._device,
                self._num_codebooks,
                speech.pcm(number),
                self._kept / f"{hashlib.sha256(speech.pcm(number).tobytes()).hexdigest()[:_KEY]}.flac",
            )
            for number in numbers
        ]
        return self._shelf.get(_code, orders, "codec")


@lru_cache(maxsize=1)
def _codec(work: Path, device: str) -> Codec:
    torch.set_num_threads(1)
    return load_codec(Workspace(work), device)


def _code(order: _Order) -> Made:
    codec = _codec(order.work, order.device)
    audio = np.pad(order.pcm / np.float32(32768), (0, -len(order.pcm) % FRAME_SAMPLES))
    codes = codec.encode(torch.from_numpy(audio)[None].to(order.device), order.num_codebooks)
    decoded = codec.decode(codes)[0, : len(order.pcm)]
    pcm = (decoded.float().clamp(-1, 1) * 32767).round().short().cpu().numpy()
    write(order.path, pcm)
    return Made(order.path, len(pcm))
