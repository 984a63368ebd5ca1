"""The frame loop: one more frame for every sentence that is being made, each step one reading of the weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from daemon.engine.backbone import Backbone
from daemon.engine.bundle import Manifest
from daemon.engine.depth_decoder import DepthDecoder
from daemon.engine.heads import Heads
from daemon.engine.lane import Lane
from daemon.engine.sampling import Sampler


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


class FrameLoop:
    """Makes frames from the state that a text has left in the backbone.

    Attributes:
        times: what the stages have taken.
        sampler: chooses the codes.

    Source: SesameAILabs/csm models.py ``generate_frame`` (revision 2d72082).
    """

    def __init__(self, manifest: Manifest, backbone: Backbone, depth: DepthDecoder, heads: Heads) -> None:
        self._backbone = backbone
        self._depth = depth
        self._heads = heads
        self._num_codebooks = manifest.audio.num_codebooks
        size = manifest.audio.codebook_size
        stop = manifest.stop.code
        num_classes = max(size, size if stop is None else stop + 1)
        self._logits0 = heads.logits[:num_classes]
        self._logits = heads.logits[:size]
        self._unused = slice(size, num_classes - (stop is not None))  # classes that are neither code nor stop
        self._stop_class = 0 if stop is None else stop
        self._stops_by_code = manifest.stop.kind == "code"
        self.sampler = Sampler(num_classes)
        self.times = StageTimes()

    def step(self, lanes: Sequence[Lane]) -> None:
        """Make each lane's next frame in its ``codes``, or find that it has ``ended``. None of them has already.

        Raises:
            EngineError: llama.cpp or onnxruntime failed.
        """
        times = self.times
        began = perf_counter()
        self._backbone.step(lanes)
        times.backbone += perf_counter() - began
        some_ended = False
        for lane in lanes:
            self._begin_frame(lane)
            some_ended = some_ended or lane.ended
        live = [lane for lane in lanes if not lane.ended] if some_ended else lanes
        if live:
            self._fill_depth(live)
        for lane in live:
            self._end_frame(lane)

    def _begin_frame(self, lane: Lane) -> None:
        """Codebook 0, or the end of speech."""
        times = self.times
        began = perf_counter()
        self._heads.run(0, lane.number)
        headed = perf_counter()
        code = self._sample_first(lane)
        times.heads += headed - began
        times.sampling += perf_counter() - headed
        lane.ended = self._stops_by_code and code == self._stop_class
        if not lane.ended:
            lane.codes[0] = code

    def _end_frame(self, lane: Lane) -> None:
        if not self._stops_by_code and not lane.codes.any():
            lane.ended = True
            return
        if len(lane.kept):
            lane.kept[lane.frames] = lane.codes
        lane.frames += 1
        self.times.frames += 1

    def _sample_first(self, lane: Lane) -> int:
        logits = self._logits0
        logits[self._unused] = -np.inf
        if lane.frames < lane.limits.least:
            # For a frame of zeros this bans code 0 of codebook 0 alone, which ends speech but is a rare code otherwise.
            logits[self._stop_class] = -np.inf
        return self.sampler.sample(logits, lane.sampling, lane.rng)

    def _fill_depth(self, lanes: Sequence[Lane]) -> None:
        """Codebooks 1..Q-1 of the lanes' frames, in ``codes``."""
        times, heads, sampler, logits = self.times, self._heads, self.sampler, self._logits
        depth_s = heads_s = sampling_s = 0.0
        mark = perf_counter()
        for codebook in range(1, self._num_codebooks):
            if codebook == 1:
                self._depth.start(lanes, heads.depth_inputs)
            else:
                self._depth.step(lanes, codebook - 1)
            stepped = perf_counter()
            depth_s += stepped - mark
            for row, lane in enumerate(lanes):
                heads.run(codebook, row)
                headed = perf_counter()
                lane.codes[codebook] = sampler.sample(logits, lane.depth_sampling, lane.rng)
                mark = perf_counter()
                heads_s += headed - stepped
                sampling_s += mark - headed
                stepped = mark
        times.depth += depth_s
        times.heads += heads_s
        times.sampling += sampling_s
