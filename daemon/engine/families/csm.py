"""The CSM family: prompt, frame loop and end of speech (CSM-1B, and the starter voice in its shape)."""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from daemon.engine.backbone import Backbone
from daemon.engine.bundle import Bundle
from daemon.engine.depth_decoder import DepthDecoder
from daemon.engine.governor import ThreadGovernor
from daemon.engine.heads import Heads
from daemon.engine.kv_files import KvFiles
from daemon.engine.llama import runtime, same_bits_with_flash_attention
from daemon.engine.prompt import Prompt
from daemon.engine.prompt_segment import PromptSegment
from daemon.engine.sampling import Sampler, Sampling
from daemon.engine.tokenizer import PromptTokenizer
from daemon.engine.voices import Voice, max_prompt
from daemon.errors import BadRequestError


@dataclass(slots=True)
class StageTimes:
    """Seconds spent in each stage since the last reset, and how many frames came of it."""

    prefill: float = 0.0
    backbone: float = 0.0
    depth: float = 0.0
    heads: float = 0.0
    sampling: float = 0.0
    codec: float = 0.0
    frames: int = 0


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """How many frames a segment may have, from the number of its text tokens."""

    least: int
    """No end of speech before this many."""
    most: int
    """Speech is cut after this many: it has run away."""


