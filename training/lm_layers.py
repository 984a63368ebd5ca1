"""The transformer layers of the language model, made for one core of a CPU.

Batches are flat, [N, D] with N always the same, so that ``torch.compile`` sees one shape; attention alone knows the
rows. On one core with AVX-512 (bfloat16, 3840 positions, rows of 96) attention written out takes 7 ms forward and
backward, ``scaled_dot_product_attention`` 35 ms.

Source: Llama's layers, with the rotary positions of Hugging Face's (rotate-half).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

HEAD_DIM = 64
_EPS = 1e-5
_ROPE_BASE = 10_000.0
_MASKED = -1e9


@dataclass(frozen=True, slots=True)
class Layout:
    """How a flat batch falls into rows; positions past ``rows * length`` belong to none.

    Attributes:
        rows: sentences.
        length: positions of each, padding included.
        positions: int64 [N], place in the row.
        mask: [rows, length, length], 0 where a query (second axis) sees a key, hugely negative elsewhere.
    """

    rows: int
    length: int
    positions: Tensor
    mask: Tensor


def visible(num_text: Tensor, num_positions: Tensor, length: int) -> Tensor:
    """Which keys a query sees.

    Args:
        num_text: int64 [B], positions of the prompt.
        num_positions: int64 [B], positions of prompt and frames.
        length: T.

    Returns:
        bool [B, T, T]: every query sees the prompt and all frames up to itself; padding sees itself alone, lest softmax
        divide by nothing.
    """
    place = torch.arange(length, device=num_text.device)
    is_text = place < num_text[:, None]
    is_used = place < num_positions[:, None]
    causal = place[:, None] >= place
    return ((is_text[:, None] | causal) & is_used[:, None]) | torch.eye(length, dtype=torch.bool, device=place.device)


def layout(num_text: Tensor, num_positions: Tensor, length: int, flat: int, dtype: torch.dtype) -> Layout:
    """Lay rows of ``length`` into ``flat`` positions; lengths as in ``visible``."""
    mask = torch.zeros(len(num_text), length, length, dtype=dtype, device=num_text.device)
    mask.masked_fill_(~visible(num_text, num_positions, length), _MASKED)
    return Layout(len(num_text), length, torch.arange(flat, device=num_text.device) % length, mask)


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """Over the last axis, float32."""
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + _EPS) * weight


def project(x: Tensor, norm: Tensor, weight: Tensor, rope: Tensor, dtype: torch.dtype) -> Tensor:
    """Norm, query, key and value of a layer, turned by rotary positions (rotate-half).

    Args:
        x: float32 [N, D].
        norm: float32 [D].
        weight: float32 [3 D, D], rows query, key, value.
        rope: float32 [N, 2, 64], cosines and sines.
        dtype: of the product.

    Returns:
        [N, 3, heads, 64].
    """
    qkv = functional.linear(rms_norm(x, norm).to(dtype), weight.to(dtype)).view(len(x), 3, -1, HEAD_DIM)
    qk = qkv[:, :2]
    low, high = qk.chunk(2, dim=-1)
    cosine, sine = rope[:, None, None, 0], rope[:, None, None, 1]
    return torch.cat([(qk * cosine + torch.cat([-high, low], dim=-1) * sine).to(dtype), qkv[:, 2:]], dim=1)


def attend(qkv: Tensor, rows: int, length: int, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Attention of every row by itself.

    Args:
        qkv: [N, 3, heads, 64].
        rows: B.
        length: T.
        mask: [B * heads, T, T], added to the logits.

    Returns:
        What was gathered, [N, D] (0 past the rows), and the attention, [B, heads, T, T].
    """
    flat, _, heads, _ = qkv.shape
    used = rows * length
    parts = qkv[:used].view(rows, length, 3, heads, HEAD_DIM).permute(2, 0, 3, 1, 4)
    q, k, v = parts.reshape(3, rows * heads, length, HEAD_DIM)
    logits = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=HEAD_DIM**-0.5)
    attention = logits.softmax(dim=-1)
    mixed = torch.bmm(attention, v).view(rows, heads, length, HEAD_DIM).transpose(1, 2).reshape(used, -1)
    return functional.pad(mixed, (0, 0, 0, flat - used)), attention.view(rows, heads, length, length)


