"""The starter voice's language model: a backbone over text and frames, and a depth decoder over codebooks.

Parameter names are those that ``quantize.starter`` reads. Text positions attend to the whole text, frames to the text
and to the frames before them.

Source: CSM (github.com/SesameAILabs/csm, models.py at 2d72082) for the shape.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from daemon.errors import ModelError
from training.checkpoint import load
from training.lm_layers import Layout, Norm, Transformer, layout, rms_norm, rope_table

PHONE_SLOTS = 2
"""Phones a character may say."""
FRAME_QUARTERS = 4
"""Phones named in a frame."""
GUIDED_HEADS = 2
_ROPE_LENGTH = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class LmShape:
    """Sizes of a model."""

    width: int
    layers: int
    ffn: int
    depth_width: int
    depth_layers: int
    depth_ffn: int
    num_tokens: int
    num_codebooks: int
    codebook_size: int
    num_phones: int
    phone_layer: int
    guide_layer: int

    @property
    def num_classes(self) -> int:
        """Rows of codebook 0's head: the codes, the end of speech (class C), and padding to a multiple of 8."""
        return self.codebook_size + 8


@dataclass(frozen=True, slots=True)
class Hidden:
    """What the backbone makes of a batch.

    Attributes:
        final: float32 [N, D], after the last norm.
        text: float32 [N, D], after ``phone_layer`` layers.
        guided: [rows, 2, length, length], attention of the guided heads.
    """

    final: Tensor
    text: Tensor
    guided: Tensor


class SpeechLm(nn.Module):
    """Backbone, depth decoder, embeddings and heads; ``aux`` serves training alone."""

    def __init__(self, shape: LmShape) -> None:
        super().__init__()
        self.shape = shape
        self.dtype = torch.float32
        """Of the matrix products of the layers."""
        width, depth_width, books = shape.width, shape.depth_width, shape.num_codebooks
        self.te = nn.Embedding(shape.num_tokens, width)
        self.ae = nn.Embedding(books * shape.codebook_size, width)
        self.bl = Transformer(width, shape.ffn, shape.layers)
        self.n = Norm(width)
        self.h0 = nn.Linear(width, shape.num_classes, bias=False)
        self.pj = nn.Linear(width, depth_width, bias=False)
        self.db = Transformer(depth_width, shape.depth_ffn, shape.depth_layers)
        self.dn = Norm(depth_width)
        self.hk = nn.Parameter(torch.randn(books - 1, depth_width, shape.codebook_size) * 0.7 * depth_width**-0.5)
        self.aux = nn.ModuleDict(
            {
                "text": nn.Linear(width, PHONE_SLOTS * shape.num_phones),
                "frame": nn.Linear(width, FRAME_QUARTERS * shape.num_phones),
            }
        )
        nn.init.normal_(self.te.weight, 0, 0.7)
        nn.init.normal_(self.ae.weight, 0, 0.25)
        nn.init.normal_(self.h0.weight, 0, 0.5 * width**-0.5)
        self.register_buffer("rope", rope_table(_ROPE_LENGTH), persistent=False)
        self.register_buffer("first_row", torch.arange(books) * shape.codebook_size, persistent=False)
        self.rope: Tensor
        self.first_row: Tensor

    def compile_layers(self) -> None:
        """Fuse the layers for training; looks ahead to batches of one size."""
        self.bl.compile_layers()
        self.db.compile_layers()

    def embed_frames(self, codes: Tensor) -> Tensor:
        """Codes int64 [..., Q] -> float32 [..., D], the sum over the codebooks."""
        return self.code_rows(codes).sum(dim=-2)

    def code_rows(self, codes: Tensor) -> Tensor:
        """Codes int64 [..., k] of the first k codebooks -> float32 [..., k, D]."""
        return functional.embedding(codes + self.first_row[: codes.shape[-1]], self.ae.weight)

    def backbone(self, x: Tensor, rows: Layout, dropout: float = 0.0) -> Hidden:
        """Run the backbone over a flat batch, float32 [N, D]."""
        states = self.bl(x, self.rope[rows.positions], rows, self.dtype, dropout)
        return Hidden(
            final=rms_norm(states[-1][0], self.n.w),
            text=states[self.shape.phone_layer - 1][0],
            guided=states[self.shape.guide_layer][1][:, :GUIDED_HEADS],
        )

    def depth(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """Run the depth decoder over frames whose codes are known.

        Args:
            hidden: float32 [F, D], the backbone's output for each frame.
            codes: int64 [F, k], the first k codes of each frame, 0 < k < Q.

        Returns:
            float32 [F, k + 1, Dd]; row j predicts codebook j.
        """
        frames, length = len(hidden), codes.shape[1] + 1
        x = torch.cat([hidden[:, None], self.code_rows(codes)], dim=1).flatten(0, 1)
        x = functional.linear(x.to(self.dtype), self.pj.weight.to(self.dtype)).float()
        counts = torch.full((frames,), length, device=x.device)
        rows = layout(counts * 0, counts, length, len(x), self.dtype)
        states = self.db(x, self.rope[rows.positions], rows, self.dtype)
        return rms_norm(states[-1][0], self.dn.w).view(frames, length, -1)

    def depth_logits(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """Logits of codebooks 1 to Q - 1 from ``hidden`` [F, D] and codes int64 [F, Q]: float32 [F, Q-1, C]."""
        states = self.depth(hidden, codes[:, :-1])[:, 1:].transpose(0, 1)
        return torch.bmm(states.to(self.dtype), self.hk.to(self.dtype)).float().transpose(0, 1)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of codebook 0 with the end of speech and padding: float32 [..., C + 8]."""
        return functional.linear(hidden.to(self.dtype), self.h0.weight.to(self.dtype)).float()


def load_lm(path: Path, device: torch.device | str) -> SpeechLm:
    """The model of a checkpoint, ready to speak (float32).

    Raises:
        ModelError: there is none, or it is damaged.
    """
    state = load(path)
    if state is None:
        raise ModelError(f"{path}: no such file; run the stage lm first")
    try:
        model = SpeechLm(LmShape(**state["shape"])).to(device)
        model.load_state_dict(state["model"])
    except (KeyError, TypeError, RuntimeError) as err:
        raise ModelError(f"{path}: expected a language model: {str(err).splitlines()[0]}") from err
    return model.eval()
