"""Somebody's own recordings, in the form of the LJ Speech data set: a folder with metadata.csv and sound files.

Source of the form: the LJ Speech Dataset, README (keithito.com/LJ-Speech-Dataset): ``file|text|normalised text``.
"""

import hashlib
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from daemon.errors import BadRequestError, ModelError
from daemon.values import F32
from training.align import FRAME_S
from training.loudness import sounding
from training.text import encode, spoken
from training.workspace import reason

METADATA = "metadata.csv"
_FOLDERS = (".", "wavs")
_SUFFIXES = ("", ".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff")
_LONGEST_FILE_S = 120.0
"""What is longer is not even read."""
_SHORTEST_S = 0.1
_FASTEST_S, _SLOWEST_S, _SLOW_START_S = 0.025, 0.3, 2.0
"""Seconds a character, and beside it, that nobody's speech is outside of: the text is another one's. flite: 0.07."""
_QUIETEST = 0.01
"""Peak, of full scale."""
_FULL, _CLIPPED_SHARE = 0.99, 0.001
"""A recording is clipped if this share of its samples is beyond that of full scale."""
_HELD_SHARE, _HELD_LEAST, _HELD_MOST = 0.05, 10, 50
_KEY = 16
Each = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""``map``, over several processes."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A sentence that was recorded."""

    name: str
    """As metadata.csv has it."""
    text: str
    """As it is spoken, in the alphabet."""
    path: str
    digest: str
    """Of the file's content: a sentence that was recorded again is another recording."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What training can use."""

    characters: int
    """Of a text, as it is spoken."""
    positions: int
    """Of a text and its frames in the language model."""


@dataclass(frozen=True, slots=True)
class _Line:
    folder: Path
    name: str
    text: str
    limits: Limits


def read(folder: Path, limits: Limits, each: Each = map) -> tuple[list[Recording], list[str]]:
    """The recordings that can be used, in the order of metadata.csv, and of every other one why not, in a line.

    Args:
        folder: with metadata.csv; the files are in it or in its folder wavs.
        limits: what is longer is not used.
        each: ``map``, or one that works in several processes.

    Raises:
        BadRequestError: there is no metadata.csv, or nothing that can be used.
    """
    lines, skipped = _lines(folder, limits)
    usable: list[Recording] = []
    for found in each(_examine, lines):
        if isinstance(found, Recording):
            usable.append(found)
        else:
            skipped.append(found)
    if not usable:
        first = f"; the first of {len(skipped)}: {skipped[0]}" if skipped else ": it is empty"
        raise BadRequestError("bad_request", f"{folder / METADATA}: no recording that can be used{first}")
    return usable, skipped


def _lines(folder: Path, limits: Limits) -> tuple[list[_Line], list[str]]:
    path = folder / METADATA
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as err:
        why = "not UTF-8" if isinstance(err, UnicodeDecodeError) else reason(err)
        raise BadRequestError(
            "bad_request", f"{path}: {why}; expected a line for every recording: file|what is said in it"
        ) from None
    lines: dict[str, _Line] = {}
    skipped = []
    for number, row in enumerate(content.splitlines(), 1):
        name, *texts = (field.strip() for field in row.split("|"))
        if name in lines:
            skipped.append(f"{name}: named twice in {METADATA}; the first is used")
        elif any(texts) and not name:
            skipped.append(f"line {number} of {METADATA} names no file")
        elif name:
            text = next((text for text in (*texts[1:2], *texts[:1]) if text), "")
            lines[name] = _Line(folder, name, text, limits)
    return list(lines.values()), skipped


