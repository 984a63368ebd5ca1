"""Runs a bundle stage by stage, each stage from the reference's own inputs, and measures how far off it is."""

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from reference_starter import Reference

from daemon.engine.bundle import load_bundle
from daemon.engine.llama import LlamaModel
from daemon.values import F32, Array

DELAY_SAMPLES_OF = {960: 360, 96: 36}
"""FFT size -> how much the codec decoder holds back."""


def open_onnx(model: Path | bytes) -> onnxruntime.InferenceSession:
    """A session of one thread; bytes are a model that was just built."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def relative_error(found: Array, expected: Array) -> float:
    """Norm of the difference over the norm of what was expected."""
    expected = np.asarray(expected, np.float64)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def decode_codes(session: onnxruntime.InferenceSession, codes: Array, group: int, delay: int) -> F32:
    """Codes [T, Q] -> PCM, ``group`` frames a call, with the delay dropped and the rest flushed."""
    states = {entry.name: np.zeros(entry.shape, np.float32) for entry in session.get_inputs() if entry.name != "codes"}
    names = [entry.name for entry in session.get_outputs()]
    pieces = []
    for start in range(0, len(codes), group):
        part = codes[start : start + group].T[None].astype(np.int64)
        outputs = dict(zip(names, session.run(None, {"codes": part, **states}), strict=True))
        states = {name: outputs[f"{name}_next"] for name in states}
        pieces.append(outputs["pcm"][0])
    return np.concatenate([*pieces, states["overlap"].reshape(-1)[:delay]])[delay:]


class BundleStages:
    """The parts of a bundle, in full precision of computation (float32 KV, no flash attention)."""

    def __init__(self, folder: Path) -> None:
        self.bundle = load_bundle(folder, verify="full")
        self.text, self.audio, self.depth = (
            np.load(self.bundle.path(role)) for role in ("text_embeddings", "audio_embeddings", "depth_embeddings")
        )
        self.heads = open_onnx(self.bundle.path("heads"))
        self.codec = open_onnx(self.bundle.path("codec_decoder"))

    def hidden_states(self, role: str, inputs: F32, prefill: int) -> F32:
        """Hidden state of every position from ``prefill - 1`` on; the first ``prefill`` positions are one batch."""
        with LlamaModel(
            self.bundle.path(role), num_positions=len(inputs), max_batch=prefill, num_threads=1, exact=True
        ) as model:
            states = [model.prefill(inputs[:prefill]).copy()]
            states += [model.step(row).copy() for row in inputs[prefill:]]
        return np.array(states)

    def head(self, index: int, *, backbone_hidden: F32 | None = None, depth_hidden: F32 | None = None) -> list[F32]:
        """Logits [V] and depth input [Dd] of one head; a hidden state that is not given is zero."""
        width, depth_width = self.audio.shape[1], self.depth.shape[1]
        feeds = {
            "backbone_hidden": np.zeros((1, width), np.float32) if backbone_hidden is None else backbone_hidden[None],
            "depth_hidden": np.zeros((1, depth_width), np.float32) if depth_hidden is None else depth_hidden[None],
            "index": np.array(index, np.int64),
        }
        return [output[0] for output in self.heads.run(None, feeds)]

    def errors(self, reference: Reference, ids: list[int], codes: torch.Tensor) -> dict[str, float]:
        """Relative error of every stage for a text and the codes [T, Q] spoken after it."""
        text, frames = reference.text_embeddings(ids), reference.frame_embeddings(codes)
        hidden = reference.backbone(torch.cat([text, frames]))[len(ids) - 1 :]
        inputs = torch.cat([text, frames]).float().numpy()
        size = reference.shape.codebook_size
        rows = codes.numpy() + np.arange(codes.shape[1]) * size
        c0, projected = zip(*(self.head(0, backbone_hidden=h) for h in hidden.float().numpy()), strict=True)
        depth = [self._depth_errors(reference, h, frame) for h, frame in zip(hidden, codes, strict=False)]
        return {
            "text embeddings": relative_error(self.text[ids], text.numpy()),
            "frame embeddings": relative_error(self.audio[rows].astype(np.float32).sum(axis=1), frames.numpy()),
            "backbone hidden": relative_error(self.hidden_states("backbone", inputs, len(ids)), hidden.numpy()),
            "codebook 0 logits": relative_error(np.array(c0), reference.codebook0_logits(hidden).numpy()),
            "projected hidden": relative_error(
                np.array(projected), np.array([reference.depth_inputs(h, codes[0])[0].numpy() for h in hidden])
            ),
            **{stage: max(frame[stage] for frame in depth) for stage in depth[0]},
            "pcm": relative_error(
                decode_codes(self.codec, codes.numpy(), 1, DELAY_SAMPLES_OF[reference.shape.fft_size]),
                reference.decode(codes).numpy(),
            ),
        }

    def _depth_errors(self, reference: Reference, hidden: torch.Tensor, codes: torch.Tensor) -> dict[str, float]:
        """One frame; hidden states and logits are the worst of all steps."""
        inputs = reference.depth_inputs(hidden, codes)
        states = reference.depth_decoder(inputs)
        logits = reference.depth_logits(states)
        rows = codes[:-1].numpy() + np.arange(len(codes) - 1) * reference.shape.codebook_size
        found = self.hidden_states("depth_decoder", inputs.float().numpy(), 2)
        heads = [
            self.head(k, depth_hidden=states[k].float().numpy())[0][: logits.shape[1]] for k in range(1, len(codes))
        ]
        return {
            "depth embeddings": relative_error(self.depth[rows], inputs[1:].numpy()),
            "depth hidden": max(map(relative_error, found, states[1:].numpy())),
            "depth logits": max(map(relative_error, heads, logits.numpy())),
        }
