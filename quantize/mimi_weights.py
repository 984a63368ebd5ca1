"""The Mimi codec in neutral names: what its reader produces and the exporters consume."""

import math
from dataclasses import dataclass

from daemon.values import F32


@dataclass(frozen=True, slots=True, kw_only=True)
class MimiConv:
    """A causal convolution along time."""

    weight: F32
    """[out, in / groups, K]; of a transposed convolution [in, out / groups, K]."""
    bias: F32 | None
    stride: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MimiResidual:
    """ELU, convolution K, ELU, convolution 1, added to what came in."""

    conv: MimiConv
    output: MimiConv


@dataclass(frozen=True, slots=True, kw_only=True)
class MimiStage:
    """One rate of SEANet. Decoder: ELU, transposed convolution, residual. Encoder: residual, ELU, convolution."""

    resample: MimiConv
    residual: MimiResidual


@dataclass(frozen=True, slots=True, kw_only=True)
class MimiLayer:
    """A transformer layer: LayerNorm, exact GELU, a scale on both branches; q and k rotate halves.

    Matrices are [out, in].
    """

    norm1: F32
    norm1_bias: F32
    attn_q: F32
    attn_k: F32
    attn_v: F32
    attn_output: F32
    """With the layer scale folded in."""
    norm2: F32
    norm2_bias: F32
    expand: F32
    contract: F32
    """With the layer scale folded in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MimiTransformer:
    """Causal, each step sees itself and the ``window - 1`` steps before."""

    layers: list[MimiLayer]
    heads: int
    window: int
    rope_base: float
    norm_eps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MimiQuantizer:
    """Residual vector quantizer of one branch (semantic: one codebook; acoustic: the rest)."""

    codebooks: F32
    """[q, C, E]."""
    input: F32
    """[E, D]."""
    output: F32
    """[D, E]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MimiCodec:
    """The codec of CSM-1B. Source: transformers 5.23.0, models/mimi/modeling_mimi.py; arXiv:2410.00037, section 3.3."""

    semantic: MimiQuantizer
    acoustic: MimiQuantizer
    upsample: MimiConv
    """Transposed, depthwise: frames to steps."""
    decoder_transformer: MimiTransformer
    decoder_input: MimiConv
    decoder_stages: list[MimiStage]
    decoder_output: MimiConv
    encoder_input: MimiConv
    encoder_stages: list[MimiStage]
    encoder_output: MimiConv
    encoder_transformer: MimiTransformer
    downsample: MimiConv
    """Steps to frames; padded on the left with its first value."""

    @property
    def num_codebooks(self) -> int:
        """Q."""
        return len(self.semantic.codebooks) + len(self.acoustic.codebooks)

    @property
    def codebook_size(self) -> int:
        """C."""
        return int(self.semantic.codebooks.shape[1])

    @property
    def samples_per_frame(self) -> int:
        """1920: the product of all strides."""
        strides = [stage.resample.stride for stage in self.decoder_stages]
        return math.prod([self.upsample.stride, *strides])