class CsmModel:
    """Codes for a segment of text, one frame at a time.

    Attributes:
        codes: int32 [Q], the frame that ``next_frame`` made; overwritten by the next.
        times: what the stages have taken.

    Source: SesameAILabs/csm generator.py ``generate`` and models.py ``generate_frame`` (revision 2d72082).

    Raises:
        ModelError: a part of the bundle is damaged or does not fit the others.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        num_threads: int,
        governor: ThreadGovernor | None = None,
        kv_folder: Path | None = None,
        kv_bytes: int = 0,
    ) -> None:
        manifest = bundle.manifest
        exact = manifest.recipe == manifest.depth_storage == "f32"
        self._manifest = manifest
        self._tokenizer = PromptTokenizer(bundle)
        with contextlib.ExitStack() as opened:
            self._backbone = Backbone(bundle, num_threads=num_threads, governor=governor, exact=exact)
            opened.callback(self._backbone.model.close)
            self._depth = DepthDecoder(bundle, num_threads=num_threads, governor=governor, exact=exact)
            opened.callback(self._depth.model.close)
            self._heads = Heads(bundle, self._backbone.model.hidden, self._depth.model.hidden)
            self._opened = opened.pop_all()
        hashes = " ".join(manifest.files[role].sha256 for role in ("backbone", "text_embeddings", "audio_embeddings"))
        flash = same_bits_with_flash_attention(manifest.limits.context, governor)
        reads = f"exact={exact} batch={self._backbone.model.max_batch} bidirectional={manifest.prompt.bidirectional}"
        self._prompt = Prompt(
            self._backbone,
            max_frames=round(manifest.limits.context_s * manifest.audio.frame_rate),
            frames_per_token=manifest.limits.seconds_per_token * manifest.audio.frame_rate,
            files=KvFiles(kv_folder, kv_bytes, f"{hashes} {reads} flash={flash} {runtime()}"),
        )
        size = manifest.audio.codebook_size
        stop = manifest.stop.code
        self._num_classes = max(size, size if stop is None else stop + 1)
        self._logits0 = self._heads.logits[: self._num_classes]
        self._logits = self._heads.logits[:size]
        self._unused = slice(size, self._num_classes - (stop is not None))  # classes that are neither code nor stop
        self._stop_class = 0 if stop is None else stop
        self._sampler = Sampler(self._num_classes)
        self.codes = np.zeros(manifest.audio.num_codebooks, np.int32)
        self.times = StageTimes()
        self._frames = 0
        self._tokens: list[int] = []
        self._spoken = np.zeros((manifest.limits.context if self._prompt.keeps else 0, len(self.codes)), np.int32)
        self._voice = Voice("", "", "", 0)
        self._limits = FrameLimits(0, 0)
        self._sampling = self._depth_sampling = Sampling(0.0, 1)
        self._rng = np.random.default_rng(0)

    def encode(self, text: str, speaker: int) -> list[int]:
        """The prompt of a segment as token ids."""
        return self._tokenizer.encode(text, speaker)

    def count_tokens(self, text: str) -> int:
        """How many positions a segment's prompt takes."""
        return len(self.encode(text, 0))

    def frame_limits(self, num_tokens: int) -> FrameLimits:
        """How long ``num_tokens`` of text may be spoken, within the context.

        Raises:
            BadRequestError: the text leaves no room for speech in the context.
        """
        limits, rate = self._manifest.limits, self._manifest.audio.frame_rate
        expected_s = num_tokens * limits.seconds_per_token
        most_s = min(limits.max_ratio * expected_s + limits.slack_s, limits.max_utterance_s)
        most = min(math.ceil(most_s * rate), limits.context - self._prompt.base - num_tokens)
        if num_tokens > limits.max_text_tokens or most < 1:
            message = f"a segment of {num_tokens} tokens; this voice takes at most {limits.max_text_tokens}"
            raise BadRequestError("too_long", message)
        return FrameLimits(min(math.floor(limits.min_ratio * expected_s * rate), most), most)

    def turn(self, text: str, speaker: int) -> PromptSegment:
        """A turn of a conversation of which only the text is known."""
        return PromptSegment(self.encode(text, speaker))

    def begin(
        self, voice: Voice, conversation: Sequence[PromptSegment], stop: Callable[[], bool] = lambda: False
    ) -> None:
        """Begin an utterance: the segments that ``start`` begins go on from the voice's recording and the conversation.

        ``stop`` is asked while either of both reads, which can take seconds.

        Raises:
            BadRequestError: the recording leaves no room for speech.
            EngineError: llama.cpp failed.
        """
        began = perf_counter()
        self._voice = voice
        self._backbone.model.stop = stop
        recorded = None
        if voice.prompt is not None:
            recorded = PromptSegment(self.encode(voice.prompt.transcript, voice.speaker), voice.prompt.codes)
            if recorded.num_positions > max_prompt(self._manifest):
                raise BadRequestError("too_long", f"the recording of voice {voice.name} is too long for this model")
        self._prompt.begin(recorded, conversation)
        self._tokens = []
        self.times.prefill += perf_counter() - began

    def start(self, text: str, rng: np.random.Generator, sampling: Sampling, depth: Sampling) -> None:
        """Begin a segment; the one before becomes its context, where the model was trained for that.

        Raises:
            BadRequestError: the segment is too long.
            EngineError: llama.cpp failed.
        """
        began = perf_counter()
        if self._tokens:
            self._prompt.close(self.spoken())
        self._tokens = self.encode(text, self._voice.speaker)
        self._limits = self.frame_limits(len(self._tokens))
        self._prompt.open(len(self._tokens) + self._limits.most)
        self._read(rng, sampling, depth)
        self.times.prefill += perf_counter() - began

    def restart(self, rng: np.random.Generator) -> None:
        """Begin the same segment again.

        Raises:
            EngineError: llama.cpp failed.
        """
        began = perf_counter()
        self._prompt.reopen()
        self._read(rng, self._sampling, self._depth_sampling)
        self.times.prefill += perf_counter() - began

    def _read(self, rng: np.random.Generator, sampling: Sampling, depth: Sampling) -> None:
        self._backbone.prefill_text(self._tokens)
        self._rng, self._sampling, self._depth_sampling = rng, sampling, depth
        self._frames = 0

    def spoken(self) -> list[PromptSegment]:
        """The segment as context of others; none where that is of no use: nothing came of it, or it was cut."""
        if not self._prompt.keeps or not self._frames or self.ran_away:
            return []
        return [PromptSegment(self._tokens, self._spoken[: self._frames].copy())]

    @property
    def ran_away(self) -> bool:
        """Whether the segment has had all the frames it may have without an end of speech."""
        return self._frames >= self._limits.most

    def next_frame(self) -> bool:
        """Make the next frame in ``codes``; False at the end of speech (or when ``ran_away``).

        Raises:
            EngineError: llama.cpp or onnxruntime failed.
        """
        if self.ran_away:
            return False
        times, codes = self.times, self.codes
        began = perf_counter()
        if self._frames:
            self._backbone.step(codes)
        backbone_done = perf_counter()
        self._heads.run(0)
        heads_done = perf_counter()
        code = self._sample_first()
        times.backbone += backbone_done - began
        times.heads += heads_done - backbone_done
        times.sampling += perf_counter() - heads_done
        if self._manifest.stop.kind == "code" and code == self._stop_class:
            return False
        codes[0] = code
        self._fill_depth(code)
        if self._manifest.stop.kind == "zero_frame" and not codes.any():
            return False
        if self._prompt.keeps:
            self._spoken[self._frames] = codes
        self._frames += 1
        times.frames += 1
        return True

    def _sample_first(self) -> int:
        logits = self._logits0
        logits[self._unused] = -np.inf
        if self._frames < self._limits.least:
            # For a frame of zeros this bans code 0 of codebook 0 alone, which ends speech but is a rare code otherwise.
            logits[self._stop_class] = -np.inf
        return self._sampler.sample(logits, self._sampling, self._rng)

    def _fill_depth(self, code: int) -> None:
        """Codebooks 1..Q-1 of this frame, in ``codes``."""
        times, codes, depth, logits = self.times, self.codes, self._depth, self._logits
        depth_s = heads_s = sampling_s = 0.0
        mark = perf_counter()
        for codebook in range(1, len(codes)):
            if codebook == 1:
                depth.start(self._heads.depth_input, code)
            else:
                depth.step(codebook - 1, code)
            stepped = perf_counter()
            self._heads.run(codebook)
            headed = perf_counter()
            code = self._sampler.sample(logits, self._depth_sampling, self._rng)
            codes[codebook] = code
            depth_s += stepped - mark
            heads_s += headed - stepped
            mark = perf_counter()
            sampling_s += mark - headed
        times.depth += depth_s
        times.heads += heads_s
        times.sampling += sampling_s

    def close(self) -> None:
        """Free both models."""
        self._opened.close()
