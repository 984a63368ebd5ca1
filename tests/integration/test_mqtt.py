"""The MQTT input against a real mosquitto."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from broker import Watcher, free_port, refusing_mqtt5, start_broker
from mqtt_running import mosquitto_pub, running, wait_until
from recording_speaker import RecordingSpeaker

from daemon.values import Event, EventType, Priority, Reason

REPOSITORY = Path(__file__).parents[2]
CRASHING = """
from daemon.config_sections import MqttConfig
from daemon.inputs.mqtt import MqttInput
from recording_speaker import RecordingSpeaker

config = MqttConfig(host="127.0.0.1", port={port}, node="{node}")
speaker = RecordingSpeaker()
MqttInput(config, speaker, password=None, beat=lambda: None).start()
"""
pytestmark = pytest.mark.broker


@pytest.fixture
def node(request):
    """A node of its own for each test: what is retained stays with it."""
    return "".join(letter if letter.isalnum() else "_" for letter in request.node.name)[-60:]


@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
def test_a_published_text_is_spoken(broker, node, version):
    """Plain text from either protocol version reaches the speaker, to this node and to all."""
    with running(broker.port, node) as mqtt:
        mosquitto_pub(broker.port, f"crier/{node}/say", "Dinner is ready", "-V", version)
        mosquitto_pub(broker.port, "crier/all/say/critical", "Fire", "-V", version)
        assert mqtt.speaker.wait_said("Dinner is ready").priority is Priority.NORMAL
        assert mqtt.speaker.wait_said("Fire").priority is Priority.CRITICAL


def test_availability_state_and_events(broker, node):
    """online and the state are retained, events are not; close says offline."""
    base = f"crier/{node}"
    with running(broker.port, node) as mqtt, Watcher(broker.port) as early:
        early.wait(f"{base}/state")
        mosquitto_pub(broker.port, f"{base}/say/json", '{"text": "Hi", "id": "x"}')
        event = early.wait(f"{base}/event")
        assert json.loads(event.payload) == {"event_type": "queued", "id": "x"}
        mqtt.on_state(mqtt.speaker.state().model_copy(update={"volume": 20, "mute": True}))
        early.wait(f"{base}/volume", lambda payload: payload == b"20")
        with Watcher(broker.port, f"{base}/#") as late:
            late.wait(f"{base}/speed")
            state = json.loads(late.wait(f"{base}/state").payload)
            late.wait(f"{base}/voice")
            plain = {m.topic.removeprefix(base): bytes(m.payload) for m in late.messages if m.topic != f"{base}/state"}
            assert all(message.retain for message in late.messages)
    assert plain == {"/availability": b"online", "/volume": b"20", "/mute": b"ON", "/voice": b"starter", "/speed": b"1"}
    assert state["last_text"] == "Hi"
    assert state["volume"] == 20
    with Watcher(broker.port, f"{base}/#") as after:
        assert after.wait(f"{base}/availability").payload == b"offline"


def test_spoken_text_can_be_kept_off_the_broker(broker, node):
    """publish_text = false leaves last_text null in the state."""
    speaker = RecordingSpeaker()
    speaker.last_text = "private"
    with (
        running(broker.port, node, speaker, publish_text=False),
        Watcher(broker.port, f"crier/{node}/state") as watcher,
    ):
        state = watcher.wait(f"crier/{node}/state")
        assert json.loads(state.payload)["last_text"] is None


def test_retained_commands_are_never_obeyed(broker, node):
    """What was retained before the connection is dropped, with 5 and with 3.1.1; a live one is spoken once."""
    with refusing_mqtt5(broker.port) as old, Watcher(broker.port, "nothing") as watcher:
        watcher.publish(f"crier/{node}/say", "stale", retain=True)
        watcher.publish(f"crier/{node}/stop", "all", retain=True)
        for port in (broker.port, old):
            with running(port, node) as mqtt:
                watcher.publish(f"crier/{node}/say", "live", retain=True)
                mqtt.speaker.wait_said("live")
                watcher.publish(f"crier/{node}/pause")
                mqtt.speaker.wait("pause")
                assert mqtt.speaker.said == ["live"]
                assert not any(call[0] == "stop" for call in mqtt.speaker.calls)
            watcher.publish(f"crier/{node}/say", "stale", retain=True)
        assert ("reject", Reason.RETAINED, None) in mqtt.speaker.calls  # 3.1.1 delivers it, marked
        watcher.publish(f"crier/{node}/say", retain=True)


def test_a_broker_of_3_1_1_only_is_served(broker, node):
    """Refused MQTT 5, the input comes back with 3.1.1 by itself."""
    with refusing_mqtt5(broker.port) as old, running(old, node) as mqtt, Watcher(broker.port) as watcher:
        watcher.publish(f"crier/{node}/say", "Hello")
        mqtt.speaker.wait_said("Hello")
        watcher.publish(f"crier/{node}/volume/set", "+5")
        mqtt.speaker.wait("set")


@pytest.mark.parametrize(("version", "to"), [("5", "node"), ("5", "all"), ("3.1.1", "node"), ("3.1.1", "all")])
def test_commands_reach_the_speaker(broker, node, version, to):
    """Every command topic does its part, the node's own and the ones for all, with either version."""
    with contextlib.ExitStack() as stack:
        port = broker.port if version == "5" else stack.enter_context(refusing_mqtt5(broker.port))
        mqtt = stack.enter_context(running(port, node))
        watcher = stack.enter_context(Watcher(broker.port))
        base = f"crier/{node if to == 'node' else 'all'}"
        for topic, payload in [
            ("say", "Hi"),
            ("say/low", "Low"),
            ("stop", "PRESS"),
            ("stop", "current"),
            ("stop", "an-id"),
            ("pause", ""),
            ("resume", ""),
            ("repeat", "PRESS"),
            ("volume/set", "35"),
            ("mute/set", "ON"),
            ("voice/set", "starter"),
            ("speed/set", "1.25"),
            ("stop", ""),
        ]:
            watcher.publish(f"{base}/{topic}", payload)
        wait_until(lambda: len([call for call in mqtt.speaker.calls if call[0] == "stop"]) == 4)
        names = [call[0] for call in mqtt.speaker.calls]
        expected = ["say"] * 2 + ["stop"] * 3 + ["pause", "resume", "repeat"] + ["set"] * 4 + ["stop"]
        assert names == expected
        assert [call[1] for call in mqtt.speaker.calls if call[0] == "stop"] == ["all", "current", "an-id", "all"]
        changes = [call[1].model_dump(exclude_none=True) for call in mqtt.speaker.calls if call[0] == "set"]
        assert changes == [{"volume": 35}, {"mute": True}, {"voice": "starter"}, {"speed": 1.25}]
        before = len(watcher.payloads(f"crier/{node}/state"))
        watcher.publish(f"{base}/get")
        wait_until(lambda: len(watcher.payloads(f"crier/{node}/state")) > before)


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        ("say", b"\xff\xfe\xfd", Reason.BAD_JSON),
        ("say", b"x" * 1_000_000, Reason.TOO_LONG),
        ("say", b"x" * 2001, Reason.TOO_LONG),
        ("say", b"   ", Reason.EMPTY),
        ("say", b'{"txt": "never read aloud"}', Reason.BAD_JSON),
        ("say", b"{never read aloud}", Reason.BAD_JSON),
        ("say/json", b"not json", Reason.BAD_JSON),
        ("say/critical", b'{"text": 5}', Reason.BAD_JSON),
    ],
)
def test_bad_requests_are_rejected_and_the_next_is_heard(broker, node, topic, payload, reason):
    """Each gives one rejected event and no speech; the input goes on."""
    with running(broker.port, node) as mqtt, Watcher(broker.port, "nothing") as watcher:
        watcher.publish(f"crier/{node}/{topic}", payload)
        mqtt.speaker.wait("reject", reason)
        watcher.publish(f"crier/{node}/volume/set", b"\xff")
        watcher.publish(f"crier/{node}/say", b"")
        watcher.publish(f"crier/{node}/say", b"clear_notification")
        watcher.publish(f"crier/{node}/say", b"bug")  # raises inside the speaker
        watcher.publish(f"crier/{node}/say", b"next")
        mqtt.speaker.wait_said("next")
        assert mqtt.speaker.said == ["next"]
        assert mqtt.reconnects == 0


