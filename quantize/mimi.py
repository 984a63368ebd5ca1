"""Mimi checkpoints -> neutral weights, from either public layout of tensor names, with or without a prefix.

Sizes come from the tensors' shapes. What shapes do not tell (heads, window, how many layers) is that of the published
model unless a configuration says otherwise. Source: transformers 5.23.0, models/mimi/modeling_mimi.py; moshi 0.2.13,
models/loaders.py.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from daemon.errors import ModelError
from daemon.values import F32
from quantize.checkpoint import Checkpoint
from quantize.csm_config import Config
from quantize.half import check_finite
from quantize.mimi_names import MOSHI, TRANSFORMERS, Layout
from quantize.mimi_weights import (
    MimiCodec,
    MimiConv,
    MimiLayer,
    MimiQuantizer,
    MimiResidual,
    MimiStage,
    MimiTransformer,
)

_MIN_USAGE = 1e-5
"""A codebook's vectors are sums of what fell to them; one that nothing fell to is divided by this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Constants:
    """What no tensor's shape tells; counts are here so that a lost layer or codebook is missed."""

    codebooks: int = 32
    semantic_codebooks: int = 1
    ratios: tuple[int, ...] = (8, 6, 5, 4)
    """Strides of the decoder's stages; the kernels are twice as long."""
    layers: int = 8
    """Of each transformer."""
    heads: int = 8
    head_dim: int | None = None
    """None: the width over the heads."""
    window: int = 250
    """Steps that attention sees, the current one included: 10 s."""
    rope_base: float = 10_000.0
    norm_eps: float = 1e-5


def recognises(checkpoint: Checkpoint, prefix: str = "") -> bool:
    """Whether most of the names that only a Mimi checkpoint uses are there (a few may be missing by damage)."""
    return any(_marks(checkpoint, prefix, layout) > 3 for layout in (TRANSFORMERS, MOSHI))


def read(checkpoint: Checkpoint, prefix: str = "", config: dict[str, Any] | None = None) -> MimiCodec:
    """Read the whole codec.

    Args:
        checkpoint: the tensors.
        prefix: what every name begins with, as ``codec_model.`` inside CSM's checkpoint.
        config: kyutai/mimi's config.json or the ``codec_config`` table of CSM's; None or {} is the published model.

    Raises:
        ModelError: a tensor is missing or misshapen, or the configuration has a value that cannot be.
    """
    layout = max((TRANSFORMERS, MOSHI), key=lambda names: _marks(checkpoint, prefix, names))
    return _Reader(checkpoint, prefix, layout, _constants(config or {})).codec()


def _marks(checkpoint: Checkpoint, prefix: str, layout: Layout) -> int:
    marks = (
        f"{layout.downsample}.weight",
        f"{layout.upsample}.weight",
        f"encoder.{layout.seanet}.0.{layout.conv}.weight",
        f"decoder.{layout.seanet}.0.{layout.conv}.weight",
        f"decoder_transformer.{layout.transformer}.0.{layout.attn_output}",
        f"{layout.semantic}.input_proj.weight",
        f"{layout.acoustic}.output_proj.weight",
    )
    return sum(prefix + name in checkpoint for name in marks)


def _constants(values: dict[str, Any]) -> _Constants:
    known, config = _Constants(), Config(values, "codec configuration: ")
    config.require("hidden_act", "gelu")
    ratios = values.get("upsampling_ratios", list(known.ratios))
    if not isinstance(ratios, list) or not ratios:
        raise ModelError(f"{config.where}upsampling_ratios: expected a list of strides, found {ratios!r}")
    rope = config.table("rope_parameters", "rope_scaling")
    for key in ("rope_type", "type"):
        rope.require(key, "default")
    codebooks = config.whole("num_quantizers", known.codebooks)
    semantic = config.whole("num_semantic_quantizers", known.semantic_codebooks)
    if semantic >= codebooks:
        raise ModelError(f"{config.where}num_semantic_quantizers: expected below {codebooks}, found {semantic}")
    return _Constants(
        codebooks=codebooks,
        semantic_codebooks=semantic,
        ratios=tuple(Config({"upsampling_ratios": ratio}, config.where).whole("upsampling_ratios") for ratio in ratios),
        layers=config.whole("num_hidden_layers", known.layers),
        heads=config.whole("num_attention_heads", known.heads),
        head_dim=None if values.get("head_dim") is None else config.whole("head_dim"),
        window=config.whole("sliding_window", known.window),
        rope_base=rope.number("rope_theta", config.number("rope_theta", known.rope_base)),
        norm_eps=config.number("norm_eps", known.norm_eps),
    )


