"""What rounding noise does to the reference: the yardstick for bundles that are not float32.

A quantized matrix is the matrix plus an error. How large that error is follows from the storage type alone. What it
does to the output depends on the model: how many layers add up, how sharply it attends. So the first is derived, and
the second measured on the reference itself: every matrix gets Gaussian noise of the type's size, every input is rounded
as the type's dot product rounds it, and the output is compared with the undisturbed one. Nothing of the bundle enters,
so a fault in the bundle cannot widen its own bound.

Relative size of the error for weights of a normal distribution: rounding to steps of d is off by d / sqrt(12), and a
block of 32 weights has one step. Its largest magnitude is 2.39 and its span from least to largest 4.20 (root mean
square over blocks, in units of the weights').

- q8_0: d = largest / 127, hence 0.0054. q4_0: d = largest / 8, hence 0.086.
- q4_k: d = span / 15, hence 0.081; llama.cpp's search for a better step lowers that to 0.071.
- f16: 11 bits, off by at most 2**-11 of a number; 2.1e-4 in the mean square.

Inputs of a product are rounded to 8 bits in blocks of 32 (q8_0, q4_0) or 256 (q4_k), and to f16 for f16.

Source: llama-cpp-python 0.3.36, ggml/src/ggml-quants.c: ``quantize_row_q8_0_ref``, ``quantize_row_q4_0_ref``,
``quantize_row_q4_K_ref``, ``quantize_row_q8_K_ref``.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quantize.verify_truth import EIGHT_BITS, LARGEST, SPAN


def _eight_bits(x: Tensor, block: int) -> Tensor:
    """Round the last axis in blocks to 127 steps of each block's largest magnitude."""
    blocks = x.reshape(*x.shape[:-1], -1, block) if x.shape[-1] % block == 0 else x[..., None, :]
    step = blocks.abs().amax(dim=-1, keepdim=True).clamp(min=1e-30) / 127
    return ((blocks / step).round() * step).reshape(x.shape)


@dataclass(frozen=True, slots=True)
class Rounding:
    """How a storage type rounds."""

    weights: float
    """Root mean square error of a matrix relative to its numbers."""
    inputs: Callable[[Tensor], Tensor]
    """What becomes of a product's other side."""


ROUNDING = {
    "f16": Rounding(2.1e-4, lambda x: x.half().to(x.dtype)),
    "q8_0": Rounding(EIGHT_BITS, lambda x: _eight_bits(x, 32)),
    "q4_0": Rounding(LARGEST / 8 / 12**0.5, lambda x: _eight_bits(x, 32)),
    "q4_k": Rounding(SPAN / 15 / 12**0.5, lambda x: _eight_bits(x, 256)),
    "half": Rounding(2.1e-4, lambda x: x),  # the codec: stored as float16, computed in float32
}


@contextlib.contextmanager
def rounded(module: nn.Module, rounding: Rounding, seed: int) -> Iterator[None]:
    """Within the block, every product with a weight in ``module`` is disturbed; one matrix at a time is copied."""
    generator = torch.Generator().manual_seed(seed)
    kept: dict[nn.Module, Tensor] = {}

    def before(layer: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        weight: Tensor = layer.weight.data
        kept[layer] = weight
        noise = torch.randn(weight.shape, generator=generator)
        size = weight.square().mean(dim=tuple(range(1, weight.ndim)), keepdim=True).sqrt()
        layer.weight.data = noise.mul_(rounding.weights * size).add_(weight)
        return (rounding.inputs(inputs[0]), *inputs[1:])

    def after(layer: Any, _inputs: object, _output: object) -> None:
        layer.weight.data = kept.pop(layer)

    with contextlib.ExitStack() as hooks:
        for layer in module.modules():
            if isinstance(layer, (nn.Linear, nn.Conv1d, nn.ConvTranspose1d)):
                hooks.callback(layer.register_forward_pre_hook(before).remove)
                hooks.callback(layer.register_forward_hook(after).remove)
        yield
