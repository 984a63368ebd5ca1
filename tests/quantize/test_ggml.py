"""ggml's own quantization through ctypes: the same bytes as gguf-py, and the K-quants that gguf-py cannot make."""

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from daemon.errors import ModelError
from quantize.ggml import quantize, row_bytes

ERRORS = {Kind.F32: 0.0, Kind.F16: 3e-4, Kind.Q8_0: 0.006, Kind.Q6_K: 0.02, Kind.Q4_K: 0.08, Kind.Q4_0: 0.095}
"""Bounds on the relative error (root mean square) of normally distributed weights.

With a step d the error is d / sqrt(12) at most where rounding is to the nearest; the largest of a block of 32 normal
numbers is about 2.1, so d is 2.1 / 127 for Q8_0 and 2.1 / 8 for Q4_0, of which little is saved by the offset.
"""


@pytest.fixture(scope="module")
def weight():
    """Normal numbers with a block of zeros and one outlier, float32 [300, 1024]: rows that the cores share unevenly."""
    made = np.random.default_rng(3).standard_normal((300, 1024), dtype=np.float32)
    made[7, :256] = 0
    made[8, 5] = 40
    return made


@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.Q8_0, Kind.Q4_0])
def test_bytes_are_those_of_gguf_py(weight, kind):
    """Two implementations agree to the bit, so bundles do not change with the one that is used."""
    np.testing.assert_array_equal(quantize(weight, kind), gguf.quantize(weight, kind).view(np.uint8))


@pytest.mark.parametrize("kind", ERRORS)
def test_error_is_that_of_the_type(weight, kind):
    """What is read back differs by no more than the type's steps allow; zeros stay zeros."""
    stored = quantize(weight, kind)
    assert stored.shape == (300, row_bytes(1024, kind))
    back = gguf.dequantize(stored, kind) if kind is not Kind.F32 else stored.view(np.float32)
    assert np.linalg.norm(back - weight) <= ERRORS[kind] * np.linalg.norm(weight)
    assert not back[7, :256].any()


@pytest.mark.parametrize("kind", [Kind.Q4_K, Kind.Q6_K])
def test_rows_do_not_depend_on_each_other(weight, kind):
    """However the cores share them, and from a view that is not contiguous."""
    whole = quantize(weight, kind)
    np.testing.assert_array_equal(np.concatenate([quantize(weight[i : i + 1], kind) for i in range(300)]), whole)
    np.testing.assert_array_equal(quantize(np.asfortranarray(weight)[::2], kind), whole[::2])


@pytest.mark.parametrize(("width", "kind", "block"), [(896, Kind.Q4_K, 256), (40, Kind.Q8_0, 32), (33, Kind.Q4_0, 32)])
def test_a_row_that_the_block_does_not_divide_is_refused(width, kind, block):
    """In one line, with the multiple that is wanted and the length that was found."""
    with pytest.raises(ModelError, match=f"multiple of {block} for {kind.name}, found {width}"):
        quantize(np.zeros((2, width), np.float32), kind)


@pytest.mark.parametrize(
    ("kind", "largest"), [(Kind.F16, 65504), (Kind.Q8_0, 127 * 65504), (Kind.Q4_0, 8 * 65504), (Kind.Q6_K, 2.7e8)]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_scales_that_float16_cannot_hold_are_refused(weight, kind, largest, sign):
    """The largest number that fits is stored; a hundredth more, in any row, is refused instead of infinity."""
    for factor in (0.99, 1.01):
        large = weight.copy()
        large[299, 700] = sign * largest * factor
        if factor < 1:
            assert np.isfinite(gguf.dequantize(quantize(large, kind), kind)).all()
        else:
            with pytest.raises(ModelError, match=f"{kind.name}: has numbers too large for float16"):
                quantize(large, kind)


def test_k_quants_are_refused_where_their_bytes_are_not_finite(weight):
    """Found in the scales that ggml wrote: never numbers that read back as NaN or infinity."""
    for size in (1e5, 1e6, 1e7, 1e8, 1e9):
        large = weight.copy()
        large[299, 700] = size
        try:
            stored = quantize(large, Kind.Q4_K)
        except ModelError:
            assert size > 1e6
        else:
            assert np.isfinite(gguf.dequantize(stored, Kind.Q4_K)).all()
            assert size < 1e9
