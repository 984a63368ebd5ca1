"""What is played as one piece, and who hears of it."""

import sys
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from daemon.audio.ring import PcmRing


class PlayOutcome(StrEnum):
    """How the playing of an utterance ended."""

    FINISHED = "finished"
    CUT = "cut"
    FAILED = "failed"
    """The device did not come back in time."""


class PlayerListener(Protocol):
    """Hears what happens, on the audio thread; must not block."""

    def on_started(self, utterance: str, time_s: float) -> None:
        """The first block with speech was accepted by the device at ``time_s`` (monotonic)."""
        ...

    def on_done(self, utterance: str, outcome: PlayOutcome, played_samples: int) -> None:
        """No sample of the utterance will follow; when finished, its last one has been heard."""
        ...

    def on_audio_ok(self, ok: bool) -> None:  # noqa: FBT001  # the whole message
        """The device was lost, or is back. It is taken to work until it fails."""
        ...


class Hold:
    """How much of an utterance's speech must be in the ring before any of it is heard; both threads share it.

    Attributes:
        samples: so many; written by the synth thread, which may change its mind until ``begun``.
        begun: it is being heard; written by the audio thread, which takes it back when the ring runs dry.
    """

    UNKNOWN = sys.maxsize
    """Speech waits for its end, or for a full ring."""

    __slots__ = ("begun", "samples")

    def __init__(self, samples: int = 0) -> None:
        self.samples = samples
        self.begun = False


@dataclass(slots=True, eq=False)
class Utterance:
    """What is played as one piece."""

    name: str
    start: int
    """Its first sample's position in the ring."""
    volume: int | None = None
    """Percent, in place of the player's."""
    max_volume: int = 100
    """Percent that no volume exceeds."""
    hold: Hold = field(default_factory=Hold)
    """How much of its speech must be in the ring before that begins."""
    chime_samples: int = 0
    """How much of its beginning is no speech."""
    chime_waits: bool = False
    """The chime too begins only when there is speech enough."""
    end: int | None = None
    """Position behind its last sample, once that is known."""
    cut: bool = False
    sounding: bool = False
    """Something of it has been written."""
    started: bool = False
    """Some of its speech has been written."""
    dry: bool = False
    """It lacks samples, and is silent until there are enough again."""
    played_samples: int = 0
    device_missed_s: float | None = None
    """Since when (monotonic) the device is waited for."""

    def is_ready(self, ring: PcmRing) -> bool:
        """Whether its speech may begin, or has."""
        hold = self.hold
        if not hold.begun:
            speech = ring.available - self.chime_left(ring)
            enough = speech >= hold.samples or ring.free == 0
            hold.begun = self.end is not None or (speech > 0 and enough)
        return hold.begun

    def chime_left(self, ring: PcmRing) -> int:
        """Samples until its speech."""
        return max(0, self.start + self.chime_samples - ring.total_read)
