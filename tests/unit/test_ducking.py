"""Ducking: who is told what, when, and what becomes of commands and brokers that fail. Commands are real ones."""

import logging
import signal
import tempfile
import time

import pytest
from soundcard import wait_until

from daemon import ducking
from daemon.config_sections import DuckConfig
from daemon.ducking import Ducking, set_role
from daemon.values import SpeakerState, State

IDLE = State(
    state=SpeakerState.IDLE,
    id=None,
    queue=0,
    last_text=None,
    volume=70,
    mute=False,
    voice="slt",
    audio_ok=True,
)


class Rig:
    """A ducking that notes what it tells, by command and by message."""

    def __init__(self, tmp_path, **config):
        self.notes, self.sent, self.online, self.beats = tmp_path / "notes", [], True, 0
        note = {name: ["sh", "-c", f"echo {name} >>{self.notes}"] for name in ("start", "end")}
        config = DuckConfig(**{**note, "topic": "amplifier", "hold_ms": 50, **config})
        self.ducking = Ducking(config, self._publish, self._beat, marker=tmp_path / "ducked")
        self.ducking.start()

    def _publish(self, topic, payload):
        if self.online:
            self.sent.append((topic, payload))
        return self.online

    def _beat(self):
        self.beats += 1

    def set(self, state):
        """The speaker's state is now this one."""
        self.ducking.on_state(IDLE.model_copy(update={"state": SpeakerState(state)}))

    def ran(self):
        """Which commands have run."""
        return self.notes.read_text().split() if self.notes.exists() else []


@pytest.fixture
def make(tmp_path):
    """Make rigs; they are closed at the end."""
    rigs = []

    def make_one(**config):
        rigs.append(Rig(tmp_path, **config))
        return rigs[-1]

    yield make_one
    for rig in rigs:
        rig.ducking.close()


def test_start_is_told_when_speech_is_made_and_end_after_it(make):
    """Once each, by command and by message, however the state changes in between."""
    rig = make()
    rig.set("idle")
    assert rig.ran() == []
    for state in ("synthesizing", "speaking"):
        rig.set(state)
    wait_until(lambda: rig.sent == [("amplifier", "ON")])
    assert rig.ran() == ["start"]
    rig.set("idle")
    wait_until(lambda: len(rig.sent) == 2)
    assert (rig.ran(), rig.sent[1]) == (["start", "end"], ("amplifier", "OFF"))


def test_a_short_silence_between_two_announcements_is_not_told(make):
    """The end waits for hold_ms after the last of them."""
    rig = make(hold_ms=400)
    for state in ("speaking", "idle", "synthesizing", "speaking", "idle"):
        rig.set(state)
        time.sleep(0.05)
    began = time.monotonic()
    wait_until(lambda: rig.sent == [("amplifier", "ON"), ("amplifier", "OFF")])
    assert time.monotonic() - began > 0.25
    assert rig.ran() == ["start", "end"]


def test_a_pause_ends_it_and_resume_begins_it_again(make):
    """What is paused is silent."""
    rig = make()
    for state, sent in (("speaking", 1), ("paused", 2), ("speaking", 3)):
        rig.set(state)
        wait_until(lambda sent=sent: len(rig.sent) == sent)
    assert [payload for _, payload in rig.sent] == ["ON", "OFF", "ON"]


def test_closing_tells_the_end_at_once_if_the_start_was_told(make):
    """No hold then; and nothing at all where nothing was said."""
    spoke, silent = make(hold_ms=60_000), make(topic="other")
    spoke.set("speaking")
    wait_until(lambda: spoke.sent)
    for rig in (spoke, silent):
        rig.ducking.close()
    assert spoke.sent == [("amplifier", "ON"), ("amplifier", "OFF")]
    assert silent.sent == []
    assert spoke.ran() == ["start", "end"]


def test_a_failing_command_is_logged_once_and_the_message_still_goes_out(make, caplog):
    """With its exit code and the first line that it wrote, not at every announcement."""
    rig = make(start=["sh", "-c", "echo no mixer >&2; echo more >&2; exit 3"], end=["/no/such/program"])
    for _ in range(2):
        count = len(rig.sent)
        rig.set("speaking")
        wait_until(lambda count=count: len(rig.sent) == count + 1)
        rig.set("idle")
        wait_until(lambda count=count: len(rig.sent) == count + 2)
    assert [record.getMessage() for record in caplog.records] == [
        "duck: sh failed with 3: no mixer",
        "duck: /no/such/program does not run: No such file or directory",
    ]


