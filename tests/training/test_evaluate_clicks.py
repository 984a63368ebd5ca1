"""Clicks at the edges of frames are found, and none in speech that has none."""

import numpy as np
import pytest
from flite_speech import heard, say

from training import clicks

FRAME = 1920
TEXT = "the washing machine in the basement has finished."


def edges(pcm):
    return np.arange(FRAME, len(pcm), FRAME)


def with_jumps(pcm, places, share):
    """A jump of a share of the local RMS at each place, which dies away in 10 ms."""
    out = pcm.astype(np.float64)
    fall = np.exp(-np.arange(600) / 120)
    for place in places:
        rms = np.sqrt((pcm[place - 240 : place + 240].astype(np.float64) ** 2).mean())
        end = min(len(out), place + len(fall))
        out[place:end] += share * rms * fall[: end - place]
    return out.clip(-32768, 32767).astype(np.int16)


@pytest.mark.parametrize("voice", ["slt", "rms"])
def test_none_in_the_teachers_own_speech(voice):
    """Neither where frames would meet nor elsewhere."""
    pcm = say(TEXT, voice=voice)
    found = clicks.find(pcm, edges(pcm))
    assert (found.at_edges, found.elsewhere) == (0, 0)
    assert found.num_edges == len(edges(pcm))
    assert found.num_edges + found.num_elsewhere == len(pcm) - 1


def test_planted_clicks_are_found():
    """Of the jumps of as much as the local RMS, more than a third stand out, and the largest far."""
    pcm = say(TEXT)
    first, last = heard(pcm)
    places = [place for place in edges(pcm) if first < place < last]
    found = clicks.find(with_jumps(pcm, places, 1.0), edges(pcm))
    assert found.at_edges > len(places) / 3
    assert found.largest > clicks.CLICK
    assert found.elsewhere == 0


def test_clicks_within_frames_are_counted_apart():
    """They are the sound's, not the frames'."""
    pcm = say(TEXT)
    first, last = heard(pcm)
    places = [place + FRAME // 2 for place in edges(pcm) if first < place < last - FRAME]
    found = clicks.find(with_jumps(pcm, places, 1.0), edges(pcm))
    assert found.at_edges == 0
    assert found.elsewhere > len(places) / 3


@pytest.mark.parametrize("count", [1, 2, 481])
def test_short_and_silent_sounds_have_none(count):
    """However few samples there are."""
    assert clicks.find(np.zeros(count, np.int16), np.array([1, 5000])).at_edges == 0


def test_every_step_is_compared_with_all_within_20_ms():
    """The rolling maximum is that of a slow and simple reckoning."""
    rng = np.random.default_rng(0)
    pcm = (rng.normal(0, 3000, 3000) * rng.random(3000) ** 4).astype(np.int16)
    steps = np.abs(np.diff(pcm.astype(np.float64)))
    slow = []
    for at, step in enumerate(steps):
        before = steps[max(0, at - 480) : max(0, at - 2)]
        after = steps[at + 3 : at + 481]
        slow.append(step / max(65, before.max(initial=0), after.max(initial=0)))
    np.testing.assert_allclose(clicks._outstanding(pcm), slow, rtol=1e-6)
