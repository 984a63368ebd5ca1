"""A speech model in neutral names: what every checkpoint reader produces and every writer consumes.

Letters as in ``daemon.values``; Dd is the depth decoder's width, H the width of a feed-forward layer,
L the number of codec steps (several a frame).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, overload

import numpy as np

from daemon.values import F32
from quantize.mimi_weights import MimiCodec

_T = TypeVar("_T")
Shapes = dict[str, tuple[int, ...]]


class Rows(Protocol):
    """A table float32 [rows, width] that may be larger than memory: slices are read when asked for. An array is one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and width."""
        ...

    def __getitem__(self, rows: slice, /) -> F32:
        """Some rows, float32 [n, width]."""
        ...

    def __len__(self) -> int:
        """How many rows there are."""
        ...


class Lazy(Sequence[_T]):
    """A sequence whose items are read each time they are asked for, and not kept."""

    def __init__(self, count: int, read: Callable[[int], _T]) -> None:
        self._count = count
        self._read = read

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> _T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[_T]: ...
    def __getitem__(self, index: int | slice) -> _T | Sequence[_T]:
        if isinstance(index, slice):
            return [self._read(number) for number in range(*index.indices(self._count))]
        if not -self._count <= index < self._count:
            raise IndexError(index)
        return self._read(index % self._count)


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """Llama 3's scaling of the rotary frequencies.

    Source: torchtune 0.4.0 ``Llama3ScaledRoPE``; transformers ``_compute_llama3_parameters``.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int

    def divisors(self, rope_base: float, head_dim: int) -> F32:
        """What each frequency is divided by, float32 [head_dim / 2]: llama.cpp's ``rope_freqs``."""
        frequency = rope_base ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
        turns = self.original_context * frequency / (2 * np.pi)  # in the original context
        smooth = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        between = 1 / ((1 - smooth) / self.factor + smooth)
        scaled = np.where(turns > self.high_freq_factor, 1.0, between)
        return np.where(turns < self.low_freq_factor, self.factor, scaled).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One Llama-style transformer layer; matrices are [out, in]."""

    attn_norm: F32
    attn_q: F32
    attn_k: F32
    attn_v: F32
    attn_output: F32
    ffn_norm: F32
    ffn_gate: F32
    ffn_up: F32
    ffn_down: F32


def layer_shapes(width: int, q: int, kv: int, ffn: int) -> Shapes:
    """By the fields of ``Layer``: ``q`` and ``kv`` are the rows of the projections."""
    return {
        "attn_norm": (width,),
        "attn_q": (q, width),
        "attn_k": (kv, width),
        "attn_v": (kv, width),
        "attn_output": (width, q),
        "ffn_norm": (width,),
        "ffn_gate": (ffn, width),
        "ffn_up": (ffn, width),
        "ffn_down": (width, ffn),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Transformer:
    """A stack of layers from embeddings to normalised hidden states."""

    layers: Sequence[Layer]
    """``Lazy`` where the model is large: one layer at a time is in memory."""
    output_norm: F32
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    """Width of the feed-forward layers."""
    norm_eps: float
    rope_base: float
    rope_scaling: RopeScaling | None = None
    rotate_half: bool
    """Whether q and k pair dimension i with i + head_dim / 2 (True) or 2i with 2i + 1 (False)."""

    @property
    def width(self) -> int:
        """D or Dd."""
        return len(self.output_norm)

    def layer_shapes(self) -> Shapes:
        """By the fields of ``Layer``, which are llama.cpp's names."""
        return layer_shapes(self.width, self.heads * self.head_dim, self.kv_heads * self.head_dim, self.ffn)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvNextBlock:
    """Residual block: causal depthwise convolution, LayerNorm, expand, GELU (tanh), contract."""

    conv: F32
    """[D, K]."""
    conv_bias: F32
    norm: F32
    norm_bias: F32
    expand: F32
    """[H, D]."""
    expand_bias: F32
    contract: F32
    """[D, H], with the layer scale folded in."""
    contract_bias: F32


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """A causal codec decoder that ends in an inverse short-time Fourier transform."""

    codebooks: F32
    """[Q, C, E]; a frame is the sum of one row of each."""
    input: F32
    """[D, E]."""
    input_bias: F32
    frame_blocks: list[ConvNextBlock]
    """At the frame rate."""
    upsample: F32
    """[L * D, D]: one frame becomes L steps."""
    upsample_bias: F32
    step_blocks: list[ConvNextBlock]
    norm: F32
    norm_bias: F32
    output: F32
    """[2 * bins, D]: log magnitudes, then phases."""
    output_bias: F32
    max_log_magnitude: float
    log_magnitude_shift: float
    """Added after the clamp."""
    overlap_gain: float
    """What the overlapping windows are divided by."""

    @property
    def fft_size(self) -> int:
        """Length of the window in samples; the hop is a quarter of it."""
        return len(self.output) - 2

    @property
    def hop(self) -> int:
        """Samples from one step to the next."""
        return self.fft_size // 4

    @property
    def steps_per_frame(self) -> int:
        """L."""
        return len(self.upsample) // len(self.input)

    @property
    def samples_per_frame(self) -> int:
        """How much sound one frame of codes is."""
        return self.steps_per_frame * self.hop

    @property
    def delay_samples(self) -> int:
        """How far the output lags: half of the window beyond half a hop."""
        return (self.fft_size - self.hop) // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechModel:
    """Everything a bundle is made of."""

    backbone: Transformer
    depth_decoder: Transformer
    codebook0_head: F32
    """[V, D]; V may exceed C by the codes that end speech."""
    depth_heads: F32
    """[Q-1, C, Dd]."""
    projection: F32
    """[Dd, D]."""
    text_embeddings: Rows
    """[Vt, D]."""
    audio_embeddings: Rows
    """[Q * C, D]; V rows a codebook where the heads have V classes."""
    depth_audio_embeddings: Rows | None = None
    """Likewise, where the depth decoder has a table of its own; else ``audio_embeddings`` is also its."""
    codec: Codec | MimiCodec
    tokenizer: str
    """JSON of the ``tokenizers`` library."""
    manifest: dict[str, Any]
    """The manifest's keys and tables but for ``files`` and ``recipe``."""
