"""Volume and fades."""

import tracemalloc

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.audio.pcm import FADE_SAMPLES, Gain, fade_out

BLOCKS = hnp.arrays(np.int16, st.integers(1, 100))


@given(BLOCKS)
def test_full_volume_passes_every_bit(block):
    """100 % is exact."""
    out = block.copy()
    Gain(100).apply(out, 100)
    assert np.array_equal(out, block)


@given(BLOCKS, st.integers(0, 100))
def test_volume_scales_within_one_step_and_never_clips(block, percent):
    """A steady volume is the cube of its percentage, rounded."""
    out, gain = block.copy(), Gain(100, percent)
    gain.apply(out, percent)
    exact = block * (percent / 100) ** 3
    assert np.all(np.abs(out - exact) <= 1.5)


def test_zero_is_silence_and_half_is_clearly_quieter():
    """0 % gives zeros; 50 % is 18 dB down."""
    loud = np.full(480, 32767, dtype=np.int16)
    silent, half = loud.copy(), loud.copy()
    Gain(480, 0).apply(silent, 0)
    Gain(480, 50).apply(half, 50)
    assert not silent.any()
    assert half.max() == round(32767 / 8)


@pytest.mark.parametrize(("before", "after"), [(100, 0), (0, 100), (30, 90), (90, 30)])
def test_a_change_of_volume_is_spread_over_a_block(before, after):
    """No step between two samples is larger than the ramp's, and the next block is steady at the new volume."""
    gain = Gain(480, before)
    blocks = [np.full(480, 30_000, dtype=np.int16) for _ in range(3)]
    for block, percent in zip(blocks, [before, after, after], strict=True):
        gain.apply(block, percent)
    joined = np.concatenate(blocks).astype(int)
    whole = abs(joined[-1] - joined[0])
    assert np.abs(np.diff(joined)).max() <= whole / 480 + 2
    assert len(set(blocks[2].tolist())) == 1
    steps = np.diff(joined) * (1 if after > before else -1)
    assert steps.min() >= 0


@given(BLOCKS, st.integers(0, 120))
def test_fade_out_falls_to_zero_and_leaves_silence(block, count):
    """No sample grows, the last faded one is 0, and nothing follows."""
    out = block.copy()
    fade_out(out, count)
    assert np.all(np.abs(out.astype(int)) <= np.abs(block.astype(int)))
    assert not out[max(0, min(count, len(block)) - 1) :].any()


def test_a_cut_fades_in_five_milliseconds():
    """120 samples at 24 kHz, and the first of them is nearly as loud as it was."""
    block = np.full(480, 12_000, dtype=np.int16)
    fade_out(block, FADE_SAMPLES)
    assert FADE_SAMPLES == 120
    assert block[0] == 11_900
    assert np.count_nonzero(block) == 119


def test_volume_allocates_no_array():
    """After the first call a change of volume makes no array, not even for a moment."""
    block, gain = np.ones(1920, dtype=np.int16), Gain(1920)
    gain.apply(block, 50)
    tracemalloc.start()
    try:
        for percent in range(100):
            gain.apply(block, percent)
        assert tracemalloc.get_traced_memory()[1] < block.nbytes
    finally:
        tracemalloc.stop()
