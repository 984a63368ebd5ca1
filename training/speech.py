"""What has been spoken, as the training stages read it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from daemon.errors import ModelError
from daemon.values import F32
from training import align, note
from training.workspace import Workspace, reason

FRAME_SAMPLES = 1920
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Utterance:
    """One spoken text."""

    text: str
    source: str
    """The kind of text: announcements, sentences, words, ..."""
    split: str
    """train or held."""
    speaker: int
    start: int
    """First sample in the audio of all."""
    num_samples: int
    first_frame: int
    """In the codes of all."""
    num_frames: int
    phones: tuple[tuple[int, float], ...]
    """Ids and ends in seconds; empty where they are not known."""


class Speech:
    """All utterances of a workspace with their audio, which is mapped and not read.

    Args:
        work: the workspace.

    Raises:
        ModelError: nothing or not everything has been spoken yet, or the files do not fit each other.
    """

    def __init__(self, work: Workspace) -> None:
        self.utterances: list[Utterance] = []
        first_frame = 0
        try:
            with work.index.open(encoding="utf-8") as lines:
                for line in lines:
                    entry = json.loads(line)
                    num_frames = -(-entry["num_samples"] // FRAME_SAMPLES)
                    phones = tuple((int(phone), float(end)) for phone, end in entry.pop("phones"))
                    entry.pop("recording", None)
                    self.utterances.append(
                        Utterance(**entry, first_frame=first_frame, num_frames=num_frames, phones=phones)
                    )
                    first_frame += num_frames
            self._audio = np.memmap(work.audio, np.int16, "r")
        except (OSError, ValueError, KeyError, TypeError) as err:
            raise ModelError(f"{work.index}: {reason(err)}; run the stage speak first") from None
        self.num_frames = first_frame
        """Of all utterances together."""
        count, planned = len(self.utterances), note.planned(work)
        if not count or count < planned:
            said = f"{count:,} of {planned:,} utterances are spoken" if planned else "nothing is spoken yet"
            raise ModelError(f"{work.index}: {said}; run the stage speak")
        last = self.utterances[-1]
        if len(self._audio) < last.start + last.num_samples:
            raise ModelError(f"{work.audio}: shorter than {work.index} says; remove both and run the stage speak")

    def split(self, name: str) -> list[int]:
        """The numbers of the utterances for training ("train") or judging ("held")."""
        return [number for number, item in enumerate(self.utterances) if item.split == name]

    def pcm(self, number: int) -> NDArray[np.int16]:
        """int16 [S], 24 kHz, a view of the file."""
        item = self.utterances[number]
        return self._audio[item.start : item.start + item.num_samples]

    def audio(self, number: int) -> F32:
        """float32 [S], 24 kHz, -1..1."""
        return self.pcm(number).astype(np.float32) / np.float32(32768)

    def padded(self, number: int) -> F32:
        """The audio with silence up to a whole frame, float32 [T * 1920]."""
        audio = np.zeros(self.utterances[number].num_frames * FRAME_SAMPLES, np.float32)
        audio[: self.utterances[number].num_samples] = self.audio(number)
        return audio

    def frame_phones(self, number: int) -> NDArray[np.int8]:
        """The phone in every quarter of a frame, int8 [T, 4]."""
        item = self.utterances[number]
        return align.frame_phones(item.phones, item.num_frames)

    def character(self, number: int) -> F32:
        """The character said at the centre of every frame and at the end, float32 [T + 1]; nan where unknown."""
        item = self.utterances[number]
        return align.characters(item.text, item.phones, item.num_frames)

    def character_phones(self, number: int) -> NDArray[np.int8]:
        """Up to two phones of every character, int8 [N, 2]."""
        item = self.utterances[number]
        return align.character_phones(item.text, item.phones)


def evenly(items: Sequence[_Item], count: int) -> list[_Item]:
    """So many of the items, as far apart as possible; all where there are no more."""
    count = min(count, len(items))
    return [items[place * len(items) // count] for place in range(count)]
