"""The kitchen speaker: mosquitto_pub to a real broker, crierd, PyAudio, and a recording of what the sound card got."""

import json
import signal
import subprocess

import numpy as np
import pytest
from broker import Watcher, wait_online
from daemon_process import ROOT, mqtt_section, render, run_daemon
from soundcard import FifoCard, contains, start_pulse, wait_until

from daemon.values import SAMPLE_RATE

pytestmark = [pytest.mark.engine, pytest.mark.broker, pytest.mark.audio]

SHORT = "Dinner is ready"
OTHER = "The kettle boils"
LONG = "The front door has been left open. Please close the kitchen window."
EDGE = SAMPLE_RATE * 50 // 1000
NO_CARD = """
pcm.!default { type hw card 99 }
ctl.!default { type hw card 99 }
"""
CONFIG = """
[audio]
sink = "{sink}"
device = "{device}"
device_wait_s = {wait_s}
[socket]
path = "{{socket}}"
"""


@pytest.fixture(scope="module")
def pcm():
    """What the texts sound like."""
    return {text: render(text) for text in (SHORT, OTHER, LONG)}


@pytest.fixture(scope="module")
def pulse(tmp_path_factory):
    """A sound server whose null sink is recorded."""
    with start_pulse(tmp_path_factory.mktemp("pulse")) as pulse:
        pulse.record()
        yield pulse


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory, broker, pulse):
    """The speaker in the kitchen, with the example's configuration and the test's broker."""
    example = (ROOT / "examples" / "kitchen.toml").read_text()
    config = example.replace("[mqtt]", f"[mqtt]\nport = {broker.port}") + '[socket]\npath = "{socket}"\n'
    with run_daemon(tmp_path_factory.mktemp("kitchen"), config, env=pulse.env) as daemon:
        wait_online(broker, "kitchen")
        yield daemon


def speaker(folder, broker, node, *, sink="pyaudio", device="", wait_s=5, env=None):
    """A daemon on the broker, to be entered."""
    config = CONFIG.format(sink=sink, device=device, wait_s=wait_s) + mqtt_section(broker.port, node)
    return run_daemon(folder, config, env=env)


def publish(broker, topic, message):
    """Publish with the command of the README."""
    command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(broker.port), "-t", topic, "-m", message, "-q", "1"]
    subprocess.run(command, check=True, timeout=10)


def wait_event(watcher, node, event_type, request_id=""):
    """Wait for an event of a request (of any, without an id)."""

    def wanted(payload):
        event = json.loads(payload)
        return event["event_type"] == event_type and request_id in ("", event["id"])

    return json.loads(watcher.wait(f"crier/{node}/event", wanted, timeout=30).payload)


def wait_heard(card, pcm, since=0):
    """Wait until the recording holds this, from sample ``since`` on; returns where."""
    return since + wait_until(lambda: contains(card.recording()[since:], pcm) + 1, timeout_s=20) - 1


def assert_whole(card, pcm, since=0):
    """The speech is in the recording bit for bit, its first and last 50 ms too, with silence around it."""
    start = wait_heard(card, pcm, since)
    end = start + len(pcm)
    wait_until(lambda: len(card.recording()) >= end + EDGE)
    recording = card.recording()
    assert np.array_equal(recording[start : start + EDGE], pcm[:EDGE])
    assert np.array_equal(recording[end - EDGE : end], pcm[-EDGE:])
    assert not recording[max(since, start - EDGE) : start].any()
    assert not recording[end : end + EDGE].any()


def test_the_readme_line_is_heard_in_the_kitchen(kitchen, broker, pulse, pcm):
    """mosquitto_pub -t crier/kitchen/say: the null sink gets what crier render makes, and nothing else."""
    since = len(pulse.recording())
    with Watcher(broker.port, "crier/kitchen/#") as watcher:
        publish(broker, "crier/kitchen/say", SHORT)
        event = wait_event(watcher, "kitchen", "finished")
    assert event["audio_s"] == pytest.approx(len(pcm[SHORT]) / SAMPLE_RATE, abs=0.001)
    assert_whole(pulse, pcm[SHORT], since)
    assert np.count_nonzero(pulse.recording()[since:]) == np.count_nonzero(pcm[SHORT])


def test_a_card_without_a_sound_server_gets_it_too(tmp_path, broker, pcm):
    """The same through ALSA's file device, which takes samples in real time."""
    card = FifoCard(tmp_path)
    try:
        with speaker(tmp_path, broker, "hall", env=card.env):
            wait_online(broker, "hall")
            publish(broker, "crier/hall/say", SHORT)
            publish(broker, "crier/all/say", OTHER)
            assert_whole(card, pcm[SHORT])
            assert_whole(card, pcm[OTHER])
    finally:
        card.close()


def test_events_tell_the_story_of_one_id(kitchen, broker):
    """queued, started, finished, in this order, each once, none of them retained; the state goes along."""
    with Watcher(broker.port, "crier/kitchen/#") as watcher:
        publish(broker, "crier/kitchen/say/json", json.dumps({"text": SHORT, "id": "one"}))
        wait_event(watcher, "kitchen", "finished", "one")
        watcher.wait("crier/kitchen/state", lambda payload: json.loads(payload)["last_text"] == SHORT)
        events = [json.loads(payload) for payload in watcher.payloads("crier/kitchen/event")]
        states = [json.loads(payload) for payload in watcher.payloads("crier/kitchen/state")]
    assert [event["event_type"] for event in events if event["id"] == "one"] == ["queued", "started", "finished"]
    (started,) = [event for event in events if event["event_type"] == "started"]
    assert started["ttfa_ms"] > 0
    assert not any(message.retain for message in watcher.messages if message.topic.endswith("/event"))
    busy = [state["state"] for state in states if state["id"] == "one"]
    assert "speaking" in busy
    assert set(busy) <= {"synthesizing", "speaking"}


