"""The stage encode: all speech to codes."""

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from daemon.errors import ModelError, StoreError
from training.checkpoint import load
from training.codec_model import Codec
from training.codec_store import RECON, codec_of, print_of
from training.journal import Journal
from training.runner import Run, launch
from training.speech import Speech
from training.workspace import Workspace, reason

if TYPE_CHECKING:
    from training.config import Config

_BATCH_FRAMES = 640
_TO_DO = -1
_HEARD = 64
"""Utterances whose audio tells speech from other speech."""


def run(config: "Config", *, device: str, processes: int, minutes: float | None) -> None:
    """Encode what has been spoken, unless the codes there are of this speech and this codec.

    Raises:
        ModelError: there is no speech or no codec.
        StoreError: the codes cannot be written.
        Stopped: it ended early; what is written is taken up again.
    """
    launch(encode, config, device=device, processes=processes, minutes=minutes)


def encode(run: Run, config: "Config") -> None:
    """One process of the stage: every ``world``-th batch."""
    work = Workspace(config.paths.work)
    speech = Speech(work)
    state = load(work.codec / RECON)
    if state is None:
        raise ModelError(f"{work.codec / RECON}: missing; run the stage codec first")
    codec = codec_of(state).to(run.device).eval()
    made_of = {
        "codec": print_of(codec),
        "speech": _print_of_speech(work, speech),
        "frames": speech.num_frames,
        "codebooks": config.codec.keep_codebooks,
    }
    note = work.codes.with_suffix(".json")
    if work.codes.exists() and _read(note) == made_of:
        return
    part = work.codes.with_suffix(".part.npy")
    codes = _open(run, part, made_of)
    if _encode_all(run, work, speech, codec, codes) and run.rank == 0:
        codes.flush()
        note.unlink(missing_ok=True)  # never beside codes that it is not about
        part.replace(work.codes)
        part.with_suffix(".json").replace(note)


def read_codes(work: Workspace, speech: Speech) -> NDArray[np.int16]:
    """The codes of all utterances, int16 [frames, Q], mapped.

    Raises:
        ModelError: there are none, or they are not of this speech.
    """
    try:
        codes: NDArray[np.int16] = np.load(work.codes, mmap_mode="r")
    except (OSError, ValueError) as err:
        raise ModelError(f"{work.codes}: {reason(err)}; run the stage encode first") from None
    if codes.ndim != 2 or len(codes) != speech.num_frames:
        raise ModelError(
            f"{work.codes}: expected codes of {speech.num_frames} frames, found {list(codes.shape)}; run encode again"
        )
    return codes


def codec_of_codes(work: Workspace) -> str:
    """The print of the codec that the codes are of.

    Raises:
        ModelError: it is not known.
    """
    note = work.codes.with_suffix(".json")
    made_of = _read(note)
    if made_of is None or "codec" not in made_of:
        raise ModelError(f"{note}: missing or damaged; run the stage encode again")
    return str(made_of["codec"])


def _print_of_speech(work: Workspace, speech: Speech) -> str:
    """What the codes depend on beside the codec, as a digest: who says what when, and some of the audio.

    All of the audio would take a minute to read. What is another level or rate is so in all of it, and a recording
    that was replaced has another entry in the index.
    """
    digest = hashlib.sha256(work.index.read_bytes())
    for number in range(0, len(speech.utterances), -(-len(speech.utterances) // _HEARD)):
        digest.update(speech.pcm(number).tobytes())
    return digest.hexdigest()


def _read(note: Path) -> dict[str, Any] | None:
    try:
        made_of: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return made_of


def _open(run: Run, part: Path, made_of: dict[str, Any]) -> "np.memmap[Any, np.dtype[np.int16]]":
    """The unfinished codes, mapped, int16 [frames, Q]; -1 is what is still to do."""
    shape = (made_of["frames"], made_of["codebooks"])
    if run.rank == 0 and not (part.exists() and _read(part.with_suffix(".json")) == made_of):
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            part.with_suffix(".json").unlink(missing_ok=True)
            codes = np.lib.format.open_memmap(part, "w+", np.int16, shape)
            with part.open("r+b") as file:  # what is mapped and finds no room later kills the process
                os.posix_fallocate(file.fileno(), 0, codes.offset + codes.nbytes)
            codes[:] = _TO_DO
            part.with_suffix(".json").write_text(json.dumps(made_of), encoding="utf-8")
        except OSError as err:
            part.unlink(missing_ok=True)
            raise StoreError(f"{part}: codes cannot be written: {err.strerror}") from err
    run.broadcast([torch.zeros(1)])  # nobody opens it before it is there
    return np.lib.format.open_memmap(part, "r+")


def _encode_all(run: Run, work: Workspace, speech: Speech, codec: Codec, codes: NDArray[np.int16]) -> bool:
    """Fill in what is missing; whether nothing is."""
    batches = [batch for batch in _batches(speech) if codes[speech.utterances[batch[-1]].first_frame, 0] == _TO_DO]
    run.average([torch.zeros(1)])  # nobody fills anything in before all know what is missing
    rounds = -(-len(batches) // run.world)
    with Journal(run, work.log("encode"), total=rounds) as journal:
        for done in range(rounds):
            for batch in batches[done * run.world + run.rank :][:1]:
                _encode_batch(run, speech, codec, codes, batch)
            journal.step(done + 1)
            if run.should_stop():
                return False
    run.average([torch.zeros(1)])  # nobody looks before all have written
    if (codes == _TO_DO).any():
        raise ModelError(
            f"{work.codes}: some frames were not coded; remove {work.codes.parent} and run the stage again"
        )
    return True


def _encode_batch(run: Run, speech: Speech, codec: Codec, codes: NDArray[np.int16], batch: list[int]) -> None:
    audio = torch.from_numpy(np.stack([speech.padded(number) for number in batch])).to(run.device)
    found = codec.encode(audio, codes.shape[1]).cpu().numpy()
    for number, rows in zip(batch, found, strict=True):
        first = speech.utterances[number].first_frame
        codes[first : first + len(rows)] = rows


def _batches(speech: Speech) -> list[list[int]]:
    """Numbers of utterances of one length each, so that none is padded."""
    by_length: dict[int, list[int]] = {}
    for number, item in enumerate(speech.utterances):
        by_length.setdefault(item.num_frames, []).append(number)
    batches = []
    for num_frames, numbers in by_length.items():
        size = max(1, _BATCH_FRAMES // num_frames)
        batches += [numbers[start : start + size] for start in range(0, len(numbers), size)]
    return batches
