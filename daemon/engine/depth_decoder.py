"""The depth decoder: codebooks 1..Q-1 of one frame, each from the ones before."""

from collections.abc import Sequence

from daemon.engine.bundle import Bundle
from daemon.engine.governor import ThreadGovernor
from daemon.engine.lane import Lane
from daemon.engine.llama import LlamaModel
from daemon.errors import ModelError
from daemon.values import F32


class DepthDecoder:
    """The small transformer; its KV cache lives for one frame, or for one frame each of several segments.

    Attributes:
        model: ``model.hiddens`` is float32 [N, Dd], after the final norm; row i is of the i-th frame of a call.

    Source: SesameAILabs/csm models.py ``Model.generate_frame`` (revision 2d72082).
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        num_threads: int,
        num_lanes: int,
        governor: ThreadGovernor | None = None,
        exact: bool,
    ) -> None:
        audio = bundle.manifest.audio
        self.model = LlamaModel(
            bundle.path("depth_decoder"),
            num_positions=max(audio.num_codebooks, 2),
            max_batch=num_lanes,
            num_threads=num_threads,
            num_sequences=num_lanes,
            governor=governor,
            exact=exact,
        )
        try:
            rows = (audio.num_codebooks - 1) * audio.codebook_size
            self._table = bundle.table("depth_embeddings", rows=rows, width=self.model.width)
        except ModelError:
            self.model.close()
            raise
        self._sequences = [range(count) for count in range(num_lanes + 1)]
        self._stride = len(self._table) // (audio.num_codebooks - 1)

    def start(self, lanes: Sequence[Lane], depth_inputs: F32) -> None:
        """Begin a frame of each lane: the projected backbone state, then the code of codebook 0.

        ``depth_inputs`` are the states, float32 [N, Dd], by the lanes' numbers. Afterwards ``model.hiddens`` is what
        the head of codebook 1 reads. One call of two positions costs as much as two calls, or more: llama.cpp builds
        its graph anew whenever the number of positions changes, twice a frame.
        """
        model = self.model
        model.clear()
        for row, lane in enumerate(lanes):
            model.inputs[row] = depth_inputs[lane.number]
        model.decode(1, self._sequences[len(lanes)])
        self.step(lanes, 0)

    def step(self, lanes: Sequence[Lane], codebook: int) -> None:
        """Append the codes of ``codebook``; ``model.hiddens`` is then what the head of the next codebook reads."""
        model = self.model
        offset = codebook * self._stride
        for row, lane in enumerate(lanes):
            model.inputs[row] = self._table[offset + lane.codes[codebook]]
        model.decode(1, self._sequences[len(lanes)])
