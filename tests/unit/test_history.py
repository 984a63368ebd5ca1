"""What was said lately, for requests that go on from it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from daemon.engine.history import History
from daemon.engine.prompt_segment import PromptSegment


def segment(num_frames):
    """A segment of so many frames."""
    return PromptSegment([1, 2], np.zeros((num_frames, 3), np.int32))


@given(said=st.lists(st.lists(st.integers(1, 4), max_size=3), max_size=12))
def test_the_latest_requests_are_kept_within_the_bound(said):
    """The newest requests whose frames fit together are there, whole; the others are gone."""
    history = History(12)
    for number, frames in enumerate(said):
        history.add(str(number), [segment(count) for count in frames])
    total = 0
    for number, frames in reversed(list(enumerate(said))):
        total += sum(frames)
        kept = [found.num_frames for found in history.get(str(number))]
        assert kept == (frames if total <= 12 else [])


def test_of_a_request_that_alone_is_too_long_the_end_is_kept():
    """Its first segments leave, and everything before it."""
    history = History(12)
    history.add("before", [segment(1)])
    history.add("long", [segment(count) for count in (5, 1, 4, 8)])
    assert [found.num_frames for found in history.get("long")] == [4, 8]
    assert history.get("before") == []


def test_a_request_that_is_said_again_counts_once():
    """The newer speech takes the place of the older."""
    history = History(12)
    for frames in (8, 10, 3):
        history.add("x", [segment(frames)])
    history.add("y", [segment(9)])
    assert [history.get(name)[0].num_frames for name in "xy"] == [3, 9]


def test_an_unknown_request_was_not_said():
    """Nothing is known of it."""
    assert History(10).get("x") == []