class _Reader:
    """Reads part by part; every width is checked against the part before."""

    def __init__(self, checkpoint: Checkpoint, prefix: str, layout: Layout, constants: _Constants) -> None:
        self._checkpoint = checkpoint
        self._prefix = prefix
        self._layout = layout
        self._constants = constants

    def codec(self) -> MimiCodec:
        names = self._layout
        upsample = self._conv(names.upsample, None, 1, None, bias=False, resamples=True)
        width = len(upsample.weight)
        decoder_input = self._conv(self._seanet("decoder", 0), None, width, None)
        decoder_stages = self._decoder_stages(len(decoder_input.weight))
        end = 3 * len(self._constants.ratios) + 2
        channels = len(decoder_stages[-1].residual.output.weight)
        decoder_output = self._conv(self._seanet("decoder", end), 1, channels, None)
        encoder_input = self._conv(self._seanet("encoder", 0), None, 1, None)
        encoder_stages = self._encoder_stages(len(encoder_input.weight))
        channels = len(encoder_stages[-1].resample.weight)
        num_semantic, num_codebooks = self._constants.semantic_codebooks, self._constants.codebooks
        semantic = self._quantizer(names.semantic, width, num_semantic, None)
        return MimiCodec(
            semantic=semantic,
            acoustic=self._quantizer(names.acoustic, width, num_codebooks - num_semantic, semantic.codebooks.shape[1]),
            upsample=upsample,
            decoder_transformer=self._transformer("decoder", width),
            decoder_input=decoder_input,
            decoder_stages=decoder_stages,
            decoder_output=decoder_output,
            encoder_input=encoder_input,
            encoder_stages=encoder_stages,
            encoder_output=self._conv(self._seanet("encoder", end), width, channels, None),
            encoder_transformer=self._transformer("encoder", width),
            downsample=self._conv(names.downsample, width, width, 2 * upsample.stride, bias=False, resamples=True),
        )

    def _tensor(self, name: str, *shape: int | None) -> F32:
        return self._checkpoint.tensor(self._prefix + name, *shape)

    def _seanet(self, side: str, number: int, *, transposed: bool = False) -> str:
        names = self._layout
        return f"{side}.{names.seanet}.{number}.{names.transposed if transposed else names.conv}"

    def _conv(
        self, name: str, *shape: int | None, bias: bool = True, resamples: bool = False, transposed: bool = False
    ) -> MimiConv:
        """A convolution; one that resamples has a kernel of twice its stride."""
        weight = self._tensor(f"{name}.weight", *shape)
        kernel = weight.shape[2]
        if resamples and kernel % 2:
            raise ModelError(
                f"tensor {self._prefix}{name}.weight: expected an even kernel, twice the stride, found {kernel}"
            )
        outputs = weight.shape[1 if transposed else 0]
        return MimiConv(
            weight=weight,
            bias=self._tensor(f"{name}.bias", outputs) if bias else None,
            stride=kernel // 2 if resamples else 1,
        )

    def _residual(self, side: str, number: int, channels: int) -> MimiResidual:
        names = self._layout
        block = f"{side}.{names.seanet}.{number}.block"
        conv = self._conv(f"{block}.1.{names.conv}", None, channels, None)
        return MimiResidual(conv=conv, output=self._conv(f"{block}.3.{names.conv}", channels, len(conv.weight), 1))

    def _decoder_stages(self, channels: int) -> list[MimiStage]:
        stages = []
        for number, ratio in enumerate(self._constants.ratios):
            name = self._seanet("decoder", 3 * number + 2, transposed=True)
            resample = self._conv(name, channels, None, 2 * ratio, resamples=True, transposed=True)
            channels = resample.weight.shape[1]
            stages.append(MimiStage(resample=resample, residual=self._residual("decoder", 3 * number + 3, channels)))
        return stages

    def _encoder_stages(self, channels: int) -> list[MimiStage]:
        stages = []
        for number, ratio in enumerate(reversed(self._constants.ratios)):
            residual = self._residual("encoder", 3 * number + 1, channels)
            name = self._seanet("encoder", 3 * number + 3)
            resample = self._conv(name, None, channels, 2 * ratio, resamples=True)
            channels = len(resample.weight)
            stages.append(MimiStage(resample=resample, residual=residual))
        return stages

    def _transformer(self, side: str, width: int) -> MimiTransformer:
        prefix = f"{side}_transformer.{self._layout.transformer}"
        constants, there = self._constants, self._checkpoint.count(f"{self._prefix}{prefix}")
        if there > constants.layers:
            raise ModelError(
                f"codec configuration: num_hidden_layers: expected {there} by the tensors {self._prefix}{prefix}.N,"
                f" found {constants.layers}"
            )
        return MimiTransformer(
            layers=[self._layer(f"{prefix}.{number}", width) for number in range(constants.layers)],
            heads=constants.heads,
            window=constants.window,
            rope_base=constants.rope_base,
            norm_eps=constants.norm_eps,
        )

    def _layer(self, prefix: str, width: int) -> MimiLayer:
        names = self._layout
        norm1, norm2 = (f"{prefix}.{name}" for name in names.norms)
        expand, contract = (f"{prefix}.{name}" for name in names.feed_forward)
        query, key, value = self._qkv(f"{prefix}.self_attn", width)
        attn_output = self._tensor(f"{prefix}.{names.attn_output}", width, len(query))
        expansion = self._tensor(expand, None, width)
        contraction = self._tensor(contract, width, len(expansion))
        return MimiLayer(
            norm1=self._tensor(f"{norm1}.weight", width),
            norm1_bias=self._tensor(f"{norm1}.bias", width),
            attn_q=query,
            attn_k=key,
            attn_v=value,
            attn_output=self._scaled(attn_output, f"{prefix}.{names.attn_scale}"),
            norm2=self._tensor(f"{norm2}.weight", width),
            norm2_bias=self._tensor(f"{norm2}.bias", width),
            expand=expansion,
            contract=self._scaled(contraction, f"{prefix}.{names.ffn_scale}"),
        )

    def _scaled(self, weight: F32, name: str) -> F32:
        """Its rows times the numbers of a tensor."""
        with np.errstate(over="ignore"):
            scaled = self._tensor(name, len(weight))[:, None] * weight
        check_finite(scaled, f"tensor {self._prefix}{name}, times what it scales")
        return scaled

    def _qkv(self, prefix: str, width: int) -> tuple[F32, F32, F32]:
        heads, head_dim = self._constants.heads, self._constants.head_dim
        rows = heads * (head_dim or width // heads)
        if not self._layout.fused_qkv:
            query, key, value = (self._tensor(f"{prefix}.{part}_proj.weight", rows, width) for part in "qkv")
            return query, key, value
        fused = self._tensor(f"{prefix}.in_proj_weight", 3 * rows, width)
        return self._halves(fused[:rows]), self._halves(fused[rows : 2 * rows]), fused[2 * rows :]

    def _halves(self, weight: F32) -> F32:
        """Reorder the rows of a projection whose rotary pairs are neighbours so that they are half a head apart."""
        pairs = weight.reshape(self._constants.heads, -1, 2, weight.shape[1])
        return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(weight.shape)

    def _quantizer(self, name: str, width: int, count: int, codebook_size: int | None) -> MimiQuantizer:
        books = f"{name}.{self._layout.books}"
        projection = self._tensor(f"{name}.input_proj.weight", None, width, 1)
        codebooks = []
        for number in range(count):
            codebooks.append(
                self._codebook(f"{books}.{number}.{self._layout.codebook}", codebook_size, len(projection))
            )
            codebook_size = len(codebooks[0])
        return MimiQuantizer(
            codebooks=np.stack(codebooks),
            input=projection[..., 0],
            output=self._tensor(f"{name}.output_proj.weight", width, len(projection), 1)[..., 0],
        )

    def _codebook(self, name: str, codebook_size: int | None, width: int) -> F32:
        embed_sum = self._tensor(f"{name}.{self._layout.embed_sum}", codebook_size, width)
        usage = self._tensor(f"{name}.cluster_usage", len(embed_sum))
        with np.errstate(over="ignore"):
            codebook = np.divide(embed_sum, np.maximum(usage, _MIN_USAGE)[:, None], dtype=np.float32)
        check_finite(codebook, f"tensor {self._prefix}{name}.{self._layout.embed_sum}, divided by cluster_usage")
        return codebook
