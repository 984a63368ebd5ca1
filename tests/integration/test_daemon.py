"""The whole daemon in its own process, over its socket, into a paced WAV file: counts samples, not milliseconds."""

import signal
import time

import numpy as np
import pytest
from daemon_process import WAV_CONFIG, render, run_daemon
from soundcard import contains

from daemon.values import SAMPLE_RATE

pytestmark = pytest.mark.engine

SHORT = "Dinner is ready."
LONG = "The front door has been left open. Please close the kitchen window."
SILENT_WITHIN = SAMPLE_RATE * 150 // 1000
"""Samples of the old speech that may follow a stop."""


@pytest.fixture(scope="module")
def pcm():
    """What the texts sound like."""
    return {text: render(text) for text in (SHORT, LONG)}


@pytest.fixture
def crier(tmp_path):
    """A running daemon."""
    with run_daemon(tmp_path) as daemon:
        yield daemon


def speech_end(recording):
    """Index after the last sample that is not silence."""
    heard = np.flatnonzero(recording)
    return int(heard[-1]) + 1 if len(heard) else 0


def wait_samples(crier, count):
    """Wait until the recording is this long; returns its length."""
    end = time.monotonic() + 20
    while len(crier.recording()) < count:
        assert time.monotonic() < end
        time.sleep(0.005)
    return len(crier.recording())


def wait_speech(crier):
    """Wait until speech is in the recording; returns where it begins."""
    end = time.monotonic() + 20
    while not (heard := np.flatnonzero(crier.recording())).size:
        assert time.monotonic() < end
        time.sleep(0.005)
    return int(heard[0])


def test_what_is_said_is_in_the_recording_to_the_bit(crier, pcm):
    """Whole, first and last 50 ms included, with silence before and after, and two requests in order."""
    client = crier.client()
    first, second = client.say(SHORT), client.say(LONG)
    client.wait_for("finished", first)
    done = client.wait_for("finished", second)
    assert done["audio_s"] == pytest.approx(len(pcm[LONG]) / SAMPLE_RATE, abs=0.001)
    recording = crier.recording()
    one, two = contains(recording, pcm[SHORT]), contains(recording, pcm[LONG])
    assert one >= SAMPLE_RATE * 100 // 1000
    assert one + len(pcm[SHORT]) + SAMPLE_RATE * 200 // 1000 <= two
    assert not recording[:one].any()
    kinds = [(event["event_type"], event["id"]) for event in client.events]
    assert kinds.count(("finished", first)) == kinds.count(("started", second)) == 1


def test_a_critical_request_cuts_in_and_the_normal_one_is_replayed(crier, pcm):
    """The old PCM ends within 150 ms, the critical one is whole, and the normal one then comes whole."""
    client = crier.client()
    normal = client.say(LONG)
    start = wait_speech(crier)
    asked_at = wait_samples(crier, start + SAMPLE_RATE)
    critical = client.say(SHORT, priority="critical")
    client.wait_for("finished", normal)
    recording = crier.recording()
    at = contains(recording, pcm[SHORT])
    assert at > 0
    assert speech_end(recording[:at]) <= asked_at + SILENT_WITHIN
    replay = contains(recording[at:], pcm[LONG])
    assert replay > 0
    finals = [e["id"] for e in client.events if e["event_type"] == "finished"]
    assert finals == [critical, normal]
    assert not any(e["event_type"] == "cancelled" for e in client.events)


