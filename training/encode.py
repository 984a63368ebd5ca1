"""The stage encode: all speech to codes."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from daemon.errors import ModelError, StoreError
from training.checkpoint import load
from training.codec_model import Codec
from training.codec_store import RECON, codec_of
from training.journal import Journal
from training.runner import Run, launch
from training.speech import Speech
from training.workspace import Workspace

if TYPE_CHECKING:
    from training.config import Config

_BATCH_FRAMES = 640
_TO_DO = -1


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
    state = load(work.codec / RECON, run.device)
    if state is None:
        raise ModelError(f"{work.codec / RECON}: missing; run the stage codec first")
    codec = codec_of(state).to(run.device).eval()
    made_of = {"codec": _print_of(codec), "frames": speech.num_frames, "codebooks": config.codec.keep_codebooks}
    note = work.codes.with_suffix(".json")
    if work.codes.exists() and _read(note) == made_of:
        return
    part = work.codes.with_suffix(".part.npy")
    codes = _open(run, part, made_of)
    if _encode_all(run, work, speech, codec, codes) and run.rank == 0:
        codes.flush()
        part.replace(work.codes)
        part.with_suffix(".json").replace(note)


def _print_of(codec: Codec) -> str:
    """What the codes depend on, as a digest: encoder and codebooks."""
    digest = hashlib.sha256()
    for name, value in codec.state_dict().items():
        if name.startswith(("enc.", "q.e")):
            digest.update(value.cpu().numpy().tobytes())
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
            np.lib.format.open_memmap(part, "w+", np.int16, shape)[:] = _TO_DO
            part.with_suffix(".json").write_text(json.dumps(made_of), encoding="utf-8")
        except OSError as err:
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
