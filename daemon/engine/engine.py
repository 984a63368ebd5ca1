"""A loaded bundle, ready to speak: the composition of the engine's parts."""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Self, TypeVar

from daemon.config_sections import EngineConfig
from daemon.engine.bundle import KV_FOLDER, Bundle, bundle_search, find_bundle, load_bundle
from daemon.engine.codec import CodecDecoder
from daemon.engine.families.csm import CsmModel
from daemon.engine.frames import StageTimes
from daemon.engine.governor import ThreadGovernor
from daemon.engine.history import History
from daemon.engine.llama import runtime
from daemon.engine.onnx import runtime as onnx_runtime
from daemon.engine.prompt_segment import PromptSegment
from daemon.engine.sampling import Sampling
from daemon.engine.session import TtsSession
from daemon.engine.voice_store import VoiceStore
from daemon.engine.voices import Voices
from daemon.errors import BadRequestError, EngineError, ModelError
from daemon.values import I32, SAMPLE_RATE, Segment, Segmenter, Turn

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

FAMILIES = {"csm": CsmModel}
SELF_TEST_TEXT = "this is a test."
SELF_TEST_FRAMES = 12
HISTORY_S = 600.0
"""Seconds of speech whose codes are kept for requests that go on from them: a megabyte of CSM-1B's."""
SMALL_BYTES = 64 * 2**20
"""A backbone up to this size is far faster than real time, and runs fastest on one thread: its steps are shorter than
waking another."""
LANES = 4
"""Sentences made together by a larger one: llama.cpp multiplies four columns at once, two or three gain nothing."""
LEAST_GAIN = 1.15
"""How much faster sentences must be together than one after the other, in frames a second, to be made together."""


@dataclass(frozen=True, slots=True)
class Folders:
    """Where an engine finds and keeps what is not in the bundle."""

    voices: tuple[Path, ...] = ()
    """Recorded voices; the first is the one that new ones are put in."""
    cache: Path | None = None
    """What can be computed again; None: nowhere."""


