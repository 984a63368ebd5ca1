"""One utterance: text in pieces in, PCM16 out, a frame at a time."""

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from daemon.engine.codec import CodecDecoder
from daemon.engine.families.csm import CsmModel
from daemon.engine.llama import PrefillStoppedError
from daemon.engine.prompt_segment import PromptSegment
from daemon.engine.sampling import Sampling
from daemon.engine.take import Piece, Take
from daemon.engine.voices import Voice
from daemon.values import I32, SAMPLE_RATE, Pcm16, Segment, Segmenter

MAX_RETRIES = 2
"""How often a segment that runs away is tried again, where sampling is not greedy and none of it was heard."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Where the last chunk of audio belongs."""

    sample_offset: int
    """Its first sample, counted from the start of the utterance."""
    text_offset: int
    """Where its segment begins in the text that was pushed, in characters."""
    frames: int
    """Frames decoded for it: 1, or 0 for what the codec held back and for a pause."""
    segment: int
    """Which of the spoken ones; for a pause, the one before it."""
    truncated: bool
    """It is the end of a segment that ran away and was cut."""


class TtsSession:
    """Speaks one text. The same text, voice and seed give the same PCM, however the text is cut into pieces.

    Segment i is sampled with a generator seeded by (seed, i, attempt), so what came before it does not matter. Without
    a seed, the first segment's text and the voice decide it. A pause is silence, and counts for nothing in this.

    The first segment is made alone, so that it is heard soon. Where the model has more lanes than one, those after it
    are made together as far as their texts are there, each frame of all of them with one reading of the weights; what
    is made before its turn is kept until then. All together are made sooner, the one whose turn it is later, so
    ``may_run_ahead`` is asked before another begins.

    Attributes:
        chunk: describes what ``next_audio_chunk`` returned last.
        segment: what that chunk is of.
        codes: int32 [Q] of that chunk's frame, where it has one; overwritten by the next.
        seed: the seed in use, None until the first segment has started.
        attempt: how often the current segment has been tried again.
        together: whether segments have been made side by side.
    """

    def __init__(
        self,
        model: CsmModel,
        codecs: Sequence[CodecDecoder],
        segmenter: Segmenter,
        voice: Voice,
        *,
        seed: int | None,
        sampling: Sampling,
        depth_sampling: Sampling,
        conversation: Sequence[PromptSegment] = (),
        stop: Callable[[], bool] = lambda: False,
        may_run_ahead: Callable[[], bool] = lambda: True,
    ) -> None:
        self._model = model
        self._codecs = list(codecs)  # those that are free
        self._segmenter = segmenter
        self._voice = voice
        self._conversation = conversation
        self._stop = stop
        self._may_run_ahead = may_run_ahead
        self._sampling = sampling
        self._depth_sampling = depth_sampling
        self._buffer = np.zeros(codecs[0].samples_per_frame, np.int16)
        self._pending: deque[Segment] = deque()
        self._unmade: deque[Segment] = deque()  # those of them with text whose making has not begun
        self._ahead: deque[Take] = deque()  # the other ones
        self._take: Take | None = None
        self._before: Take | None = None  # its lane is not free yet, for it may have to be tried again
        self.segment = Segment("", 0)
        self._pause_left = 0
        self._segments_begun = 0
        self._segments_started = 0
        self.attempt = 0
        self.together = False
        self._segment_sample = 0
        self._sample = 0
        self._ended = False
        self._cancelled = False
        self.seed = seed
        self.chunk = Chunk(0, 0, 0, 0, truncated=False)
        self.codes: I32 = np.zeros(0, np.int32)
        self._spoken: list[PromptSegment] = []

    @property
    def greedy(self) -> bool:
        """Whether another seed would change nothing."""
        return self._sampling.greedy and self._depth_sampling.greedy

    @property
    def finished(self) -> bool:
        """Whether no audio will come any more."""
        return self._cancelled or (self._ended and not self.has_work)

    @property
    def has_work(self) -> bool:
        """Whether the next call can give audio without more text."""
        return not self.segment_ended or bool(self._pending)

    @property
    def segment_ended(self) -> bool:
        """Whether the last chunk ended its segment."""
        return self._take is None and self._pause_left == 0

    @property
    def segment_samples(self) -> int:
        """Samples returned of the segment that the last chunk belongs to."""
        return self._sample - self._segment_sample

    @property
    def num_samples(self) -> int:
        """Samples returned so far."""
        return self._sample

    def conversation(self) -> list[PromptSegment]:
        """What was said, for other sessions to go on from; empty where the model was not trained for that."""
        return self._spoken

    def push_text(self, text: str) -> None:
        """Take more text; what is complete can be spoken at once."""
        self._extend(self._segmenter.push(text))

    def flush(self) -> None:
        """The text has ended."""
        self._extend(self._segmenter.flush())
        self._ended = True

    def _extend(self, segments: Sequence[Segment]) -> None:
        self._pending.extend(segments)
        self._unmade.extend(segment for segment in segments if segment.text)

    def cancel(self) -> None:
        """Stop: ``next_audio_chunk`` gives None from now on."""
        self._cancelled = True

    def next_audio_chunk(self) -> Pcm16 | None:
        """The next samples, int16 [S] with S at most a frame, in a buffer that the next call overwrites.

        None when there is nothing to say until more text comes, or for good (``finished``).

        Raises:
            EngineError: llama.cpp or onnxruntime failed; the session is then of no more use.
            BadRequestError: a segment is longer than the model can take.
        """
        while not self._cancelled:
            try:
                if self.segment_ended:
                    if not self._pending:
                        return None
                    self._start(self._pending.popleft())
                pcm = self._be_silent() if self._take is None else self._next_of(self._take)
            except PrefillStoppedError:
                self._cancelled = True
                return None
            if len(pcm):
                return pcm
        return None

    def retry_segment(self) -> None:
        """Speak the segment of the last chunk again with another seed; the caller takes back its audio.

        Only while ``attempt`` is below ``MAX_RETRIES``.
        """
        take = self._before
        if take is None:
            return
        self._take, self._before = take, None
        self._sample = self._segment_sample
        self._try_again(take)
        self.attempt = take.attempt

    def _try_again(self, take: Take) -> None:
        take.again()
        self._model.restart(take.lane, self._rng(take))

    def _start(self, segment: Segment) -> None:
        if segment.text:
            self._start_speech()
        else:
            self._pause_left = round(segment.pause_s * SAMPLE_RATE)
        self.segment = segment
        self._segment_sample = self._sample

    def _start_speech(self) -> None:
        if self._before is not None:
            self._let_go(self._before)
            self._before = None
        self._take = take = self._ahead.popleft() if self._ahead else self._begin(self._unmade.popleft())
        self._segments_started += 1
        self.attempt = take.attempt

    def _begin(self, segment: Segment) -> Take:
        """Begin to make the next segment."""
        index = self._segments_begun
        if self.seed is None:
            self.seed = default_seed(segment.text, self._voice.name)
        if index == 0:
            self._model.begin(self._voice, self._conversation, self._stop)
        rng = np.random.default_rng([self.seed, index, 0])
        lane = self._model.start(segment.text, rng, self._sampling, self._depth_sampling)
        self._segments_begun += 1
        take = Take(segment, index, lane, self._codecs.pop())
        take.codec.reset()
        return take

    def _rng(self, take: Take) -> np.random.Generator:
        """Of the current attempt."""
        return np.random.default_rng([self.seed or 0, take.index, take.attempt])

    def _let_go(self, take: Take) -> None:
        """Its lane and its codec can be used by others."""
        self._model.release(take.lane)
        self._codecs.append(take.codec)

    def _next_of(self, take: Take) -> Pcm16:
        """The next samples of the segment whose turn it is, none at an end that holds nothing back."""
        if take.has_kept:
            pcm, self.codes, piece = take.take_kept()
        else:
            pcm, piece = self._make(take)
            self.codes = take.lane.codes
        if piece.last:
            self._spoken += take.spoken
            self._take = None
        self.chunk = Chunk(self._sample, take.segment.offset, piece.frames, take.index, piece.truncated)
        self._sample += len(pcm)
        return pcm

    def _make(self, current: Take) -> tuple[Pcm16, Piece]:
        """Make a frame of every segment that is under way; returns what came of the current one."""
        self._fill_lanes()
        model = self._model
        working = [take for take in self._ahead if not take.over] if self._ahead else ()
        model.next_frames([current.lane, *(take.lane for take in working)] if working else current.lanes)
        began = perf_counter()
        count, piece = current.make(self._buffer)
        for take in working:
            take.make_ahead()
        model.times.codec += perf_counter() - began
        if piece.last:
            current.spoken = model.spoken(current.lane)
            self._before = current
        for take in working:
            if take.over:
                self._finish_ahead(take)
        return self._buffer[:count], piece

    def _fill_lanes(self) -> None:
        """Begin segments whose turn has not come, once the first has been said."""
        while self._segments_started > 1 and self._unmade and self._model.has_lane_for(self._unmade[0].text):
            if not self._may_run_ahead():
                return
            self._ahead.append(self._begin(self._unmade.popleft()))
            self.together = True

    def _finish_ahead(self, take: Take) -> None:
        """A segment that was made ahead is over: it is tried again at once if it ran away, else its lane is free."""
        if take.lane.ran_away and not take.lane.ended and not self.greedy and take.attempt < MAX_RETRIES:
            self._try_again(take)
            return
        take.spoken = self._model.spoken(take.lane)
        self._let_go(take)

    def _be_silent(self) -> Pcm16:
        """The next samples of a pause, at most a frame."""
        count = min(self._pause_left, len(self._buffer))
        self._buffer[:count] = 0
        self._pause_left -= count
        self.chunk = Chunk(self._sample, self.segment.offset, 0, self._segments_started - 1, truncated=False)
        self._sample += count
        return self._buffer[:count]


def default_seed(text: str, voice: str) -> int:
    """The seed of an utterance that was given none, 0..2**32-1: the same announcement always sounds the same."""
    return int.from_bytes(hashlib.sha256(f"{voice}\0{text}".encode()).digest()[:4], "big")
