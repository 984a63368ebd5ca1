"""What an evaluation found, written down: tables and spectrograms for reading, and the same numbers as JSON."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from daemon.errors import BadRequestError, StoreError
from daemon.values import F32
from training import plots
from training.evaluate_config import SETS
from training.shelf import read
from training.speech import Speech
from training.tables import Findings, markdown
from training.tally import bars
from training.workspace import reason

BEGIN, END = "<!-- evaluation: begin -->", "<!-- evaluation: end -->"
"""The lines of a model card that the figures go between."""
_PICTURED_SETS = ("sentences", "recordings")
_PICTURED_RECIPE = "q8_0"
_PICTURES = "spectrograms"


def write_report(found: Findings, speech: Speech, num_pictures: int, folder: Path, card: Path | None) -> None:
    """Write report.md, faults.md, report.json and spectrograms; put tables and pictures into the model card too.

    Args:
        found: what was found out.
        speech: the teacher's, for the pictures.
        num_pictures: for each speaker.
        folder: where to.
        card: a Markdown file with the lines ``BEGIN`` and ``END``: what is between them is replaced.

    Raises:
        BadRequestError: the card has no such lines.
        StoreError: something cannot be written.
    """
    names = list(_draw(found, speech, num_pictures, folder / _PICTURES))
    text = markdown(found, [f"{_PICTURES}/{name}" for name in names])
    _write(folder / "report.md", f"# The voice beside its teacher\n\n{text}")
    _write(folder / "faults.md", "\n".join(_faults(found)) + "\n")
    _write(folder / "report.json", json.dumps(_plain(_numbers(found)), indent=1) + "\n")
    print(f"evaluate: {folder / 'report.md'} is written")
    if card is not None:
        put_between_markers(card, text)
        _copy(folder / _PICTURES, names, card.parent / _PICTURES)
        print(f"evaluate: {card} is written")


def put_between_markers(card: Path, text: str) -> None:
    """Replace what is between the lines ``BEGIN`` and ``END`` of a file, and nothing else.

    Raises:
        BadRequestError: the file is not there, or does not have each of them once, in this order.
        StoreError: it cannot be written.
    """
    content = check_card(card)
    before, rest = content.split(BEGIN)
    _write(card, f"{before}{BEGIN}\n\n{text}\n{END}{rest.split(END)[1]}")


def check_card(card: Path) -> str:
    """The content of a model card that has a place for the figures.

    Raises:
        BadRequestError: the file is not there, or does not have ``BEGIN`` and ``END`` once each, in this order.
    """
    try:
        content = card.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise BadRequestError("bad_request", f"{card}: cannot be read: {reason(err)}") from err
    if (content.count(BEGIN), content.count(END)) != (1, 1) or content.index(END) < content.index(BEGIN):
        raise BadRequestError("bad_request", f"{card}: expected {BEGIN!r} and {END!r} once each, in this order")
    return content


def _draw(found: Findings, speech: Speech, count: int, folder: Path) -> Iterator[str]:
    """Draw the first sentences of each voice, the teacher's above the bundle's; yields the files' names."""
    for speaker, voice in enumerate(found.speakers):
        judged = [
            item
            for item in found.judged.get(_PICTURED_RECIPE, [])
            if item.speaker == speaker and item.source in _PICTURED_SETS
        ]
        for number, item in enumerate(judged[:count], 1):
            name = f"{voice}-{number}.png"
            said = (read(item.made.path) / np.float32(32768)).astype(np.float32)
            sounds: dict[str, F32] = {"teacher": speech.audio(item.number), voice: said}
            plots.spectrogram(sounds, folder / name, title=item.text)
            yield name


def _copy(source: Path, names: list[str], target: Path) -> None:
    """Put the pictures beside the card, in place of those of an earlier evaluation."""
    try:
        target.mkdir(exist_ok=True)
        for old in target.glob("*.png"):
            old.unlink()
        for name in names:
            shutil.copyfile(source / name, target / name)
    except OSError as err:
        raise StoreError(f"{target}: cannot be written: {err.strerror}") from err


def _faults(found: Findings) -> Iterator[str]:
    """Every utterance with a fault, to be listened to."""
    yield "# Utterances with faults\n"
    for name, judged in found.judged.items():
        for item in judged:
            faults = item.measures.faults
            kinds = {"ran away": item.made.truncated, "early end": faults.early_end}
            said = [kind for kind, is_so in kinds.items() if is_so]
            said += [f"left out {leap.length_s:.2f} s at {leap.speech_s:.2f} s" for leap in faults.skips]
            said += [f"{-leap.length_s:.2f} s too much at {leap.speech_s:.2f} s" for leap in faults.repeats]
            if said:
                yield f"- {name}, {found.speakers[item.speaker]}: {'; '.join(said)}"
                yield f'  "{item.text}", heard "{item.heard}"'
                yield f"  {item.made.path}"


def _numbers(found: Findings) -> dict[str, Any]:
    """All rows of the tables, and what the bars say."""
    groups = [
        (name, source, speaker)
        for name in found.judged
        for source in (*SETS, None)
        for speaker in (*range(len(found.speakers)), None)
    ]
    rows = [
        {"what": name, "texts": source or "all", "voice": "all" if speaker is None else found.speakers[speaker]}
        | asdict(figures)
        for name, source, speaker in groups
        if (figures := found.row(name, source, speaker))
    ]
    checks = [
        {"bar": bar.name, "limit": bar.limit, "found": bar.found, "verdict": bar.verdict}
        for bar in bars(found.judged, found.resamples)
    ]
    bundles = {recipe: asdict(info) for recipe, info in found.bundles.items()}
    return {"bars": checks, "bundles": bundles, "rows": rows}


def _plain(value: Any) -> Any:
    """JSON has no nan."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def _write(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as err:
        raise StoreError(f"{path}: cannot be written: {err.strerror}") from err