def test_stop_is_silent_within_150_ms(crier):
    """The speech fades and ends; the event says cancelled, stopped; what waited is gone too."""
    client = crier.client()
    ids = [client.say(LONG), client.say(SHORT)]
    asked_at = wait_samples(crier, wait_speech(crier) + SAMPLE_RATE // 2)
    assert client.op("stop", what="all")["ok"]
    for request_id in ids:
        assert client.wait_for("cancelled", request_id)["reason"] == "stopped"
    time.sleep(0.7)
    assert speech_end(crier.recording()) <= asked_at + SILENT_WITHIN


def test_pause_and_resume_lose_no_sample(crier, pcm):
    """With the silence of the pause taken out, the speech is the rendered one."""
    client = crier.client()
    request_id = client.say(LONG)
    start = wait_speech(crier)
    wait_samples(crier, start + SAMPLE_RATE // 2)
    client.op("pause")
    assert client.op("status")["status"]["state"] == "paused"
    time.sleep(0.5)
    heard = speech_end(crier.recording())
    time.sleep(0.3)
    assert speech_end(crier.recording()) == heard
    client.op("resume")
    client.wait_for("finished", request_id)
    recording, whole = crier.recording(), pcm[LONG]
    at = next(
        n
        for n in range(len(whole))
        if not np.array_equal(recording[start : start + n + 480], whole[_lead(whole) :][: n + 480])
    )
    rest = whole[_lead(whole) + at + 480 :]
    assert contains(recording, rest) > start
    assert speech_end(recording) - start > len(whole) - _lead(whole) - 2000


def _lead(pcm):
    """How many zero samples a rendering begins with."""
    return int(np.flatnonzero(pcm)[0])


def test_mute_speaks_nothing_but_what_is_critical(crier, pcm):
    """Normals end as finished, muted; a critical one is heard."""
    client = crier.client()
    client.op("set", mute=True)
    event = client.wait_for("finished", client.say(LONG))
    assert event["reason"] == "muted"
    client.wait_for("finished", client.say(SHORT, priority="critical"))
    recording = crier.recording()
    assert contains(recording, pcm[SHORT]) >= 0
    assert contains(recording, pcm[LONG]) < 0


def test_text_in_pieces_sounds_as_at_once(crier, pcm):
    """say with more, append, end; speech begins before the text ends."""
    client = crier.client()
    request_id = client.say("The front door has been left op", more=True)
    assert client.op("append", id=request_id, text="en. Please")["ok"]
    client.wait_for("started", request_id)
    assert client.op("append", id=request_id, text=" close the kitchen window.")["ok"]
    assert client.op("end", id=request_id)["ok"]
    client.wait_for("finished", request_id)
    assert contains(crier.recording(), pcm[LONG]) >= 0


def test_volume_mute_and_voice_survive_a_restart(tmp_path):
    """Settings made by hand are there again."""
    with run_daemon(tmp_path) as crier:
        client = crier.client()
        assert client.op("set", volume=35, mute=True, voice="slt")["ok"]
        crier.terminate()
    with run_daemon(tmp_path) as crier:
        status = crier.client().op("status")["status"]
        assert (status["volume"], status["mute"], status["voice"]) == (35, True, "slt")


def test_quieter_is_quieter_and_never_clips(crier, pcm):
    """Volume of one request scales the samples and nothing else."""
    client = crier.client()
    client.wait_for("finished", client.say(SHORT, volume=50))
    peak = np.abs(crier.recording().astype(int)).max()
    assert 0 < peak < 0.7 * np.abs(pcm[SHORT].astype(int)).max()


def test_sigterm_while_speaking_ends_within_two_seconds(crier):
    """Exit code 0, the WAV file is whole, every request has its final event, the socket is gone."""
    client = crier.client()
    ids = [client.say(LONG), client.say(LONG)]
    wait_speech(crier)
    seconds = crier.terminate()
    assert crier.process.returncode == 0
    assert seconds < 2.5  # 2 s of ours, and the interpreter's own end
    for request_id in ids:
        assert client.wait_for("cancelled", request_id)["reason"] == "stopped"
    crier.wait_note("STOPPING=1")
    assert not crier.socket.exists()
    data = crier.wav.read_bytes()
    assert int.from_bytes(data[40:44], "little") == len(data) - 44


def test_sighup_reloads_what_can_be_reloaded(crier):
    """Queue, text, chimes and quiet hours change at once; a broken file, or one that names one, changes nothing;
    the rest is named as needing a restart."""
    before = crier.config.read_text()
    changes = """
[queue]
max_waiting = 1
[text]
max_chars = 300
[chimes.before]
low = "ding"
[quiet]
start = "00:00"
end = "00:00"
volume = 50
[mqtt]
port = 1884
"""
    crier.config.write_text(before + changes)
    crier.process.send_signal(signal.SIGHUP)
    crier.wait_note("READY=1")
    client = crier.client()
    end = time.monotonic() + 10
    while "changes in [mqtt] take effect at the next start" not in crier.log.read_text():
        assert time.monotonic() < end
        time.sleep(0.05)
    client.wait_for("started", client.say(LONG))
    client.say(LONG)  # the one that may wait
    assert client.op("say", text=LONG)["error"]["code"] == "queue_full"
    assert client.op("say", text="a" * 301)["error"]["code"] == "too_long"
    for number, content in enumerate(
        ["[queue]\nmax_waiting = 'many'\n", changes.replace('"ding"', '"dong"'), '[text]\nlexicon = "/no/such.toml"\n'],
        1,
    ):
        crier.config.write_text(before + content if number > 1 else content)
        crier.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 10
        while crier.log.read_text().count("config not reloaded") < number:
            assert time.monotonic() < end
            time.sleep(0.05)
    assert client.op("say", text="a" * 301)["error"]["code"] == "too_long"
    assert client.op("status")["ok"]


def test_the_watchdog_is_fed(tmp_path):
    """With WATCHDOG_USEC set, WATCHDOG=1 comes while idle and while speaking."""
    with run_daemon(tmp_path, env={"WATCHDOG_USEC": "1000000"}) as crier:
        crier.notes.clear()
        crier.wait_note("WATCHDOG=1")
        client = crier.client()
        client.say(LONG)
        crier.notes.clear()
        crier.wait_note("WATCHDOG=1")
        crier.wait_note("STATUS=speaking, 0 waiting")


def test_nothing_is_connected_to_and_nothing_is_left_behind(crier, tmp_path):
    """No network socket is ever open, and nothing but the phrase is written (onnxruntime's telemetry would)."""
    client = crier.client()
    client.wait_for("finished", client.say(SHORT))
    assert {c.family.name for c in crier.info().net_connections("all")} == {"AF_UNIX"}
    files = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert [path.suffix for path in files] == [".phrase"]


def test_idle_costs_next_to_nothing(crier):
    """Processor time of an idle daemon, under 1 % of a core."""
    client = crier.client()
    client.wait_for("finished", client.say(SHORT))
    time.sleep(1.0)
    before, began = sum(crier.info().cpu_times()[:2]), time.monotonic()
    time.sleep(4.0)
    assert (sum(crier.info().cpu_times()[:2]) - before) / (time.monotonic() - began) < 0.01


def test_a_second_daemon_on_the_same_socket_refuses_to_start(crier, tmp_path):
    """One line, exit code 78, and the first goes on."""
    other = tmp_path / "other"
    other.mkdir()
    config = WAV_CONFIG.replace("{socket}", str(crier.socket))
    with run_daemon(other, config, ready=False) as second:
        assert second.process.wait(20) == 78
        assert "in use" in second.log.read_text()
    assert crier.client().op("status")["ok"]
