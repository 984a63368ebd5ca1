"""Quiet hours: when they are, and what is heard in them."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from service_scene import CONFIG, open_engine, request, run_service
from soundcard import wait_until

from daemon import desk
from daemon.config_sections import QuietConfig
from daemon.quiet import is_quiet, local_minute
from daemon.values import EventType, Priority, Reason, SettingsChange, SpeakerState

MINUTES = st.integers(0, 1439).map(lambda minute: f"{minute // 60:02}:{minute % 60:02}")


@pytest.fixture(scope="module")
def engine():
    """The starter voice."""
    with open_engine() as opened:
        yield opened


@pytest.fixture
def clock(monkeypatch):
    """Set the clock on the wall."""

    def set_to(minute):
        monkeypatch.setattr(desk, "local_minute", lambda _now: minute)

    set_to("12:00")
    return set_to


@pytest.fixture
def quiet(engine, tmp_path, clock):
    """A service that is silent from 22 to 7."""
    config = CONFIG.model_copy(update={"quiet": QuietConfig(start="22:00", end="07:00")})
    with run_service(engine, tmp_path, config) as made:
        yield made


@pytest.mark.parametrize(
    ("start", "end", "minute", "quiet"),
    [
        ("22:00", "07:00", "21:59", False),
        ("22:00", "07:00", "22:00", True),
        ("22:00", "07:00", "23:59", True),
        ("22:00", "07:00", "00:00", True),
        ("22:00", "07:00", "06:59", True),
        ("22:00", "07:00", "07:00", False),
        ("13:00", "15:00", "12:59", False),
        ("13:00", "15:00", "13:00", True),
        ("13:00", "15:00", "15:00", False),
        ("09:00", "09:00", "03:00", True),
        ("", "", "03:00", False),
    ],
)
def test_the_start_is_quiet_and_the_end_is_not(start, end, minute, quiet):
    """Within a day, across midnight, all day, never."""
    assert is_quiet(QuietConfig(start=start, end=end), minute) is quiet


@given(MINUTES, MINUTES, MINUTES)
def test_two_halves_of_the_day(start, end, minute):
    """Every minute is quiet in the hours from start to end or in those from end to start, never in both."""
    if start != end:
        halves = (QuietConfig(start=start, end=end), QuietConfig(start=end, end=start))
        assert [is_quiet(half, minute) for half in halves].count(True) == 1


@pytest.mark.parametrize(("moment", "shown"), [(1_768_500_000, "19:00"), (1_784_138_400, "20:00")])
def test_the_clock_knows_of_daylight_saving_time(monkeypatch, moment, shown):
    """18:00 UTC on 15 January and on 15 July 2026, in a zone of central Europe."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
        time.tzset()
        assert local_minute(moment) == shown
    time.tzset()


def test_in_quiet_hours_only_critical_is_heard(quiet, clock):
    """Others end as finished, muted, and nothing of them is made; the state says muted."""
    clock("23:00")
    quiet.service.tick()
    assert quiet.service.state().state is SpeakerState.MUTED
    assert not quiet.service.state().mute
    assert quiet.service.status()["quiet"] is True
    quiet.service.say(request())
    done = quiet.final("a")
    assert (done.event_type, done.reason, done.audio_s) == (EventType.FINISHED, Reason.MUTED, 0.0)
    assert quiet.metrics.snapshot()["rtf"]["p50"] is None
    quiet.service.say(request(request_id="b", priority=Priority.CRITICAL))
    assert quiet.final("b").reason is None
    assert quiet.sink.heard().any()


def test_quiet_hours_begin_and_end_by_themselves(quiet, clock):
    """Within a second of tick; whoever comes in time is heard, and who came too early is not heard later."""
    clock("06:59")
    quiet.service.tick()
    quiet.service.say(request(request_id="early"))
    assert quiet.final("early").reason is Reason.MUTED
    clock("07:00")
    quiet.service.tick()
    assert quiet.states[-1].state is SpeakerState.IDLE
    quiet.service.say(request(request_id="late"))
    assert quiet.final("late").reason is None


def test_what_plays_when_they_begin_is_heard_to_its_end(quiet, clock):
    """It is not cut, as muting would; the next one waits for nothing and ends as muted."""
    quiet.sink.gate.clear()
    quiet.service.say(request())
    wait_until(lambda: quiet.service.state().id == "a")
    quiet.service.say(request(request_id="b"))
    clock("22:00")
    quiet.service.tick()
    quiet.sink.gate.set()
    done = quiet.final("a")
    assert (done.event_type, done.reason) == (EventType.FINISHED, None)
    assert done.audio_s > 0.5
    assert quiet.final("b").reason is Reason.MUTED


def test_who_waits_through_a_pause_is_judged_when_it_ends(quiet, clock):
    """As with mute: a pause that outlasts the quiet hours loses nothing."""
    clock("23:00")
    quiet.service.pause()
    quiet.service.say(request())
    quiet.service.tick()
    clock("08:00")
    quiet.service.tick()
    quiet.service.resume()
    assert quiet.final("a").reason is None


def test_mute_and_quiet_hours_are_two_things(quiet, clock):
    """Unmuting does not end the quiet hours, and their end does not unmute."""
    clock("23:00")
    quiet.service.set(SettingsChange(mute=True))
    quiet.service.set(SettingsChange(mute=False))
    quiet.service.say(request())
    assert quiet.final("a").reason is Reason.MUTED
    quiet.service.set(SettingsChange(mute=True))
    clock("08:00")
    quiet.service.tick()
    quiet.service.say(request(request_id="b"))
    assert quiet.final("b").reason is Reason.MUTED


@pytest.mark.parametrize(
    ("fields", "peak"),
    [({}, 0.125), ({"volume": 80}, 0.125), ({"priority": "critical"}, 1), ({"priority": "low", "volume": 30}, 0.027)],
)
def test_others_may_be_spoken_softly(engine, tmp_path, clock, fields, peak):
    """With a volume they are capped to it, whatever they ask for; what is softer already stays as it is."""
    hours = QuietConfig(start="22:00", end="07:00", volume=50)
    clock("12:00")
    with run_service(engine, tmp_path, CONFIG.model_copy(update={"quiet": hours})) as made:
        made.service.say(request())
        made.final("a")
        loud = np.abs(made.sink.heard()).max()
        made.sink.blocks.clear()
        clock("23:00")
        assert made.service.state().state is SpeakerState.IDLE
        made.service.say(request(request_id="b", **fields))
        assert made.final("b").reason is None
        assert np.abs(made.sink.heard()).max() / loud == pytest.approx(peak, rel=0.02)
