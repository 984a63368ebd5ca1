"""Hermes with a real daemon and a real mosquitto."""

import json

import pytest
from broker import Watcher
from daemon_process import WAV_CONFIG, mqtt_section, render, run_daemon
from mqtt_running import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.engine]

FINISHED = "hermes/tts/sayFinished"


@pytest.fixture
def broker(own_broker):
    """A broker of its own: Hermes' topics are everyone's."""
    return own_broker


def say(watcher, text, **fields):
    watcher.publish("hermes/tts/say", json.dumps({"siteId": "kitchen", "text": text, **fields}))


def finished(watcher, request_id):
    """Wait for the end of a request; its payload."""
    return json.loads(watcher.wait(FINISHED, lambda payload: json.loads(payload).get("id") == request_id).payload)


def test_what_is_said_is_heard_and_finished(broker, tmp_path):
    """The speech is in the recording, then comes sayFinished; what is cancelled or muted is finished too, all once."""
    config = WAV_CONFIG + mqtt_section(broker.port) + "[hermes]\nenabled = true\n"
    with run_daemon(tmp_path, config) as daemon, Watcher(broker.port) as watcher:
        client = daemon.client()
        watcher.wait("crier/kitchen/availability", lambda payload: payload == b"online")
        say(watcher, "Dinner is ready.", id="1", sessionId="s")
        assert finished(watcher, "1") == {"siteId": "kitchen", "id": "1", "sessionId": "s"}
        assert contains(daemon.recording(), render("Dinner is ready."))
        say(watcher, "This one is stopped before its end, because nobody wants it any more.", id="2")
        watcher.wait("crier/kitchen/state", lambda payload: json.loads(payload)["state"] == "speaking")
        say(watcher, "waits", id="3")
        wait_until(lambda: client.op("status")["status"]["queue"] == 1)
        client.op("stop")
        client.op("set", mute=True)
        say(watcher, "muted", id="4")
        say(watcher, "", id="5")
        watcher.publish("hermes/tts/say", json.dumps({"siteId": "hall", "text": "not mine", "id": "6"}))
        watcher.publish("rhasspy/tts/getVoices", json.dumps({"siteId": "kitchen", "id": "7"}))
        voices = json.loads(watcher.wait("rhasspy/tts/voices").payload)["voices"]
        assert [voice["voiceId"] for voice in voices] == [v["name"] for v in client.op("voices")["voices"]]
        for number in "2345":
            finished(watcher, number)
        watcher.publish("rhasspy/audioServer/setVolume", json.dumps({"siteId": "kitchen", "volume": 0.2}))
        watcher.wait("crier/kitchen/volume", lambda payload: payload == b"20")
        ids = [json.loads(payload)["id"] for payload in watcher.payloads(FINISHED)]
        assert sorted(ids) == ["1", "2", "3", "4", "5"]
        (error,) = watcher.payloads("hermes/error/tts")
        assert json.loads(error)["context"] == "5"


def test_a_broker_that_is_killed_and_a_daemon_that_ends(broker, tmp_path):
    """What ends while the broker is away, or because the daemon stops, is finished for the client all the same."""
    config = WAV_CONFIG + mqtt_section(broker.port) + "[hermes]\nenabled = true\n"
    with run_daemon(tmp_path, config) as daemon:
        client = daemon.client()
        with Watcher(broker.port) as watcher:
            watcher.wait("crier/kitchen/availability", lambda payload: payload == b"online")
            say(watcher, "While this is spoken, the broker goes away.", id="1")
            watcher.wait("crier/kitchen/event", lambda payload: b"started" in payload)
        broker.kill()
        while not any(event["event_type"] == "finished" for event in client.events):
            client.events.append(client.line())
        broker.start()
        with Watcher(broker.port) as watcher:
            assert finished(watcher, "1") == {"siteId": "kitchen", "id": "1"}
            say(watcher, "And while this is spoken, the daemon is told to end. It does not go on for ever.", id="2")
            watcher.wait("crier/kitchen/event", lambda payload: b"started" in payload)
            daemon.terminate()
            finished(watcher, "2")
            assert len(watcher.payloads(FINISHED)) == 2


def contains(recording, speech):
    """Whether the speech is in the recording, sample by sample."""
    (starts,) = (recording[: len(recording) - len(speech) + 1] == speech[0]).nonzero()
    return any((recording[start : start + len(speech)] == speech).all() for start in starts)
