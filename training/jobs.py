"""Who is to say what, in which order, and how much of that is done."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.errors import ModelError, StoreError
from training.config import Config, SpeakerConfig
from training.recordings import Each, Limits, Recording, hold_out, read
from training.workspace import Workspace, reason

RECORDED = "recordings"
"""The source of a recorded speaker's texts."""
_TOLD = 5
"""Recordings that are not used and named on the terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One text said by one speaker."""

    text: str
    source: str
    split: str
    speaker: int
    recording: Recording | None = None
    """Where it is to be read instead of spoken."""

    def entry(self) -> dict[str, Any]:
        """What the index has of it, beside what is known once it is done."""
        entry = {"text": self.text, "source": self.source, "split": self.split, "speaker": self.speaker}
        if self.recording:
            entry["recording"] = f"{self.recording.digest} {self.recording.name}"
        return entry


def plan(work: Workspace, config: Config, each: Each) -> list[Job]:
    """All jobs: held-out texts by every speaker of flite's, the training texts by these in turn, then the recordings.

    Recordings are last, so that what flite has spoken stays as it is when somebody's recordings are added.

    Args:
        work: with the texts.
        config: of the voice.
        each: who does them.

    Raises:
        ModelError: the texts have not been chosen.
        BadRequestError: a speaker has no recording that can be used.
        StoreError: the list of those that cannot be used cannot be written.
    """
    try:
        corpus = json.loads(work.corpus.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise ModelError(f"{work.corpus}: {reason(err)}; run the stage corpus first") from None
    speakers = config.speech.speakers
    jobs = list(_spoken(corpus, [number for number, speaker in enumerate(speakers) if speaker.flite]))
    held = {text for text, _ in corpus["held"]}
    for number, speaker in enumerate(speakers):
        if speaker.recordings:
            jobs += _recorded(work, config, number, held, each)
    return jobs


def _spoken(corpus: dict[str, Any], numbers: list[int]) -> Iterator[Job]:
    for text, source in corpus["held"]:
        for number in numbers:
            yield Job(text=text, source=source, split="held", speaker=number)
    for count, (text, source) in enumerate(corpus["train"] if numbers else []):
        yield Job(text=text, source=source, split="train", speaker=numbers[count % len(numbers)])


def _recorded(work: Workspace, config: Config, number: int, never_trained: set[str], each: Each) -> Iterator[Job]:
    speaker = config.speech.speakers[number]
    limits = Limits(config.corpus.max_characters, config.lm.longest)
    usable, skipped = read(Path(speaker.recordings), limits, each)
    held = hold_out(usable, never_trained)
    _tell(work, speaker, usable, skipped)
    for item in usable:
        split = "held" if item.text in held else "train"
        yield Job(text=item.text, source=RECORDED, split=split, speaker=number, recording=item)


def _tell(work: Workspace, speaker: SpeakerConfig, usable: list[Recording], skipped: list[str]) -> None:
    """Say what is not used, and write all of it down."""
    path = work.skipped(speaker.name)
    print(f"{speaker.name}: {len(usable)} recordings can be used, {len(skipped)} cannot", file=sys.stderr)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in skipped), encoding="utf-8")
    except OSError as err:
        raise StoreError(f"{path}: {err.strerror}") from None
    for line in skipped[:_TOLD]:
        print(f"  {line}", file=sys.stderr)
    if len(skipped) > _TOLD:
        print(f"  and {len(skipped) - _TOLD} more: {path}", file=sys.stderr)


def done(work: Workspace, jobs: list[Job]) -> tuple[int, int]:
    """How many jobs are done, and the bytes of audio they have.

    A line of the index that was cut short is dropped. So is, with all that follows, the first recording that is not
    what the jobs say: the folder has changed.

    Raises:
        ModelError: flite has spoken other texts or with other speakers, or the files are damaged.
    """
    if not work.index.exists():
        return 0, 0
    lines = work.index.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = lines[:-1] if lines and not lines[-1].endswith("\n") else lines
    try:
        entries = [json.loads(line) for line in whole]
        count = next((n for n, entry in enumerate(entries) if not _agrees(entry, jobs[n : n + 1])), len(entries))
        size = 2 * (entries[count - 1]["start"] + entries[count - 1]["num_samples"]) if count else 0
    except (ValueError, KeyError, TypeError) as err:
        raise ModelError(
            f"{work.index}: damaged ({err}); remove {work.index.parent} to speak everything anew"
        ) from None
    changed = [entry for entry in entries[count:] if "recording" not in entry]
    if changed:
        expected = f"{jobs[count].text!r} by speaker {jobs[count].speaker}" if count < len(jobs) else "its end"
        raise ModelError(
            f"{work.index}: line {count + 1}: expected {expected}, found {entries[count]['text']!r} by speaker"
            f" {entries[count]['speaker']}: flite's speakers or the texts have changed; take another [paths] work, or"
            f" remove {work.index.parent} to speak everything anew"
        )
    if not work.audio.exists() or work.audio.stat().st_size < size:
        raise ModelError(f"{work.audio}: shorter than {work.index} says; remove {work.audio.parent}")
    if len(lines) > count:
        _drop(work, whole[:count], len(whole) - count)
    return count, size


def _agrees(entry: dict[str, Any], job: list[Job]) -> bool:
    names = ("text", "source", "split", "speaker", "recording")
    return bool(job) and {name: entry[name] for name in names if name in entry} == job[0].entry()


def _drop(work: Workspace, kept: list[str], dropped: int) -> None:
    if dropped:
        print(f"the recordings have changed: {dropped} are read again", file=sys.stderr)
        for codes in work.codes.parent.glob("codes*"):  # of other speech
            codes.unlink()
    part = work.index.with_suffix(".part")
    part.write_text("".join(kept), encoding="utf-8")
    part.replace(work.index)
