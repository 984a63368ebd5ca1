"""When speech may begin so that it does not run dry: how much is still to come, and how fast it is made.

While an utterance is made, audio is made at 1 / pace and, once it plays, heard at 1. It never runs dry if, when it
begins, there lies as much as making the rest takes longer than hearing it. That is reckoned anew with every frame: the
pace is that of the frames made so far, and segments that are done count with their true length. Both have margins, as
wide as earlier speech was off; of a voice that has said little, a segment may be as long as the manifest lets it be.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from daemon.audio.utterance import Hold
from daemon.engine.engine import Engine
from daemon.engine.session import TtsSession
from daemon.output import pace
from daemon.spread import LEAST, Spread
from daemon.text_source import TextSource
from daemon.values import SAMPLE_RATE, Segment, Segmenter

_UNSURE = 2.0
"""Until this utterance's own frames tell, its pace may be so many times what it was before: that much a neighbour who
wants the cores takes."""
_VOICES = 64
_SETUPS = 16
_BLOCK_S = 0.02
"""About what the sound device takes at a time."""
_RECENT_FRAMES = 12
"""About a second: a machine that gets slower in the middle is seen as soon as that."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A segment as it is expected to be, or a pause."""

    segment: Segment | None
    expected_s: float
    """Seconds of speech that have to be made; 0 for a pause."""
    shortest_s: float
    """It does not end before this."""
    longest_s: float
    """It is cut after this."""
    tokens: int
    pace: float
    """Seconds made for each that is heard."""
    pause_s: float = 0.0


class Forecaster:
    """What earlier speech tells of the next. The synth thread learns; any thread may ask.

    Args:
        engine: has the limits, and the pace of late.
    """

    def __init__(self, engine: Engine) -> None:
        manifest = engine.bundle.manifest
        self._engine = engine
        self._limits = manifest.limits
        self.frame_s = 1 / manifest.audio.frame_rate
        self._lengths: dict[str, Spread] = {}
        self.drifts = Spread(16)
        """The pace after speech had begun against the one known until then."""
        self.hiccups: deque[float] = deque(maxlen=8)
        """By how many seconds the latest frame of an utterance was late."""
        self.setups: deque[float] = deque(maxlen=_SETUPS)
        """Seconds a token from the end of a segment to the next one's first frame, beside that frame's own."""

    @property
    def pace(self) -> float:
        """Seconds of synthesis for each of speech, as it was of late."""
        return self._engine.rtf

    def piece(self, segment: Segment, speed: float) -> Piece:
        """What is expected of a segment in a request of ``speed``."""
        if not segment.text:
            return Piece(segment, 0.0, 0.0, 0.0, 0, 1.0, segment.pause_s)
        tokens = self._engine.count_tokens(segment.text)
        return self._speech(segment, self._engine.expected_s(tokens), tokens, pace(segment, speed))

    def unread(self, expected_s: float, speed: float) -> Piece:
        """Text that is expected to last so long, of which the segments are not known yet."""
        return self._speech(None, expected_s, 0, pace(Segment("-", 0), speed))

    def _speech(self, segment: Segment | None, expected_s: float, tokens: int, paced: float) -> Piece:
        limits = self._limits
        longest_s = min(limits.max_ratio * expected_s + limits.slack_s, limits.max_utterance_s)
        return Piece(segment, expected_s, min(limits.min_ratio * expected_s, longest_s), longest_s, tokens, paced)

    def lengths(self, voice: str) -> Spread:
        """How long segments of a voice were against what was expected."""
        spread = self._lengths.pop(voice, None) or Spread(64)
        self._lengths[voice] = spread
        while len(self._lengths) > _VOICES:
            del self._lengths[next(iter(self._lengths))]
        return spread

    def audio_s(self, pieces: Sequence[Piece], voice: str) -> float:
        """How long pieces will be heard, as far as can be told."""
        known = self._lengths.get(voice)
        stretch = known.mean if known else 1.0
        return sum(piece.expected_s * stretch / piece.pace + piece.pause_s for piece in pieces)

    def wait_s(self, pieces: Sequence[Piece], voice: str, *, cautious: bool) -> float:
        """How long speech will be held back from when it is begun to be made; what ``Outlook`` will find, as expected.

        Args:
            pieces: all of it.
            voice: whose it is.
            cautious: with a margin for its length.
        """
        known = self._lengths.get(voice) or Spread()
        pace_now, setup_s = self.pace, self.setup_s
        worst = stretched(pieces, known, pace_now if cautious else None)
        held_s = deficit_s(worst, pace_now, setup_s) + self.cushion_s(pace_now)
        likely = stretched(pieces, known, None)
        made_s = sum(made * pace_now + piece.tokens * setup_s for piece, made, _ in likely)
        return max(0.0, min(held_s, made_s))

    @property
    def setup_s(self) -> float:
        """Seconds a token before a segment's first frame, at worst."""
        return max(self.setups, default=0.0)

    def cushion_s(self, pace_now: float) -> float:
        """What must be there until the next frame comes, be it never late."""
        return min(pace_now, 1.0) * self.frame_s + _BLOCK_S