def test_mqtt5_response_topic_and_properties(broker, node):
    """The reply comes with its correlation data; expiry caps the TTL; user properties serve plain text."""
    with running(broker.port, node) as mqtt, Watcher(broker.port, "reply/#") as watcher:
        watcher.publish(
            f"crier/{node}/say",
            "Hello",
            ResponseTopic="reply/here",
            CorrelationData=b"c0ffee",
            MessageExpiryInterval=20,
            UserProperty=[("id", "mine"), ("priority", "critical"), ("voice", "starter"), ("other", "x")],
        )
        reply = watcher.wait("reply/here")
        assert json.loads(reply.payload) == {"ok": True, "id": "mine", "queue": 0}
        assert reply.properties.CorrelationData == b"c0ffee"
        assert not reply.retain
        request = mqtt.speaker.wait_said("Hello")
        assert (request.id, request.priority) == ("mine", Priority.CRITICAL)
        assert request.ttl_s is None
        expiry_s = next(call[3] for call in mqtt.speaker.calls if call[0] == "say" and call[1] is request)
        assert 0 < expiry_s <= 20
        watcher.publish(f"crier/{node}/say", "{", ResponseTopic="reply/bad")
        assert json.loads(watcher.wait("reply/bad").payload)["error"]["code"] == "bad_json"
        watcher.publish(f"crier/{node}/get", ResponseTopic="reply/get")
        assert json.loads(watcher.wait("reply/get").payload)["status"]["volume"] == 70


