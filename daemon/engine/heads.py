"""The heads: hidden state to logits, one codebook at a time, in one ONNX file (models.md 6.6 has the measurements)."""

import numpy as np

from daemon.engine.bundle import Bundle
from daemon.engine.onnx import OnnxModel
from daemon.errors import ModelError
from daemon.values import F32


class Heads:
    """Runs one head a call; only the weights of that head are read.

    Args:
        bundle: names the file and the number of codebooks.
        backbone_hiddens: float32 [N, D], rows read in place by codebook 0's head.
        depth_hiddens: float32 [N, Dd], rows read in place by the others.

    Attributes:
        logits: float32 [V], what the last call gave; V is the widest head, shorter ones are padded.
        depth_inputs: float32 [N, Dd], what the depth decoder begins with: the backbone's hidden states projected, after
            ``run(0, row)``.

    Raises:
        ModelError: the file does not fit the models.
    """

    def __init__(self, bundle: Bundle, backbone_hiddens: F32, depth_hiddens: F32) -> None:
        path = bundle.path("heads")
        model = OnnxModel(path, num_threads=1)  # in a frame, two are no faster
        width, depth_width = backbone_hiddens.shape[1], depth_hiddens.shape[1]
        float32 = np.dtype(np.float32)
        wanted = {
            "backbone_hidden": (float32, (1, width)),
            "depth_hidden": (float32, (1, depth_width)),
            "index": (np.dtype(np.int64), ()),
        }
        if model.inputs != wanted:
            raise ModelError(f"{path}: inputs {model.inputs}, expected {wanted}")
        vocab = model.outputs.get("logits", (None, (0, 0)))[1][-1]
        audio = bundle.manifest.audio
        if not isinstance(vocab, int) or vocab < max(audio.codebook_size, (bundle.manifest.stop.code or 0) + 1):
            raise ModelError(f"{path}: logits of {vocab} classes, the codebooks have {audio.codebook_size}")
        if model.outputs.get("depth_input") != (float32, (1, depth_width)):
            raise ModelError(f"{path}: depth_input is not float32 [1, {depth_width}]")
        self._index = np.zeros((), np.int64)
        logits = np.zeros((1, vocab), np.float32)
        self.logits: F32 = logits[0]
        self.depth_inputs: F32 = np.zeros((len(depth_hiddens), depth_width), np.float32)
        self._runs = [
            model.bind(
                {
                    "backbone_hidden": backbone_hiddens[row : row + 1],
                    "depth_hidden": depth_hiddens[row : row + 1],
                    "index": self._index,
                },
                {"logits": logits, "depth_input": self.depth_inputs[row : row + 1]},
            )
            for row in range(len(depth_hiddens))
        ]

    def run(self, codebook: int, row: int) -> F32:
        """Logits of one codebook, from the hidden state that is in a row now. Returns ``logits``."""
        self._index[()] = codebook
        self._runs[row]()
        return self.logits