class Engine:
    """The models of one bundle. One session at a time, on one thread.

    Attributes:
        bundle: what was loaded.
        voices: its voices.
        num_threads: the most llama.cpp threads.
        rtf: seconds of synthesis per second of audio, as measured last; above 1 it cannot keep up.
        history: what was said lately, by request.
        identity: what decides the bits of speech beside text, voice and seed.

    Raises:
        ModelError: the bundle is missing, damaged or not consistent.
    """

    def __init__(self, config: EngineConfig, folders: Folders | None = None) -> None:
        folders = folders or Folders()
        self.bundle: Bundle = load_bundle(find_bundle(config.bundle, bundle_search(config)), verify=config.verify)
        manifest = self.bundle.manifest
        if manifest.family not in FAMILIES:
            known = ", ".join(FAMILIES)
            raise ModelError(f"{self.bundle.folder}: family {manifest.family!r}, this program knows: {known}")
        self.num_threads = choose_threads(config, self.bundle)
        self._governor = ThreadGovernor(self.num_threads) if config.adapt_threads and self.num_threads > 1 else None
        self.voices = Voices(manifest, VoiceStore(folders.voices, manifest.name))
        self.history = History(HISTORY_S * manifest.audio.frame_rate)
        self._kv = (folders.cache and folders.cache / KV_FOLDER, config.kv_cache_mb * 2**20)
        self.rtf = 0.0
        self._config = config
        self._defaults = (
            Sampling(manifest.sampling.temperature, manifest.sampling.top_k),
            Sampling(manifest.sampling.depth_temperature, manifest.sampling.depth_top_k),
        )
        sampling = " ".join(map(repr, self._defaults))
        content = f"{manifest.model_dump_json()} {sampling} {runtime()} {onnx_runtime()}"
        self.identity = hashlib.sha256(content.encode()).hexdigest()
        self._open()

    def _open(self) -> None:
        folder, max_bytes = self._kv
        self._model = FAMILIES[self.bundle.manifest.family](
            self.bundle,
            num_threads=self.num_threads,
            num_lanes=self._config.batch or (1 if is_small(self.bundle) else LANES),
            linked=self._config.link_sentences,
            governor=self._governor,
            kv_folder=folder,
            kv_bytes=max_bytes,
        )
        try:
            first = CodecDecoder(self.bundle, num_threads=self.num_threads)
            self._codecs = [first, *(CodecDecoder(self.bundle, beside=first) for _ in range(self._model.num_lanes - 1))]
        except ModelError:
            self._model.close()
            raise

    @property
    def num_lanes(self) -> int:
        """Sentences of a text that may be made together."""
        return self._model.num_lanes

    @property
    def threads_now(self) -> int:
        """How many llama.cpp threads run at present: fewer than ``num_threads`` beside programs that want the cores."""
        return self._governor.level if self._governor else self.num_threads

    @property
    def times(self) -> StageTimes:
        """What the stages have taken since ``reset_times``."""
        return self._model.times

    def reset_times(self) -> StageTimes:
        """Start counting anew; returns the new counters."""
        return self._model.reset_times()

    def count_tokens(self, text: str) -> int:
        """Positions that a segment's prompt takes."""
        return self._model.count_tokens(text)

    def sampling(
        self, *, temperature: float | None = None, depth_temperature: float | None = None, top_k: int | None = None
    ) -> tuple[Sampling, Sampling]:
        """The bundle's sampling of backbone and depth decoder, with what is given put in its place.

        Raises:
            BadRequestError: out of range.
        """
        backbone, depth = self._defaults
        return (
            Sampling(_given(temperature, backbone.temperature), _given(top_k, backbone.top_k)),
            Sampling(_given(depth_temperature, depth.temperature), _given(top_k, depth.top_k)),
        )

    def session(
        self,
        segmenter: Segmenter,
        *,
        voice: str | None = None,
        seed: int | None = None,
        sampling: tuple[Sampling, Sampling] | None = None,
        context: Sequence[str | Turn] = (),
        stop: Callable[[], bool] = lambda: False,
        may_run_ahead: Callable[[], bool] = lambda: True,
    ) -> TtsSession:
        """Begin an utterance; the one before is over.

        Args:
            segmenter: cuts the text.
            voice: its name; None is the bundle's default.
            seed: of the sampling; None: from the text and the voice.
            sampling: in place of the bundle's.
            context: what was said before: ids in ``history`` (those no longer there are passed over), or texts.
            may_run_ahead: asked before a sentence is begun beside the one whose turn it is, which slows that down.
            stop: asked while a recording or the context is read, which can take seconds; True cancels the session.

        Raises:
            BadRequestError: unknown_voice, or a negative seed.
        """
        if seed is not None and seed < 0:
            raise BadRequestError("bad_request", f"seed must not be negative, got {seed}")
        backbone, depth = sampling or self._defaults
        return TtsSession(
            self._model,
            self._codecs,
            segmenter,
            self.voices.get(voice),
            seed=seed,
            sampling=backbone,
            depth_sampling=depth,
            conversation=[segment for entry in context for segment in self._segments(entry)],
            stop=stop,
            may_run_ahead=may_run_ahead,
        )

    def remember(self, request_id: str, voice: str | None, texts: Sequence[str], codes: Sequence[I32]) -> None:
        """Keep what was said for a request without a session: its segments' texts and the codes of each.

        Raises:
            BadRequestError: unknown_voice.
        """
        speaker = self.voices.get(voice).speaker
        segments = [
            PromptSegment(self._model.encode(text, speaker), each) for text, each in zip(texts, codes, strict=False)
        ]
        self.history.add(request_id, segments)

    @property
    def takes_context(self) -> bool:
        """Whether the model was trained to go on from earlier speech."""
        return self.bundle.manifest.limits.context_s > 0

    def _segments(self, entry: str | Turn) -> list[PromptSegment]:
        return self.history.get(entry) if isinstance(entry, str) else [self._model.turn(entry.text, entry.speaker)]

    def expected_s(self, num_tokens: int) -> float:
        """How long speech of so many text tokens is expected to last."""
        return num_tokens * self.bundle.manifest.limits.seconds_per_token

    def note_rtf(self, synthesis_s: float, audio_s: float) -> None:
        """Take a measurement into ``rtf``."""
        if audio_s > 0:
            measured = synthesis_s / audio_s
            self.rtf = measured if self.rtf == 0 else 0.7 * self.rtf + 0.3 * measured

    def self_test(self) -> None:
        """Speak a phrase to nowhere: warms every stage up and measures ``rtf``.

        Raises:
            EngineError: a stage fails, or nothing comes out.
        """
        session = self.session(_OneSegment())
        session.push_text(SELF_TEST_TEXT)
        session.flush()
        for measured in (False, True):
            began, start = perf_counter(), session.num_samples
            for _ in range(SELF_TEST_FRAMES // 2):
                session.next_audio_chunk()
            if measured:
                self.note_rtf(perf_counter() - began, (session.num_samples - start) / SAMPLE_RATE)
        if session.num_samples == 0:
            raise EngineError(f"{self.bundle.manifest.name}: the self-test phrase gave no audio")
        if self._config.batch == 0 and self._model.num_lanes > 1:
            self._try_lanes()
        self.reset_times()

    def _try_lanes(self) -> None:
        """Make sentences together only where that is faster."""
        gain, num_lanes = self._model.measure_lanes(SELF_TEST_TEXT), self._model.num_lanes
        if gain < LEAST_GAIN:
            self._model.use_one_lane()
        logger.info("sentences together=%d gain=%.2f used=%s", num_lanes, gain, gain >= LEAST_GAIN)

    def rebuild(self) -> None:
        """Make every context anew after a failure, and speak the self-test phrase.

        Raises:
            EngineError: it fails again.
            ModelError: the files are no longer there.
        """
        logger.warning("engine rebuild bundle=%s", self.bundle.manifest.name)
        self._model.close()
        self._open()
        self.self_test()

    def close(self) -> None:
        """Free the models."""
        self._model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _OneSegment:
    """The segmenter of the self-test: what is pushed is one segment."""

    def push(self, text: str) -> list[Segment]:
        return [Segment(text, 0)]

    def flush(self) -> list[Segment]:
        return []


def _given(value: _T | None, default: _T) -> _T:
    return default if value is None else value


def is_small(bundle: Bundle) -> bool:
    """Whether the models are so small that neither threads nor sentences made together are of any use."""
    return bundle.manifest.files["backbone"].bytes <= SMALL_BYTES


def choose_threads(config: EngineConfig, bundle: Bundle) -> int:
    """How many llama.cpp threads to run: as configured, else what suits the backbone's size."""
    cores = len(os.sched_getaffinity(0))
    automatic = 1 if is_small(bundle) else min(cores, 4)
    return config.threads or automatic
