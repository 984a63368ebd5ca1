"""A speech model in neutral names: what every checkpoint reader produces and every writer consumes.

Letters as in ``daemon.values``; Dd is the depth decoder's width, H the width of a feed-forward layer,
L the number of codec steps (several a frame).
"""

from dataclasses import dataclass
from typing import Any

from daemon.values import F32


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Transformer:
    """A stack of layers from embeddings to normalised hidden states."""

    layers: list[Layer]
    output_norm: F32
    heads: int
    kv_heads: int
    norm_eps: float
    rope_base: float
    rotate_half: bool
    """Whether q and k pair dimension i with i + head_dim / 2 (True) or 2i with 2i + 1 (False)."""

    @property
    def width(self) -> int:
        """D or Dd."""
        return len(self.output_norm)


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
    text_embeddings: F32
    """[Vt, D]."""
    audio_embeddings: F32
    """[Q * C, D]."""
    codec: Codec
    tokenizer: str
    """JSON of the ``tokenizers`` library."""
    manifest: dict[str, Any]
    """The manifest's keys and tables but for ``files`` and ``recipe``."""
