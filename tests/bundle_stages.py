"""Runs a bundle of the starter's shape stage by stage from its reference's inputs, and measures how far off it is."""

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from reference_starter import Reference

from daemon.engine.bundle import load_bundle
from quantize.verify_bundle import BundleStages
from quantize.verify_truth import relative_error

DELAY_SAMPLES_OF = {960: 360, 96: 36}
"""FFT size -> how much the codec decoder holds back."""


def open_onnx(model: Path | bytes) -> onnxruntime.InferenceSession:
    """A session of one thread; bytes are a model that was just built."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class StarterStages(BundleStages):
    """The parts of a bundle, in full precision of computation (float32 KV, no flash attention)."""

    def __init__(self, folder: Path) -> None:
        super().__init__(load_bundle(folder, verify="full"))

    def errors(self, reference: Reference, ids: list[int], codes: torch.Tensor) -> dict[str, float]:
        """Relative error of every stage for a text and the codes [T, Q] spoken after it."""
        text, frames = reference.text_embeddings(ids), reference.frame_embeddings(codes)
        prefix = len(ids) if self.bundle.manifest.prompt.bidirectional else 0
        hidden = reference.backbone(torch.cat([text, frames]), prefix)[len(ids) - 1 :]
        inputs = torch.cat([text, frames]).float().numpy()
        c0, projected = zip(*(self.head(0, h) for h in hidden.float().numpy()), strict=True)
        depth = [self._depth_errors(reference, h, frame) for h, frame in zip(hidden, codes, strict=False)]
        return {
            "text embeddings": relative_error(self.text[ids], text.numpy()),
            "frame embeddings": relative_error(self.frame_embeddings(codes.numpy()), frames.numpy()),
            "backbone hidden": relative_error(self.hidden_states("backbone", [inputs], len(ids))[0], hidden.numpy()),
            "codebook 0 logits": relative_error(np.array(c0), reference.codebook0_logits(hidden).numpy()),
            "projected hidden": relative_error(
                np.array(projected), np.array([reference.depth_inputs(h, codes[0])[0].numpy() for h in hidden])
            ),
            **{stage: max(frame[stage] for frame in depth) for stage in depth[0]},
            "pcm": relative_error(self.decode(codes.numpy(), 1), reference.decode(codes).numpy()),
        }

    def _depth_errors(self, reference: Reference, hidden: torch.Tensor, codes: torch.Tensor) -> dict[str, float]:
        """One frame; hidden states and logits are the worst of all steps."""
        inputs = reference.depth_inputs(hidden, codes)
        states = reference.depth_decoder(inputs)
        logits = reference.depth_logits(states)
        found = self.hidden_states("depth_decoder", [inputs.float().numpy()], 2)[0]
        heads = self.depth_logits(states[None, 1:].float().numpy())[0][:, : logits.shape[1]]
        return {
            "depth embeddings": relative_error(self.depth_embeddings(codes[None].numpy())[0], inputs[1:].numpy()),
            "depth hidden": max(map(relative_error, found, states[1:].numpy())),
            "depth logits": max(map(relative_error, heads, logits.numpy())),
        }
