"""One segment of an utterance in the making: its lane, its codec, and what was made of it before its turn came."""

from dataclasses import dataclass, field

import numpy as np

from daemon.engine.codec import CodecDecoder
from daemon.engine.lane import Lane
from daemon.engine.prompt_segment import PromptSegment
from daemon.values import I32, SAMPLE_RATE, Pcm16, Segment

CUT_FADE_SAMPLES = SAMPLE_RATE // 50
"""20 ms, the end of a segment that is cut."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one call made of a segment."""

    frames: int
    """1, or 0 for what the codec held back."""
    last: bool
    truncated: bool
    """It is the last, for the segment ran away."""


_FRAME = Piece(1, last=False, truncated=False)


@dataclass(slots=True, eq=False)
class Take:
    """A segment from its text to its samples. Made when its turn has come, it keeps nothing; before, all."""

    segment: Segment
    index: int
    """Which of the spoken ones."""
    lane: Lane
    codec: CodecDecoder
    attempt: int = 0
    """How often it was tried again."""
    over: bool = False
    """All of it is made."""
    spoken: list[PromptSegment] = field(default_factory=list)
    """The segment as context of others, once it is over."""
    _pcm: Pcm16 = field(default_factory=lambda: np.zeros(0, np.int16))
    _codes: I32 = field(default_factory=lambda: np.zeros((0, 0), np.int32))
    _ends: list[int] = field(default_factory=list)
    _pieces: list[Piece] = field(default_factory=list)
    _taken: int = 0
    lanes: list[Lane] = field(init=False)
    """Its lane alone."""

    def __post_init__(self) -> None:
        self.lanes = [self.lane]

    def make(self, out: Pcm16) -> tuple[int, Piece]:
        """Turn the frame that its lane has made, or the end of speech, into samples in ``out``; returns how many.

        Raises:
            EngineError: onnxruntime failed.
        """
        spoken = not self.lane.ended
        count = self.codec.decode_frame(self.lane.codes, out) if spoken else self.codec.flush(out)
        cut = spoken and self.lane.full
        if cut:
            _fade_out(out[:count])
        self.over = cut or not spoken
        return count, Piece(int(spoken), last=True, truncated=cut and self.lane.ran_away) if self.over else _FRAME

    def make_ahead(self) -> Piece:
        """``make``, and keep the samples until they are wanted.

        Raises:
            EngineError: onnxruntime failed.
        """
        frame = self.codec.samples_per_frame
        if not len(self._pcm):
            most = self.lane.limits.most
            self._pcm = np.empty((most + 1) * frame, np.int16)
            self._codes = np.empty((most + 1, len(self.lane.codes)), np.int32)
        start = self._ends[-1] if self._ends else 0
        count, piece = self.make(self._pcm[start : start + frame])
        self._codes[len(self._pieces)] = self.lane.codes
        self._ends.append(start + count)
        self._pieces.append(piece)
        return piece

    @property
    def has_kept(self) -> bool:
        """Whether there is something that was made ahead and not yet taken."""
        return self._taken < len(self._pieces)

    def take_kept(self) -> tuple[Pcm16, I32, Piece]:
        """The next samples, int16 [S], that were made ahead, and the codes of their frame."""
        at = self._taken
        self._taken += 1
        start = self._ends[at - 1] if at else 0
        return self._pcm[start : self._ends[at]], self._codes[at], self._pieces[at]

    def again(self) -> None:
        """Forget what was made of it: it is tried again."""
        self.attempt += 1
        self.over = False
        self._taken = 0
        self._ends.clear()
        self._pieces.clear()
        self.codec.reset()


def _fade_out(samples: Pcm16) -> None:
    """Fade the last 20 ms of int16 [S] to zero in place."""
    tail = samples[-CUT_FADE_SAMPLES:]
    tail[:] = tail * np.linspace(1.0, 0.0, len(tail), dtype=np.float32)