def test_a_command_that_hangs_is_killed_with_its_children(make, monkeypatch, caplog):
    """It delays neither on_state nor, for longer than its limit, the end."""
    monkeypatch.setattr(ducking, "COMMAND_S", 0.3)
    rig = make(start=["sh", "-c", "sleep 60; true"])
    rig.set("speaking")
    time.sleep(0.1)
    began = time.monotonic()
    rig.set("idle")
    assert time.monotonic() - began < 0.1
    wait_until(lambda: len(rig.sent) == 2)
    assert rig.ran() == ["end"]
    assert "sh does not end and was killed" in caplog.text


def test_a_command_takes_the_signals_that_this_process_blocks(make, tmp_path):
    """What it starts can be ended like any other program, by timeout(1) too."""
    ended = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ended)
    try:
        rig = make(start=["cp", "/proc/self/status", str(tmp_path / "status")])
        rig.set("speaking")
        wait_until(lambda: rig.sent)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    (blocked,) = (line for line in (tmp_path / "status").read_text().splitlines() if line.startswith("SigBlk"))
    assert int(blocked.split()[1], 16) == 0


def test_commands_need_no_room_on_a_disk(make, monkeypatch):
    """They run where no folder for temporary files can be written to."""
    monkeypatch.setattr(tempfile, "tempdir", "/no/such/folder")
    rig = make()
    rig.set("speaking")
    wait_until(lambda: rig.sent)
    assert rig.ran() == ["start"]


def test_a_command_may_leave_a_process_behind(make):
    """It is not waited for, although it holds the command's output."""
    rig = make(start=["sh", "-c", "sleep 20 & exit 0"])
    began = time.monotonic()
    rig.set("speaking")
    wait_until(lambda: rig.sent)
    assert time.monotonic() - began < 3


def test_what_the_broker_does_not_take_is_sent_later(make, monkeypatch, caplog):
    """The newest message only, so that nothing stays turned down when the connection is back."""
    monkeypatch.setattr(ducking, "_WAIT_S", 0.05)
    rig = make(start=[], end=[])
    rig.online = False
    with caplog.at_level(logging.WARNING):
        rig.set("speaking")
        wait_until(lambda: "could not be sent" in caplog.text)
        rig.set("idle")
        time.sleep(0.3)
    rig.online = True
    wait_until(lambda: rig.sent)
    time.sleep(0.15)
    assert rig.sent == [("amplifier", "OFF")]


def test_idling_beats_and_costs_nothing(make):
    """A turn a second."""
    rig = make()
    used = time.process_time()
    time.sleep(1.2)
    assert 1 <= rig.beats <= 3
    assert time.process_time() - used < 0.1


def test_the_role_is_told_to_sound_servers_unless_the_user_has_done_so():
    """In the environment of this process; without a role nothing is set."""
    environ = {"PIPEWIRE_ALSA": "{ node.name=hall }"}
    set_role("", environ)
    assert len(environ) == 1
    set_role("announce", environ)
    assert environ == {"PIPEWIRE_ALSA": "{ node.name=hall }", "PULSE_PROP_media.role": "announce"}
    fresh = {}
    set_role("announce", fresh)
    assert fresh["PIPEWIRE_ALSA"] == "{ media.role=announce }"


def test_the_end_that_a_crash_left_owing_is_told_at_the_next_start(make, tmp_path):
    """Music is not left turned down for good; after an end that was told there is nothing to tell."""
    rig = make()
    rig.set("speaking")
    wait_until(lambda: rig.ran() == ["start"])
    assert (tmp_path / "ducked").exists()  # as after kill -9
    again = make()
    wait_until(lambda: again.sent == [("amplifier", "OFF")])
    assert again.ran() == ["start", "end"]
    assert not (tmp_path / "ducked").exists()
    third = make()
    time.sleep(0.1)
    assert third.sent == []
