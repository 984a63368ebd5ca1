"""How long a text may take to say is measured, and what it was measured on keeps it."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import ModelError
from training import limits
from training.speech import Utterance
from training.text import encode

ONE = Utterance("a", "words", "train", 0, 0, 1920, 0, 1, ())


def utterances(lengths, pace, rng):
    """Texts of these lengths, said in ``pace`` seconds a character and a second of silence, more or less."""
    return [
        dataclasses.replace(
            ONE, text="a" * length, num_frames=int((length * pace * rng.uniform(0.7, 1.4) + 0.3) * 12.5) + 1
        )
        for length in lengths
    ]


@given(
    lengths=st.lists(st.integers(1, 120), min_size=1, max_size=60), pace=st.floats(0.03, 0.2), seed=st.integers(0, 9)
)
def test_what_was_measured_keeps_the_limits(lengths, pace, seed):
    """No utterance would have been ended early or cut, and the longest has room in the context."""
    spoken = utterances(lengths, pace, np.random.default_rng(seed))
    found = limits.measure(spoken)
    for item in spoken:
        tokens = len(encode(item.text, 0))
        expected_s = tokens * found.seconds_per_token
        assert tokens <= found.max_text_tokens
        assert tokens + item.num_frames <= found.context
        assert found.min_ratio * expected_s <= item.num_frames / 12.5 + 1e-9
        assert item.num_frames / 12.5 <= found.max_ratio * expected_s + found.slack_s


def test_one_odd_recording_in_many_does_not_count():
    """A file with a minute of silence does not let every text run on for a minute."""
    rng = np.random.default_rng(1)
    spoken = utterances(rng.integers(1, 90, 3000), 0.06, rng)
    usual = limits.measure(spoken)
    odd = limits.measure([*spoken, dataclasses.replace(ONE, num_frames=750)])
    assert (odd.max_ratio, odd.slack_s) == pytest.approx((usual.max_ratio, usual.slack_s), rel=0.2)


def test_a_slow_speaker_of_few_recordings_is_not_cut():
    """Thirty recordings of somebody who takes twice the time, among thousands of others."""
    rng = np.random.default_rng(2)
    slow = [dataclasses.replace(one, speaker=1) for one in utterances(rng.integers(30, 90, 30), 0.12, rng)]
    found = limits.measure([*utterances(rng.integers(1, 90, 3000), 0.06, rng), *slow])
    for item in slow:
        expected_s = len(encode(item.text, 1)) * found.seconds_per_token
        assert item.num_frames / 12.5 <= found.max_ratio * expected_s + found.slack_s


def test_nothing_to_measure_is_said():
    """Not a division by nothing."""
    with pytest.raises(ModelError, match="no utterances"):
        limits.measure([])
