"""Mimi with random weights, in its true shape.

Source: transformers 5.23.0, models/mimi/configuration_mimi.py.
"""

import math

import numpy as np

from quantize.mimi_weights import (
    MimiCodec,
    MimiConv,
    MimiLayer,
    MimiQuantizer,
    MimiResidual,
    MimiStage,
    MimiTransformer,
)
from quantize.random_weights import BRANCH_GAIN, Random

NUM_CODEBOOKS, CODEBOOK_SIZE = 32, 2048
_MIMI_WIDTH, _MIMI_FFN, _MIMI_LAYERS, _CODE_WIDTH, _FILTERS = 512, 2048, 8, 256, 64
_RATIOS = (8, 6, 5, 4)
_ELU_GAIN = 1.3
"""ELU leaves 0.6 of a normal number's variance."""
_LOUDNESS = 0.09
"""Gain of the last convolution: sound of about 0.1."""


def random_mimi(random: Random) -> MimiCodec:
    """The codec in its true shape: 32 codebooks of 2048 vectors of 256."""
    width, widest = _MIMI_WIDTH, _FILTERS * 2 ** len(_RATIOS)
    return MimiCodec(
        semantic=_quantizer(random, "semantic", 1),
        acoustic=_quantizer(random, "acoustic", NUM_CODEBOOKS - 1),
        upsample=_conv(random, "upsample", (width, 1, 4), stride=2, fan_in=2, bias=False),
        decoder_transformer=_mimi_transformer(random, "decoder_transformer"),
        decoder_input=_conv(random, "decoder_input", (widest, width, 7)),
        decoder_stages=[
            _decoder_stage(random, f"decoder.{number}", widest >> number, ratio) for number, ratio in enumerate(_RATIOS)
        ],
        decoder_output=_conv(random, "decoder_output", (1, _FILTERS, 3), gain=_LOUDNESS),
        encoder_input=_conv(random, "encoder_input", (_FILTERS, 1, 7), gain=1 / _LOUDNESS),
        encoder_stages=[
            _encoder_stage(random, f"encoder.{number}", _FILTERS << number, ratio)
            for number, ratio in enumerate(reversed(_RATIOS))
        ],
        encoder_output=_conv(random, "encoder_output", (width, widest, 3), gain=_ELU_GAIN),
        encoder_transformer=_mimi_transformer(random, "encoder_transformer"),
        downsample=_conv(random, "downsample", (width, width, 4), stride=2, bias=False),
    )


def _quantizer(random: Random, name: str, count: int) -> MimiQuantizer:
    return MimiQuantizer(
        codebooks=random(f"{name}.codebooks", count, CODEBOOK_SIZE, _CODE_WIDTH, scale=1 / math.sqrt(count)),
        input=random.matrix(f"{name}.input", _CODE_WIDTH, _MIMI_WIDTH),
        output=random.matrix(f"{name}.output", _MIMI_WIDTH, _CODE_WIDTH),
    )


def _mimi_transformer(random: Random, part: str) -> MimiTransformer:
    layers = [_mimi_layer(random, f"{part}.{number}") for number in range(_MIMI_LAYERS)]
    return MimiTransformer(layers=layers, heads=8, window=250, rope_base=10_000.0, norm_eps=1e-5)


def _mimi_layer(random: Random, prefix: str) -> MimiLayer:
    width = _MIMI_WIDTH
    return MimiLayer(
        norm1=np.ones(width, np.float32),
        norm1_bias=np.zeros(width, np.float32),
        attn_q=random.matrix(f"{prefix}.attn_q", width, width),
        attn_k=random.matrix(f"{prefix}.attn_k", width, width),
        attn_v=random.matrix(f"{prefix}.attn_v", width, width),
        attn_output=random.matrix(f"{prefix}.attn_output", width, width, BRANCH_GAIN),
        norm2=np.ones(width, np.float32),
        norm2_bias=np.zeros(width, np.float32),
        expand=random.matrix(f"{prefix}.expand", _MIMI_FFN, width),
        contract=random.matrix(f"{prefix}.contract", width, _MIMI_FFN, BRANCH_GAIN),
    )


def _decoder_stage(random: Random, prefix: str, channels: int, ratio: int) -> MimiStage:
    """From ``channels`` to half as many, ``ratio`` times the rate; two taps a channel make an output."""
    half = channels // 2
    shape, fan_in = (channels, half, 2 * ratio), 2 * channels
    resample = _conv(random, f"{prefix}.resample", shape, stride=ratio, outputs=half, fan_in=fan_in, gain=_ELU_GAIN)
    return MimiStage(resample=resample, residual=_residual(random, prefix, half))


def _encoder_stage(random: Random, prefix: str, channels: int, ratio: int) -> MimiStage:
    """From ``channels`` to twice as many, the rate divided by ``ratio``."""
    shape = (2 * channels, channels, 2 * ratio)
    resample = _conv(random, f"{prefix}.resample", shape, stride=ratio, gain=_ELU_GAIN)
    return MimiStage(resample=resample, residual=_residual(random, prefix, channels))


def _residual(random: Random, prefix: str, channels: int) -> MimiResidual:
    return MimiResidual(
        conv=_conv(random, f"{prefix}.conv", (channels // 2, channels, 3), gain=_ELU_GAIN),
        output=_conv(random, f"{prefix}.output", (channels, channels // 2, 1), gain=BRANCH_GAIN),
    )


def _conv(
    random: Random,
    name: str,
    shape: tuple[int, int, int],
    *,
    stride: int = 1,
    outputs: int | None = None,
    fan_in: int | None = None,
    gain: float = 1.0,
    bias: bool = True,
) -> MimiConv:
    """A convolution that keeps the size of its input, times ``gain``.

    Args:
        random: gives the numbers.
        name: which ones.
        shape: of the weight.
        stride: kept.
        outputs: channels that come out, where they are not the weight's first dimension.
        fan_in: how many numbers an output is made of, where that is not the product of the others.
        gain: of the weight.
        bias: whether there is one; it is zero, as it costs the same whatever it is.
    """
    weight = random(name, *shape, scale=gain / math.sqrt(fan_in or shape[1] * shape[2]))
    return MimiConv(weight=weight, bias=np.zeros(outputs or shape[0], np.float32) if bias else None, stride=stride)