def test_the_broker_may_go_and_come_back(tmp_path, node):
    """Down at the start, then killed and restarted three times: it is heard again every time."""
    broker = start_broker(tmp_path, start=False)
    beats = threading.Semaphore(0)
    with running(broker.port, node, connected=False, beat=beats.release) as mqtt:
        for _ in range(3):
            assert beats.acquire(timeout=5)
        assert not mqtt.connected
        try:
            for number in range(4):
                broker.restart()
                wait_until(lambda number=number: mqtt.connected and mqtt.reconnects == number)
                mosquitto_pub(broker.port, f"crier/{node}/say", f"again {number}", "-q", "1")
                mqtt.speaker.wait_said(f"again {number}")
                broker.kill()
                mqtt.on_event(Event(event_type=EventType.FINISHED, id="unheard"))
                wait_until(lambda: not mqtt.connected)
        finally:
            broker.kill()


def test_the_last_will_tells_of_a_crash(broker, node):
    """Killed without a goodbye, the broker publishes offline, retained."""
    command = [sys.executable, "-c", CRASHING.format(port=broker.port, node=node)]
    folders = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    with (
        Watcher(broker.port, f"crier/{node}/availability") as watcher,
        subprocess.Popen(command, env={**os.environ, "PYTHONPATH": folders}) as process,
    ):
        watcher.wait(f"crier/{node}/availability", lambda payload: payload == b"online")
        process.kill()
        watcher.wait(f"crier/{node}/availability", lambda payload: payload == b"offline")


def test_closing_does_not_wait_for_a_dead_broker(node):
    """A broker that never answers does not hold up the end of the daemon."""
    with running(free_port(), node, connected=False) as mqtt:
        pass
    assert not mqtt.connected
