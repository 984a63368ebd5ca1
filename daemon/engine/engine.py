"""A loaded bundle, ready to speak: the composition of the engine's parts."""

import logging
import os
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Self, TypeVar

from daemon.config import EngineConfig
from daemon.engine.bundle import Bundle, find_bundle, load_bundle
from daemon.engine.codec import CodecDecoder
from daemon.engine.families.csm import CsmModel, StageTimes
from daemon.engine.sampling import Sampling
from daemon.engine.session import TtsSession
from daemon.engine.voices import Voices
from daemon.errors import BadRequestError, EngineError, ModelError
from daemon.values import SAMPLE_RATE, Segment, Segmenter

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

FAMILIES = {"csm": CsmModel}
SELF_TEST_TEXT = "this is a test."
SELF_TEST_FRAMES = 12
ONE_THREAD_BYTES = 64 * 2**20
"""A backbone up to this size runs fastest on one thread: its steps are shorter than waking another."""


def bundle_search(config: EngineConfig) -> list[Path]:
    """Where bundles are looked for: as configured, else the repository's models/, then the service's folder."""
    if config.bundle_path:
        return [Path(path).expanduser() for path in config.bundle_path]
    return [Path(__file__).resolve().parents[2] / "models", Path("/var/lib/crier/models")]


class Engine:
    """The models of one bundle. One session at a time, on one thread.

    Attributes:
        bundle: what was loaded.
        voices: its voices.
        rtf: seconds of synthesis per second of audio, as measured last; above 1 it cannot keep up.

    Raises:
        ModelError: the bundle is missing, damaged or not consistent.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.bundle: Bundle = load_bundle(find_bundle(config.bundle, bundle_search(config)), verify=config.verify)
        manifest = self.bundle.manifest
        if manifest.family not in FAMILIES:
            known = ", ".join(FAMILIES)
            raise ModelError(f"{self.bundle.folder}: family {manifest.family!r}, this program knows: {known}")
        self.num_threads = config.threads or _automatic_threads(self.bundle)
        self.voices = Voices(manifest)
        self.rtf = 0.0
        self._defaults = (
            Sampling(manifest.sampling.temperature, manifest.sampling.top_k),
            Sampling(manifest.sampling.depth_temperature, manifest.sampling.depth_top_k),
        )
        self._open()

    def _open(self) -> None:
        self._model = FAMILIES[self.bundle.manifest.family](self.bundle, num_threads=self.num_threads)
        try:
            self._codec = CodecDecoder(self.bundle)
        except ModelError:
            self._model.close()
            raise

    @property
    def times(self) -> StageTimes:
        """What the stages have taken since ``reset_times``."""
        return self._model.times

    def reset_times(self) -> StageTimes:
        """Start counting anew; returns the new counters."""
        self._model.times = StageTimes()
        return self._model.times

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
    ) -> TtsSession:
        """Begin an utterance; the one before is over.

        Raises:
            BadRequestError: unknown_voice, or a negative seed.
        """
        if seed is not None and seed < 0:
            raise BadRequestError("bad_request", f"seed must not be negative, got {seed}")
        backbone, depth = sampling or self._defaults
        return TtsSession(
            self._model,
            self._codec,
            segmenter,
            self.voices.get(voice),
            seed=seed,
            sampling=backbone,
            depth_sampling=depth,
        )

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
        self.reset_times()

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


def _automatic_threads(bundle: Bundle) -> int:
    cores = len(os.sched_getaffinity(0))
    return 1 if bundle.manifest.files["backbone"].bytes <= ONE_THREAD_BYTES else min(cores, 4)
