"""The learning rate over a stage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.schedule import FLOOR, decay_begins, rate


@given(total=st.integers(1, 500), warmup=st.integers(0, 100), decay=st.floats(0, 1))
def test_the_rate_goes_up_stays_and_goes_down(total, warmup, decay):
    """Never zero nor above one; up until the warm-up ends, one until the decay begins, down to the floor."""
    begin = decay_begins(total, decay)
    rates = [rate(step, total, warmup, decay) for step in range(total)]
    assert all(FLOOR * 0.999 <= value <= 1 or value == (step + 1) / warmup for step, value in enumerate(rates))
    assert all(value == 1 for value in rates[warmup:begin])
    assert rates[:begin] == sorted(rates[:begin])
    assert rates[begin:] == sorted(rates[begin:], reverse=True)
    if begin < total:
        assert rates[-1] == pytest.approx(FLOOR)


def test_a_longer_stage_is_the_same_until_the_shorter_decays():
    """What a run had learned before its decay is what a longer one would have learned."""
    begin = decay_begins(100, 0.2)
    assert begin == 80
    assert [rate(step, 100, 10, 0.2) for step in range(begin)] == [rate(step, 200, 10, 0.2) for step in range(begin)]