Stretch = tuple[Piece, float, float]
"""A piece, the seconds of speech to be made of it, the seconds it will be heard."""


def stretched(pieces: Sequence[Piece], known: Spread, pace_now: float | None, *, made_s: float = 0.0) -> list[Stretch]:
    """Pieces with the lengths that they are expected to have, or at worst, but for ``RISK``.

    Args:
        pieces: in order.
        known: the lengths of earlier ones.
        pace_now: at this pace one that is slower made than heard is at worst as long as it may be, another as short;
            None: as expected.
        made_s: so much of the first has been made.
    """
    expected_s = sum(piece.expected_s for piece in pieces)
    mean = known.mean
    most = known.upper(expected_s) / expected_s if expected_s else mean
    left = []
    for piece in pieces:
        if pace_now is None:
            whole_s = min(piece.expected_s * mean, piece.longest_s)
        elif pace_now * piece.pace < 1:
            whole_s = max(piece.expected_s * (2 * mean - most), piece.shortest_s)
        else:
            whole_s = min(piece.expected_s * most, piece.longest_s)
            if whole_s <= made_s:
                whole_s = piece.longest_s  # longer than was thought: there is no telling any more
        rest_s = max(0.0, whole_s - made_s)
        left.append((piece, rest_s, rest_s / piece.pace + piece.pause_s))
        made_s = 0.0
    return left


def deficit_s(left: Iterable[Stretch], pace_now: float, setup_s: float) -> float:
    """How far the buffer falls below where it is when speech begins, until all is said."""
    level = deepest = 0.0
    for index, (piece, made, heard) in enumerate(left):
        if index:
            level += piece.tokens * setup_s
            deepest = max(deepest, level)
        level += made * pace_now - heard
        deepest = max(deepest, level)
    return deepest