def test_settings_are_told_retained(kitchen, broker):
    """volume, mute and voice: set over MQTT, they are retained topics and in the retained state."""
    for topic, value in (("volume", "35"), ("mute", "ON"), ("voice", "slt")):
        publish(broker, f"crier/kitchen/{topic}/set", value)
    try:
        wait_until(
            lambda: retained(broker, "kitchen")["volume"] == b"35" and retained(broker, "kitchen")["mute"] == b"ON"
        )
        topics = retained(broker, "kitchen")
        state = json.loads(topics.pop("state"))
        assert topics == {"availability": b"online", "volume": b"35", "mute": b"ON", "voice": b"slt", "speed": b"1"}
        wanted = {
            "state": "muted",
            "id": None,
            "queue": 0,
            "volume": 35,
            "mute": True,
            "voice": "slt",
            "audio_ok": True,
        }
        assert {key: state[key] for key in wanted} == wanted
        with Watcher(broker.port, "crier/kitchen/event") as watcher:
            publish(broker, "crier/kitchen/say", SHORT)
            assert wait_event(watcher, "kitchen", "finished")["reason"] == "muted"
    finally:
        publish(broker, "crier/kitchen/volume/set", "100")
        publish(broker, "crier/kitchen/mute/set", "OFF")


def retained(broker, node):
    """What a newcomer is told: topic below the node's -> payload."""
    with Watcher(broker.port, f"crier/{node}/#") as watcher:
        watcher.wait(f"crier/{node}/speed")
        watcher.publish("crier/nobody/marker")
        return {m.topic.removeprefix(f"crier/{node}/"): bytes(m.payload) for m in watcher.messages if m.retain}


def test_a_broker_killed_in_mid_speech_and_while_idle_is_found_again(kitchen, broker, pulse, pcm):
    """The speech under way is whole, and after each restart the next message is heard."""
    since = len(pulse.recording())
    with Watcher(broker.port, "crier/kitchen/#") as watcher:
        publish(broker, "crier/kitchen/say", LONG)
        wait_event(watcher, "kitchen", "started")
    broker.restart()
    wait_online(broker, "kitchen")
    assert_whole(pulse, pcm[LONG], since)
    publish(broker, "crier/kitchen/say", SHORT)
    assert_whole(pulse, pcm[SHORT], since)
    broker.restart()
    wait_online(broker, "kitchen")
    publish(broker, "crier/kitchen/say", OTHER)
    assert_whole(pulse, pcm[OTHER], since)


def test_the_broker_tells_of_an_end_and_of_a_crash(tmp_path, broker):
    """SIGTERM and kill -9 both leave a retained offline behind."""
    for end in (signal.SIGTERM, signal.SIGKILL):
        with speaker(tmp_path, broker, "bath", sink="null") as daemon:
            wait_online(broker, "bath")
            daemon.process.send_signal(end)
            daemon.process.wait(10)
            with Watcher(broker.port, "crier/bath/availability") as watcher:
                watcher.wait("crier/bath/availability", lambda payload: payload == b"offline")
        assert retained(broker, "bath")["availability"] == b"offline"


def test_a_sound_server_killed_in_mid_speech_is_found_again(tmp_path, broker, pcm):
    """The rest is heard on its return or the request fails as audio; state shows it; the next one is whole."""
    with start_pulse(tmp_path) as pulse, speaker(tmp_path, broker, "study", env=pulse.env) as daemon:
        wait_online(broker, "study")
        client = daemon.client()
        first = client.say(LONG)
        client.wait_for("started", first)
        pulse.kill()
        with Watcher(broker.port, "crier/study/state") as watcher:
            watcher.wait("crier/study/state", lambda payload: json.loads(payload)["audio_ok"] is False)
            second = client.say(SHORT)
            pulse.restart()
            pulse.record()
            watcher.wait("crier/study/state", lambda payload: json.loads(payload)["audio_ok"] is True)
        assert client.wait_for("finished", second)["audio_s"] > 0
        final = [event for event in client.events if event["id"] == first][-1]
        assert (final["event_type"], final.get("reason")) in {("finished", None), ("failed", "audio")}
        assert_whole(pulse, pcm[SHORT])
        if final["event_type"] == "finished":
            assert contains(pulse.recording(), pcm[LONG][-SAMPLE_RATE // 4 :]) >= 0


def test_without_any_sound_device_the_daemon_starts_and_says_so(tmp_path, broker):
    """Requests end as failed, audio; the state is error; SIGTERM ends it with 0."""
    (tmp_path / "asound.conf").write_text(NO_CARD)
    env = {"ALSA_CONFIG_PATH": str(tmp_path / "asound.conf"), "JACK_NO_START_SERVER": "1"}
    with (
        speaker(tmp_path, broker, "attic", device="none", wait_s=0.3, env=env) as daemon,
        Watcher(broker.port, "crier/attic/#") as watcher,
    ):
        wait_online(broker, "attic")
        for request_id in ("a", "b"):
            publish(broker, "crier/attic/say/json", json.dumps({"text": SHORT, "id": request_id}))
            assert wait_event(watcher, "attic", "failed", request_id)["reason"] == "audio"
        watcher.wait(
            "crier/attic/state", lambda payload: b'"state":"error"' in payload and b'"audio_ok":false' in payload
        )
        assert "no sound device none; there is" in daemon.log.read_text()
        assert "Traceback" not in daemon.log.read_text()
        daemon.terminate()
        assert daemon.process.returncode == 0