def finish(
    x: Tensor,
    mixed: Tensor,
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    keep: tuple[Tensor, float] | None,
    dtype: torch.dtype,
) -> Tensor:
    """The rest of a layer: output of the attention and the SwiGLU, each added to ``x``.

    Args:
        x: float32 [N, D].
        mixed: [N, D].
        weights: output [D, D], norm [D], gate and up [2 F, D], down [D, F]; float32.
        keep: for dropout, bool [2, N, D], False where dropped, and the share that is True; or None.
        dtype: of the products.

    Returns:
        float32 [N, D].
    """
    output, norm, gate_up, down = weights
    added = functional.linear(mixed, output.to(dtype)).float()
    x = x + (added if keep is None else added * keep[0][0] / keep[1])
    gate, up = functional.linear(rms_norm(x, norm).to(dtype), gate_up.to(dtype)).chunk(2, dim=-1)
    added = functional.linear((functional.silu(gate.float()) * up).to(dtype), down.to(dtype)).float()
    return x + (added if keep is None else added * keep[0][1] / keep[1])


class Norm(nn.Module):
    """The weights of an RMS norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(width))


class Layer(nn.Module):
    """The weights of a transformer layer."""

    def __init__(self, width: int, ffn: int, layers: int) -> None:
        super().__init__()
        self.n1, self.n2 = Norm(width), Norm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.o = nn.Linear(width, width, bias=False)
        self.gu = nn.Linear(width, 2 * ffn, bias=False)
        self.dn = nn.Linear(ffn, width, bias=False)
        for into in (self.qkv, self.gu):
            nn.init.normal_(into.weight, 0, 0.7 * width**-0.5)
        for out in (self.o, self.dn):  # smaller, so that the sum of all layers keeps its size
            nn.init.normal_(out.weight, 0, (2 * layers * out.in_features) ** -0.5)

    @property
    def finishing(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What ``finish`` takes."""
        return self.o.weight, self.n2.w, self.gu.weight, self.dn.weight


class Transformer(nn.ModuleList):
    """Layers of one width."""

    def __init__(self, width: int, ffn: int, layers: int) -> None:
        super().__init__(Layer(width, ffn, layers) for _ in range(layers))
        self._heads = width // HEAD_DIM
        self._project, self._finish = project, finish

    def compile_layers(self) -> None:
        """Fuse the operations for training; looks ahead to batches of one size."""
        self._project = torch.compile(project, dynamic=False, fullgraph=True)
        self._finish = torch.compile(finish, dynamic=False, fullgraph=True)

    def layers(self) -> Iterator[Layer]:
        """The layers from below, with their type."""
        for layer in self:
            yield cast("Layer", layer)

    def forward(
        self, x: Tensor, rope: Tensor, rows: Layout, dtype: torch.dtype, dropout: float = 0.0
    ) -> list[tuple[Tensor, Tensor]]:
        """Run a flat batch.

        Args:
            x: float32 [N, D].
            rope: float32 [N, 2, 64].
            rows: where the rows are.
            dtype: of the matrix products.
            dropout: share of each layer's outputs that is dropped.

        Returns:
            For every layer its output, float32 [N, D], and its attention, [B, heads, T, T].
        """
        mask = rows.mask.repeat_interleave(self._heads, dim=0)
        keep = keep_masks((len(self), 2, *x.shape), dropout, x.device)
        first, last = (self._project, self._finish) if self.training else (project, finish)
        states = []
        for number, layer in enumerate(self.layers()):
            qkv = first(x, layer.n1.w, layer.qkv.weight, rope, dtype)
            mixed, attention = attend(qkv, rows.rows, rows.length, mask)
            x = last(x, mixed, layer.finishing, None if keep is None else (keep[number], 1 - dropout), dtype)
            states.append((x, attention))
        return states


def rope_table(length: int) -> Tensor:
    """Cosines and sines of rotary positions, float32 [length, 2, 64]; the second half repeats the first."""
    frequency = _ROPE_BASE ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
    angle = (torch.arange(length)[:, None] * frequency).repeat(1, 2)
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def keep_masks(shape: tuple[int, ...], dropout: float, device: torch.device) -> Tensor | None:
    """Where dropout lets values through, bool; one draw gives 8 of them, for drawing costs more than a layer's norms.

    The share is exact to 1/256.
    """
    if not dropout:
        return None
    count = math.prod(shape)
    drawn = torch.empty(-(-count // 8), dtype=torch.int64, device=device).random_(-(2**63), 2**63 - 1)
    return (drawn.view(torch.uint8)[:count] >= round(256 * dropout)).view(shape)
