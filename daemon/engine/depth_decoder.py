"""The depth decoder: codebooks 1..Q-1 of one frame, each from the ones before."""

from daemon.engine.bundle import Bundle
from daemon.engine.llama import LlamaModel
from daemon.errors import ModelError
from daemon.values import F32


class DepthDecoder:
    """The small transformer; its KV cache lives for one frame.

    Attributes:
        model: ``model.hidden`` is float32 [Dd], after the final norm.

    Source: SesameAILabs/csm models.py ``Model.generate_frame`` (revision 2d72082).
    """

    def __init__(self, bundle: Bundle, *, num_threads: int, exact: bool) -> None:
        audio = bundle.manifest.audio
        self.model = LlamaModel(
            bundle.path("depth_decoder"),
            num_positions=max(audio.num_codebooks, 2),
            max_batch=1,
            num_threads=num_threads,
            exact=exact,
        )
        try:
            rows = (audio.num_codebooks - 1) * audio.codebook_size
            self._table = bundle.table("depth_embeddings", rows=rows, width=self.model.width)
        except ModelError:
            self.model.close()
            raise
        self._stride = len(self._table) // (audio.num_codebooks - 1)

    def start(self, depth_input: F32, code: int) -> None:
        """Begin a frame: the projected backbone state, then the code of codebook 0.

        Afterwards ``model.hidden`` is what the head of codebook 1 reads. One call of two positions costs as much as two
        calls, or more: llama.cpp builds its graph anew whenever the number of positions changes, twice a frame.
        """
        model = self.model
        model.rewind(0)
        model.step(depth_input)
        model.step(self._table[code])

    def step(self, codebook: int, code: int) -> None:
        """Append the code of ``codebook``; ``model.hidden`` is then what the head of the next codebook reads."""
        model = self.model
        model.inputs[0] = self._table[codebook * self._stride + code]
        model.decode(1)
