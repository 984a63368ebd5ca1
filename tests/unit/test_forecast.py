"""When speech begins that is made at any speed: never so early that it runs dry, nor later than it must."""

import math

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from playback_rig import BLOCK
from simulated_voice import FRAME_S, forecaster, speak

from daemon.spread import LEAST, RISK, Spread
from daemon.values import SAMPLE_RATE

RATIOS = tuple(np.random.default_rng(1).uniform(0.85, 1.2, 40))
"""Lengths of earlier segments against what was expected."""
PACES = st.floats(0.3, 6.0)
BLOCK_S = BLOCK / SAMPLE_RATE


def steady(pace):
    """A pace that does not change."""
    return lambda _made_s: pace


def text(seconds):
    """One that is expected to last so long."""
    return "x" * round(seconds * 10)


@given(seed=st.integers(0, 10_000), count=st.integers(LEAST, 60), error=st.floats(0.01, 0.5))
def test_the_next_stays_below_what_is_said_of_it(seed, count, error):
    """But for the risk that is stated: asked of 200 sums of a few, after any number of measurements."""
    rng = np.random.default_rng(seed)

    def came(expected):
        return 1.1 * expected + rng.normal() * error * math.sqrt(expected)

    above = 0
    for _ in range(200):
        spread = Spread()
        for _ in range(count):
            expected = rng.uniform(0.5, 6.0)
            spread.add(expected, came(expected))
        parts = rng.uniform(0.5, 6.0, 3)
        above += sum(map(came, parts)) > spread.upper(parts.sum())
    assert above <= 200 * RISK + 4 * math.sqrt(200 * RISK)


def test_a_spread_forgets_what_is_old_and_claims_nothing_from_little():
    """Of ten pairs in a window of five, the first five are as if they had never been."""
    late, fresh = Spread(5), Spread(5)
    for pair in [(1.0, 9.0)] * 5 + [(1.0, 2.0), (2.0, 3.0), (1.0, 1.5), (3.0, 5.0), (1.0, 2.2)]:
        late.add(*pair)
    for pair in [(1.0, 2.0), (2.0, 3.0), (1.0, 1.5), (3.0, 5.0), (1.0, 2.2)]:
        fresh.add(*pair)
    assert late.mean == pytest.approx(fresh.mean)
    assert late.upper(2.0) == pytest.approx(fresh.upper(2.0))
    few = Spread()
    assert few.mean == 1.0
    for _ in range(LEAST - 1):
        few.add(1.0, 1.0)
        assert few.upper(1.0) == math.inf


@settings(max_examples=60)
@given(
    pace=PACES,
    before=st.floats(0.7, 1.4),
    segments=st.lists(st.tuples(st.floats(0.5, 8.0), st.floats(0.85, 1.2)), min_size=1, max_size=5),
    setup_s=st.sampled_from([0.0, 0.01]),
)
@example(pace=1.02, before=0.9, segments=[(8.0, 1.05)] * 5, setup_s=0.01)
def test_speech_of_any_pace_never_runs_dry_and_starts_in_time(pace, before, segments, setup_s):
    """Its length within the margin, whatever is left of it: no sample is missing, and it starts no later than it must,
    but for what that margin takes at that pace, and half a second for the frames that have to be measured."""
    known = forecaster(pace * before, RATIOS)
    for first in range(len(segments)):
        left = segments[first:]
        assume(sum(s * ratio for s, ratio in left) <= known.lengths("a").upper(sum(s for s, _ in left)))
    heard = speak(known, [(text(s), s * ratio) for s, ratio in segments], steady(pace), setup_s=setup_s)
    assert heard.underrun_samples == 0
    expected_s, came_s = sum(s for s, _ in segments), sum(s * ratio for s, ratio in segments)
    margin_s = max(0.0, 1.45 * expected_s - came_s) * max(0.0, pace - 1)
    assert heard.started_s <= heard.earliest_s + margin_s + 0.5 + 6 * pace * FRAME_S


@given(pace=st.floats(1.1, 6.0), ratio=st.floats(0.3, 2.5), seconds=st.floats(1.0, 8.0))
def test_a_voice_that_has_said_nothing_may_speak_as_long_as_the_manifest_lets_it(pace, ratio, seconds):
    """Up to the limit nothing runs dry; what the limit makes it wait for is at most the end of its synthesis."""
    heard = speak(forecaster(pace), [(text(seconds), seconds * ratio)], steady(pace))
    assert heard.underrun_samples == 0
    assert heard.started_s <= heard.made_s + 2 * BLOCK_S


@given(pace=st.floats(1.2, 4.0), slower=st.floats(1.0, 3.0), at=st.floats(0.0, 0.35))
def test_the_start_moves_when_the_machine_gets_slower_before_it(pace, slower, at):
    """A neighbour comes at a time when speech has not begun: it begins later, and does not run dry."""
    known = forecaster(pace, RATIOS)
    total_s = 8.0
    begins_after_s = total_s * (1 - 1 / pace)
    when = at * begins_after_s

    def changing(made_s):
        return pace * slower if made_s >= when else pace

    heard = speak(known, [(text(total_s), total_s)], changing)
    assert heard.underrun_samples == 0


