"""The CSM family: prompt, lanes and end of speech (CSM-1B, and the starter voice in its shape)."""

import contextlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

from daemon.engine.backbone import Backbone
from daemon.engine.bundle import Bundle
from daemon.engine.depth_decoder import DepthDecoder
from daemon.engine.frames import FrameLoop, StageTimes
from daemon.engine.governor import ThreadGovernor
from daemon.engine.heads import Heads
from daemon.engine.kv_files import KvFiles
from daemon.engine.lane import FrameLimits, Lane
from daemon.engine.llama import runtime, same_bits_with_flash_attention
from daemon.engine.prompt import Prompt
from daemon.engine.prompt_segment import PromptSegment
from daemon.engine.sampling import Sampling
from daemon.engine.tokenizer import PromptTokenizer
from daemon.engine.voices import Voice, max_prompt
from daemon.errors import BadRequestError

_MEASURED_FRAMES = 4
"""The first of them is slower: llama.cpp plans anew for another number of sequences."""


class CsmModel:
    """Codes for segments of text, one frame at a time; segments that do not hear each other may go side by side.

    Args:
        bundle: what to load.
        num_threads: of llama.cpp.
        num_lanes: the most segments side by side, as far as there is memory for them.
        linked: each segment hears those before it, where the model was trained for that; then ``num_lanes`` is 1.
        kv_folder: where the states of recorded voices are kept; None: nowhere.
        kv_bytes: of them together.

    Attributes:
        num_lanes: as above.
        linked: whether segments hear those before them.
        frames: makes the frames.

    Source: SesameAILabs/csm generator.py ``generate`` and models.py ``generate_frame`` (revision 2d72082).

    Raises:
        ModelError: a part of the bundle is damaged or does not fit the others.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        num_threads: int,
        num_lanes: int = 1,
        linked: bool = True,
        governor: ThreadGovernor | None = None,
        kv_folder: Path | None = None,
        kv_bytes: int = 0,
    ) -> None:
        manifest = bundle.manifest
        exact = manifest.recipe == manifest.depth_storage == "f32"
        self._manifest = manifest
        self._tokenizer = PromptTokenizer(bundle)
        self.linked = linked and manifest.limits.context_s > 0
        self.num_lanes = 1 if self.linked else num_lanes
        with contextlib.ExitStack() as opened:
            self._backbone = Backbone(
                bundle, num_threads=num_threads, num_lanes=self.num_lanes, governor=governor, exact=exact
            )
            opened.callback(self._backbone.model.close)
            self.num_lanes = len(self._backbone.model.positions)
            self._depth = DepthDecoder(
                bundle, num_threads=num_threads, num_lanes=self.num_lanes, governor=governor, exact=exact
            )
            opened.callback(self._depth.model.close)
            hiddens = self._backbone.model.hiddens, self._depth.model.hiddens
            self._heads = Heads(bundle, *hiddens)
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
        self.frames = FrameLoop(manifest, self._backbone, self._depth, self._heads)
        self._free = [self._new_lane(number) for number in range(self.num_lanes)]
        self._busy: list[Lane] = []
        self._last: Lane | None = None  # of the linked segment before
        self._voice = Voice("", "", "", 0)
        self._is_open = False

    def _new_lane(self, number: int) -> Lane:
        num_codebooks = self._manifest.audio.num_codebooks
        room = self._manifest.limits.context if self._prompt.keeps else 0
        return Lane(number, np.zeros(num_codebooks, np.int32), np.zeros((room, num_codebooks), np.int32))

    @property
    def times(self) -> StageTimes:
        """What the stages have taken since ``reset_times``."""
        return self.frames.times

    def reset_times(self) -> StageTimes:
        """Start counting anew; returns the new counters."""
        self.frames.times = StageTimes()
        return self.frames.times

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
        fixed = limits.min_ratio == limits.max_ratio and limits.slack_s == 0
        return FrameLimits(min(math.floor(limits.min_ratio * expected_s * rate), most), most, fixed)

    def turn(self, text: str, speaker: int) -> PromptSegment:
        """A turn of a conversation of which only the text is known."""
        return PromptSegment(self.encode(text, speaker))

    def begin(
        self, voice: Voice, conversation: Sequence[PromptSegment], stop: Callable[[], bool] = lambda: False
    ) -> None:
        """Begin an utterance: the segments that ``start`` begins go on from the voice's recording and the conversation.

        What was under way is given up.

        ``stop`` is asked while either of both reads, which can take seconds.

        Raises:
            BadRequestError: the recording leaves no room for speech.
            EngineError: llama.cpp failed.
        """
        began = perf_counter()
        while self._busy:
            self.release(self._busy[0])
        self._voice = voice
        self._backbone.model.stop = stop
        recorded = None
        if voice.prompt is not None:
            recorded = PromptSegment(self.encode(voice.prompt.transcript, voice.speaker), voice.prompt.codes)
            if recorded.num_positions > max_prompt(self._manifest):
                raise BadRequestError("too_long", f"the recording of voice {voice.name} is too long for this model")
        self._prompt.begin(recorded, conversation)
        self._last = None
        self._is_open = False
        self.times.prefill += perf_counter() - began

    def has_lane_for(self, text: str) -> bool:
        """Whether a segment can begin beside those that are under way."""
        if not self._free:
            return False
        tokens = self.encode(text, self._voice.speaker)
        try:
            most = self.frame_limits(len(tokens)).most
        except BadRequestError:
            return False  # it is refused when its turn comes
        return self._prompt.has_room(len(tokens) + most)

    def start(self, text: str, rng: np.random.Generator, sampling: Sampling, depth: Sampling) -> Lane:
        """Begin a segment: alone, or where there is ``has_lane_for`` it.

        Raises:
            BadRequestError: the segment is too long.
            EngineError: llama.cpp failed.
        """
        began = perf_counter()
        tokens = self.encode(text, self._voice.speaker)
        limits = self.frame_limits(len(tokens))
        self._make_room(len(tokens) + limits.most)
        lane = min(self._free, key=lambda lane: lane.number)
        self._free.remove(lane)
        self._busy.append(lane)
        lane.tokens, lane.limits, lane.sampling, lane.depth_sampling = tokens, limits, sampling, depth
        self._read(lane, rng)
        self._last = lane if self.linked else None
        self.times.prefill += perf_counter() - began
        return lane

    def _make_room(self, num_positions: int) -> None:
        """See that a text and its speech fit behind what is said before them."""
        if self._is_open and not self.linked and self._prompt.has_room(num_positions):
            return
        if self._is_open:
            self._prompt.close(self.spoken(self._last) if self._last else [])
        self._prompt.open(num_positions)
        self._is_open = True

    def restart(self, lane: Lane, rng: np.random.Generator) -> None:
        """Begin the same segment again.

        Raises:
            EngineError: llama.cpp failed.
        """
        began = perf_counter()
        self._read(lane, rng)
        self.times.prefill += perf_counter() - began

    def _read(self, lane: Lane, rng: np.random.Generator) -> None:
        self._prompt.reopen(lane.number)
        self._backbone.prefill_text(lane.tokens, lane.number)
        lane.rng, lane.frames, lane.ended = rng, 0, False

    def spoken(self, lane: Lane) -> list[PromptSegment]:
        """The segment as context of others; none where that is of no use: nothing came of it, or it was cut."""
        if not self._prompt.keeps or not lane.frames or lane.ran_away:
            return []
        return [PromptSegment(lane.tokens, lane.kept[: lane.frames].copy())]

    def next_frames(self, lanes: list[Lane]) -> None:
        """Make the next frame of each, in its ``codes``; at the end of its speech a lane has ``ended`` instead.

        Raises:
            EngineError: llama.cpp or onnxruntime failed.
        """
        if len(lanes) > 1:
            self._close_ranks()
            lanes.sort(key=lambda lane: lane.number)
        self.frames.step(lanes)

    def _close_ranks(self) -> None:
        """Number the busy lanes from 0 on: llama.cpp reads together only sequences that follow one another."""
        for number in range(len(self._busy)):
            if all(lane.number != number for lane in self._busy):
                last = max(self._busy, key=lambda lane: lane.number)
                spare = next(lane for lane in self._free if lane.number == number)
                self._prompt.move(last.number, number)
                last.number, spare.number = number, last.number

    def measure_lanes(self, text: str) -> float:
        """How many times as many frames a second all lanes give together as one does.

        Raises:
            EngineError: llama.cpp or onnxruntime failed.
        """
        sampling = Sampling(0.0, 1)
        self.begin(Voice("", "", "", 0), [])
        lanes: list[Lane] = []
        times: list[float] = []
        for count in (1, self.num_lanes):
            while len(lanes) < count:
                lanes.append(self.start(text, np.random.default_rng(0), sampling, sampling))
            for _ in range(_MEASURED_FRAMES):
                began = perf_counter()
                self.next_frames(lanes)
                times.append(perf_counter() - began)
        alone, together = min(times[1:_MEASURED_FRAMES]), min(times[_MEASURED_FRAMES + 1 :])
        return self.num_lanes * alone / together

    def use_one_lane(self) -> None:
        """Make one segment at a time from the next utterance on."""
        self.begin(Voice("", "", "", 0), [])
        self.num_lanes = 1
        self._free = [lane for lane in self._free if lane.number == 0]

    def release(self, lane: Lane) -> None:
        """The segment is over; its lane can take another."""
        self._busy.remove(lane)
        self._free.append(lane)

    def close(self) -> None:
        """Free both models."""
        self._opened.close()
