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
from daemon.engine.voices import Voice
from daemon.values import SAMPLE_RATE, Pcm16, Segment, Segmenter

CUT_FADE_SAMPLES = SAMPLE_RATE // 50
"""20 ms, the end of a segment that is cut."""


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

    Attributes:
        chunk: describes what ``next_audio_chunk`` returned last.
        segment: what that chunk is of.
        codes: int32 [Q] of that chunk's frame, where it has one; overwritten by the next.
        seed: the seed in use, None until the first segment has started.
        attempt: how often the current segment has been tried again.
    """

    def __init__(
        self,
        model: CsmModel,
        codec: CodecDecoder,
        segmenter: Segmenter,
        voice: Voice,
        *,
        seed: int | None,
        sampling: Sampling,
        depth_sampling: Sampling,
        conversation: Sequence[PromptSegment] = (),
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._model = model
        self._codec = codec
        self._segmenter = segmenter
        self._voice = voice
        self._conversation = conversation
        self._stop = stop
        self._sampling = sampling
        self._depth_sampling = depth_sampling
        self._buffer = np.zeros(codec.samples_per_frame, np.int16)
        self._pending: deque[Segment] = deque()
        self._current: Segment | None = None
        self.segment = Segment("", 0)
        self._pause_left = 0
        self._segments_started = 0
        self.attempt = 0
        self._segment_sample = 0
        self._sample = 0
        self._ended = False
        self._cancelled = False
        self.seed = seed
        self.chunk = Chunk(0, 0, 0, 0, truncated=False)
        self.codes = model.codes
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
        return self._current is None and self._pause_left == 0

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
        last = self._model.spoken() if self._segments_started and self._current is None else []
        return self._spoken + last

    def push_text(self, text: str) -> None:
        """Take more text; what is complete can be spoken at once."""
        self._pending.extend(self._segmenter.push(text))

    def flush(self) -> None:
        """The text has ended."""
        self._pending.extend(self._segmenter.flush())
        self._ended = True

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
            if self.segment_ended:
                if not self._pending:
                    return None
                try:
                    self._start(self._pending.popleft())
                except PrefillStoppedError:
                    self._cancelled = True
                    return None
            count = self._be_silent() if self._current is None else self._decode_next()
            if count:
                return self._buffer[:count]
        return None

    def retry_segment(self) -> None:
        """Speak the segment of the last chunk again with another seed; the caller takes back its audio."""
        self._current = self.segment
        self._sample = self._segment_sample
        self.attempt += 1
        self._model.restart(self._rng())
        self._codec.reset()

    def _start(self, segment: Segment) -> None:
        if segment.text:
            self._start_speech(segment)
        else:
            self._pause_left = round(segment.pause_s * SAMPLE_RATE)
        self.segment = segment
        self._segment_sample = self._sample

    def _start_speech(self, segment: Segment) -> None:
        if self.seed is None:
            self.seed = default_seed(segment.text, self._voice.name)
        if self._segments_started == 0:
            self._model.begin(self._voice, self._conversation, self._stop)
        else:
            self._spoken += self._model.spoken()
        self._current = segment
        self._segments_started += 1
        self.attempt = 0
        self._model.start(segment.text, self._rng(), self._sampling, self._depth_sampling)
        self._codec.reset()

    def _rng(self) -> np.random.Generator:
        """Of the current segment and attempt."""
        return np.random.default_rng([self.seed or 0, self._segments_started - 1, self.attempt])

    def _be_silent(self) -> int:
        """Put the next samples of a pause into the buffer, at most a frame; return how many."""
        count = min(self._pause_left, len(self._buffer))
        self._buffer[:count] = 0
        self._pause_left -= count
        self.chunk = Chunk(self._sample, self.segment.offset, 0, self._segments_started - 1, truncated=False)
        self._sample += count
        return count

    def _decode_next(self) -> int:
        """Decode one frame, or what is left after the last, into the buffer; return the number of samples."""
        segment = self._current
        if segment is None:
            return 0
        spoken = self._model.next_frame()
        began = perf_counter()
        count = self._codec.decode_frame(self._model.codes, self._buffer) if spoken else self._codec.flush(self._buffer)
        self._model.times.codec += perf_counter() - began
        truncated = spoken and self._model.ran_away
        if truncated:
            _fade_out(self._buffer[:count])
        if truncated or not spoken:
            self._current = None
        self.chunk = Chunk(self._sample, segment.offset, int(spoken), self._segments_started - 1, truncated)
        self._sample += count
        return count


def default_seed(text: str, voice: str) -> int:
    """The seed of an utterance that was given none, 0..2**32-1: the same announcement always sounds the same."""
    return int.from_bytes(hashlib.sha256(f"{voice}\0{text}".encode()).digest()[:4], "big")


def _fade_out(samples: Pcm16) -> None:
    """Fade the last 20 ms of int16 [S] to zero in place."""
    tail = samples[-CUT_FADE_SAMPLES:]
    tail[:] = tail * np.linspace(1.0, 0.0, len(tail), dtype=np.float32)