def test_a_start_that_turned_out_too_early_is_one_silence_and_no_stutter():
    """Half a second after the start the machine becomes three times slower: one gap, as long as it must be."""
    pace = 1.3
    known = forecaster(pace, RATIOS)
    total_s = 8.0

    def changing(made_s):
        return pace * 3 if made_s > 4.5 else pace

    heard = speak(known, [(text(total_s), total_s)], changing)
    assert heard.underruns == 1
    missing_s = heard.underrun_samples / SAMPLE_RATE
    assert missing_s == pytest.approx(heard.earliest_s - heard.started_s, rel=0.35)
    assert heard.ended_s == pytest.approx(heard.started_s + total_s + missing_s, abs=0.05)


def test_the_next_utterance_knows_how_wrong_the_last_were():
    """A machine whose speed drops after the start, every time: the first runs dry, later ones start late enough."""
    known = forecaster(1.3, RATIOS)

    def changing(made_s):
        return 1.3 * 1.5 if made_s > 3.0 else 1.3

    dry = [speak(known, [(text(8.0), 8.0)], changing).underrun_samples for _ in range(10)]
    assert dry[0] > 0
    assert dry[-1] == 0


def test_finished_segments_count_with_their_true_length():
    """Of six, the first four are short: speech starts earlier than six of the expected length would let it."""
    pace, known = 2.0, forecaster(2.0, RATIOS)
    usual = speak(known, [(text(4.0), 4.0)] * 6, steady(pace))
    known = forecaster(2.0, RATIOS)
    short = speak(known, [(text(4.0), 2.0)] * 4 + [(text(4.0), 4.0)] * 2, steady(pace))
    assert short.underrun_samples == usual.underrun_samples == 0
    assert short.started_s < usual.started_s - 6


def test_text_that_is_appended_before_the_start_is_waited_for():
    """And what is appended when everything else is made lets it go on."""
    pace, known = 2.0, forecaster(2.0, RATIOS)
    whole = speak(known, [(text(4.0), 4.0), (text(4.0), 4.0)], steady(pace))
    known = forecaster(2.0, RATIOS)
    pieces = speak(known, [(text(4.0), 4.0)], steady(pace), later=[(1.0, [(text(4.0), 4.0)])])
    assert pieces.underrun_samples == 0
    assert pieces.started_s == pytest.approx(whole.started_s, abs=0.3)


def test_a_pause_is_time_to_make_speech_in():
    """Silence of four seconds in the middle is made at once and heard for as long: there is less to wait for."""
    pace = 2.0
    plain = speak(forecaster(pace, RATIOS), [(text(4.0), 4.0), (text(4.0), 4.0)], steady(pace))
    paused = speak(forecaster(pace, RATIOS), [(text(4.0), 4.0), ("4.0", 0.0), (text(4.0), 4.0)], steady(pace))
    assert paused.underrun_samples == 0
    assert paused.started_s < plain.started_s - 3


def test_what_is_critical_is_not_late_for_a_margin():
    """As little held back as its expected length needs, also of a voice of which nothing is known."""
    pace = 2.0
    segments = [(text(4.0), 4.0)]
    critical = speak(forecaster(pace), segments, steady(pace), cautious=False)
    assert critical.underrun_samples == 0
    assert critical.started_s <= critical.earliest_s + 4 * pace * FRAME_S
    assert critical.started_s < speak(forecaster(pace), segments, steady(pace)).started_s - 2


def test_a_full_ring_starts_whatever_is_still_to_come():
    """A text far longer than the ring: it starts when that is full, and goes on after each silence."""
    heard = speak(forecaster(3.0, RATIOS), [(text(10.0), 10.0)] * 4, steady(3.0), capacity_s=10)
    assert heard.started_s == pytest.approx(30.0, abs=0.5)
    assert heard.underruns > 0
    assert heard.ended_s - heard.started_s == pytest.approx(40.0 + heard.underrun_samples / SAMPLE_RATE, abs=0.1)


@given(pace=PACES, seconds=st.lists(st.floats(1.0, 6.0), min_size=1, max_size=4))
def test_the_wait_that_is_told_is_the_wait_that_comes(pace, seconds):
    """Within the margin of the length, for the pace of late."""
    known = forecaster(pace, RATIOS)
    from daemon.values import Segment

    pieces = [known.piece(Segment(text(s), 0), 1.0) for s in seconds]
    told_s = known.wait_s(pieces, "a", cautious=True)
    heard = speak(known, [(text(s), s) for s in seconds], steady(pace))
    assert told_s == pytest.approx(heard.started_s, abs=0.5 + 0.25 * sum(seconds) * max(0.0, pace - 1))
    assert known.audio_s(pieces, "a") == pytest.approx(sum(seconds), rel=0.1)