def _examine(line: _Line) -> Recording | str:
    """The recording of a line, or why it cannot be used."""
    text = spoken(line.text)
    if not line.text or not text:
        return f"{line.name}: {METADATA} has no text that can be said"
    if len(text) > line.limits.characters:
        return (
            f"{line.name}: {len(text)} characters as spoken, at most {line.limits.characters} (corpus.max_characters)"
        )
    path = _find(line.folder, line.name)
    if path is None:
        return f"{line.name}: no such file, neither there nor in wavs"
    try:
        content = path.read_bytes()
        fault = _fault(text, *_decode(content), line.limits)
    except (OSError, soundfile.LibsndfileError, ValueError) as err:
        return f"{line.name}: cannot be read: {reason(err)}"
    if fault:
        return f"{line.name}: {fault}"
    return Recording(line.name, text, str(path), hashlib.sha256(content).hexdigest()[:_KEY])


def _find(folder: Path, name: str) -> Path | None:
    candidates = (folder / where / f"{name}{suffix}" for suffix in _SUFFIXES for where in _FOLDERS)
    return next((path for path in candidates if path.is_file()), None)


def _decode(content: bytes) -> tuple[F32, int]:
    """float32 [S], mono, and its sample rate in Hz."""
    with soundfile.SoundFile(io.BytesIO(content)) as file:
        if file.frames > _LONGEST_FILE_S * file.samplerate:
            raise ValueError(f"{file.frames / file.samplerate:.0f} s long, at most {_LONGEST_FILE_S:.0f} s")
        audio: F32 = file.read(dtype="float32", always_2d=True).mean(axis=1)
        return audio, file.samplerate


def load(recording: Recording) -> tuple[F32, int]:
    """The sound, float32 [S], mono, and its sample rate in Hz.

    Raises:
        ModelError: it was removed or damaged since it was looked at.
    """
    try:
        return _decode(Path(recording.path).read_bytes())
    except (OSError, soundfile.LibsndfileError, ValueError) as err:
        raise ModelError(f"{recording.path}: cannot be read any more: {reason(err)}") from None


def _fault(text: str, audio: F32, rate: int, limits: Limits) -> str | None:
    """What keeps a recording from being used, if anything."""
    if not np.isfinite(audio).all():
        return "has samples that are no numbers"
    peak = float(np.abs(audio).max(initial=0))
    if peak < _QUIETEST:
        least_db = 20 * math.log10(_QUIETEST)
        return f"silent: its peak is {20 * math.log10(peak + 1e-9):.0f} dBFS, expected at least {least_db:.0f}"
    full = float((np.abs(audio) > _FULL).mean())
    if full > _CLIPPED_SHARE:
        return f"clipped: {100 * full:.1f} % of it is at full scale"
    start, end = sounding(audio, rate) or (0, 0)
    seconds = (end - start) / rate
    fits = _FASTEST_S * len(text) < seconds < _SLOWEST_S * len(text) + _SLOW_START_S
    if seconds < _SHORTEST_S or not fits:
        return f"{seconds:.1f} s of sound for {len(text)} characters: not what the text says, or noisy at the ends"
    if len(encode(text, 0)) + math.ceil(seconds / FRAME_S) + 2 > limits.positions:
        return f"too long: {seconds:.1f} s and {len(text)} characters together (lm.longest)"
    return None


def hold_out(recordings: Sequence[Recording], never_trained: set[str]) -> set[str]:
    """The texts that are not trained on: those of ``never_trained``, and about a twentieth of the others.

    All recordings of a text are on one side. The choice is by the hash of the text, in such a way that a text that is
    trained on is never held out later because recordings were added (from twenty texts on).

    Raises:
        BadRequestError: nothing is left to train on.
    """
    texts = {item.text for item in recordings}
    hashes = {text: hashlib.sha256(text.encode()).digest() for text in texts - never_trained}
    if not hashes:
        raise BadRequestError(
            "bad_request", "recordings: every text is held out by corpus.json; read some of its others"
        )
    share = sum(int.from_bytes(found[:4]) < _HELD_SHARE * 2**32 for found in hashes.values())
    count = min(max(share, _HELD_LEAST), _HELD_MOST, len(hashes) // 2)
    return texts & never_trained | set(sorted(hashes, key=hashes.__getitem__)[:count])