class Outlook:
    """One utterance while it is made: measures it, and tells ``hold`` how much must lie in the ring. The synth thread.

    Args:
        forecaster: knows earlier ones, and learns of this one.
        source: the text, of which some may not have been cut into segments yet.
        hold: None where nobody listens, as in a render.
        voice: whose speech it is.
        speed: of the request.
        cautious: with margins; without, speech begins as early as it may be expected to come through.
    """

    def __init__(
        self, forecaster: Forecaster, source: TextSource, hold: Hold | None, *, voice: str, speed: float, cautious: bool
    ) -> None:
        self._forecaster = forecaster
        self._source = source
        self._hold = hold
        self._speed = speed
        self._cautious = cautious
        self._lengths = forecaster.lengths(voice)
        self._pieces: deque[Piece] = deque()
        """The current one and those after it."""
        self._begun = False
        self._read_s = 0.0
        """Seconds of speech expected of all pieces."""
        self._read_all = False
        self._frames, self._recent = Spread(), Spread(_RECENT_FRAMES)
        self._after: Spread | None = None
        """Frames made since speech began, against ``_pace_before``, the pace known until then."""
        self._pace_before = 0.0
        self._hiccup_s = 0.0
        self._firsts: list[tuple[float, int]] = []
        """Seconds that the first frame of a segment took, and its tokens; the latest few."""

    def overhear(self, segmenter: Segmenter) -> Segmenter:
        """The same segmenter, of whose segments this hears."""
        return _Overheard(segmenter, self)

    def read(self, segments: list[Segment], *, last: bool) -> None:
        """These come next; ``last``: and no more."""
        for segment in segments:
            piece = self._forecaster.piece(segment, self._speed)
            self._pieces.append(piece)
            self._read_s += piece.expected_s
        self._read_all = last

    def note(self, session: TtsSession, num_samples: int, took_s: float) -> None:
        """A chunk of so many samples has been made, and is about to be written."""
        first = session.segment_samples == num_samples
        while self._pieces and self._pieces[0].segment is not session.segment:
            self._pieces.popleft()
        if not self._pieces:
            return
        piece = self._pieces[0]
        if first:
            self._note_first(piece, took_s)
        elif session.chunk.frames:
            self._note_frame(took_s)
        made_s = session.segment_samples / SAMPLE_RATE
        if session.segment_ended and piece.expected_s:
            self._lengths.add(piece.expected_s, made_s)
        hold = self._hold
        if hold is not None and not hold.begun:
            hold.samples = round(SAMPLE_RATE * self._need_s(made_s, done=session.segment_ended))
        self._begun = True

    def close(self) -> None:
        """The utterance is over, or broke off."""
        self._forecaster.setups.extend(self._setups())
        if self._frames.count >= LEAST:
            self._forecaster.hiccups.append(self._hiccup_s)
        if self._after is not None and self._after.count >= LEAST:
            self._forecaster.drifts.add(1.0, self._after.mean)

    def _note_first(self, piece: Piece, took_s: float) -> None:
        """The first frame of a segment.

        Before an utterance's first one a recording may be read too, so that this counts only if nothing else is known.
        """
        if piece.tokens and (self._begun or not self._forecaster.setups):
            self._firsts = [*self._firsts[-_SETUPS + 1 :], (took_s, piece.tokens)]

    def _setups(self) -> list[float]:
        """Seconds a token for the reading of a segment's text: all but what a frame takes, for each first frame."""
        frame_s = self._pace * self._forecaster.frame_s
        return [max(0.0, took_s - frame_s) / tokens for took_s, tokens in self._firsts]

    def _note_frame(self, took_s: float) -> None:
        frame_s = self._forecaster.frame_s
        if self._frames.count:
            self._hiccup_s = max(self._hiccup_s, took_s - self._frames.mean * frame_s)
        if self._after is None and self._hold is not None and self._hold.begun and self._pace > 0:
            self._after, self._pace_before = Spread(), self._pace
        if self._after is not None:
            self._after.add(self._pace_before * frame_s, took_s)
        self._frames.add(frame_s, took_s)
        self._recent.add(frame_s, took_s)

    @property
    def _pace(self) -> float:
        """Of this utterance, or of late if that is not known yet."""
        return self._frames.mean if self._frames.count >= LEAST else self._forecaster.pace

    def _need_s(self, made_s: float, *, done: bool) -> float:
        """Seconds of speech that must lie in the ring before any may be heard."""
        forecaster, pieces = self._forecaster, list(self._pieces)
        if not self._read_all and (unread_s := self._source.expected_s - self._read_s) > 0:
            pieces.append(forecaster.unread(unread_s, self._speed))
        pace_now = self._pace_ahead(sum(piece.expected_s for piece in pieces)) if self._cautious else self._pace
        left = stretched(pieces, self._lengths, pace_now if self._cautious else None, made_s=made_s)
        current = pieces[0]
        if done or not current.expected_s:
            left[0] = (current, 0.0, 0.0 if done else max(0.0, current.pause_s - made_s))
        late_s = max(self._hiccup_s, *forecaster.hiccups, 0.0) if self._cautious else 0.0
        setup_s = max(forecaster.setup_s, *self._setups(), 0.0)
        return deficit_s(left, pace_now, setup_s) + forecaster.cushion_s(pace_now) + late_s

    def _pace_ahead(self, made_s: float) -> float:
        """The pace that the rest, ``made_s`` of it, will have at worst."""
        forecaster = self._forecaster
        drift = max(1.0, forecaster.drifts.upper(1.0))
        if self._frames.count < LEAST:
            return forecaster.pace * min(drift, _UNSURE)
        ahead_s = max(made_s, forecaster.frame_s)
        known = max(self._frames.upper(ahead_s) / ahead_s, self._recent.mean)
        return known if math.isinf(drift) else max(known, self._pace * drift)


class _Overheard:
    """Passes a segmenter's segments on, and tells of them."""

    def __init__(self, segmenter: Segmenter, outlook: Outlook) -> None:
        self._segmenter = segmenter
        self._outlook = outlook

    def push(self, text: str) -> list[Segment]:
        segments = self._segmenter.push(text)
        self._outlook.read(segments, last=False)
        return segments

    def flush(self) -> list[Segment]:
        segments = self._segmenter.flush()
        self._outlook.read(segments, last=True)
        return segments
