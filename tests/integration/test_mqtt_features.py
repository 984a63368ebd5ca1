"""What shares the speaker's connection, against a real mosquitto."""

import json
import time

import pytest
from broker import Watcher, refusing_mqtt5, start_broker
from mqtt_running import mosquitto_pub, running, wait_until

from daemon.inputs.mqtt_feature import Publication
from daemon.inputs.mqtt_stats import Stats
from daemon.values import Event, EventType

pytestmark = pytest.mark.broker


class Remembering:
    """A feature that keeps what it hears and publishes what it is told to."""

    def __init__(self, *topics, answer=lambda _message: ()):
        self.topics = topics
        self.answer = answer
        self.connects = []
        self.messages = []
        self.events = []
        self.ticks = []

    def on_connect(self, *, mqtt5):
        self.connects.append(mqtt5)
        return [Publication(topic="hello", payload=b"mqtt5" if mqtt5 else b"3.1.1")]

    def on_message(self, message):
        self.messages.append(message)
        return self.answer(message)

    def on_event(self, event):
        self.events.append(event)
        return [Publication(topic="ended", payload=event.id.encode())]

    def tick(self, now_s):
        self.ticks.append(now_s)
        return ()


class Broken:
    """A feature that raises wherever it can."""

    topics = ("job/#",)

    def on_connect(self, *, mqtt5):
        raise RuntimeError(mqtt5)

    def on_message(self, message):
        raise RuntimeError(message.topic)

    def on_event(self, event):
        raise RuntimeError(event.id)

    def tick(self, now_s):
        raise RuntimeError(now_s)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_messages_in_and_out(broker, version, caplog):
    """A message with all that it carries, and its answer; with 3.1.1 without the extras; another's bug does no harm."""

    def answer(message):
        topic = message.response_topic or "answers"
        yield Publication(
            topic=topic, payload=b"re", correlation=message.correlation, user={"k": "v"}, expiry_s=9, response_topic="r"
        )

    feature = Remembering("job/#", answer=answer)
    with refusing_mqtt5(broker.port) as old, Watcher(broker.port) as watcher:
        port = broker.port if version == "5" else old
        with running(port, version.replace(".", ""), features=lambda *_: [Broken(), feature]) as mqtt:
            watcher.wait("hello")
            properties = {"ResponseTopic": "here", "CorrelationData": b"\0c", "MessageExpiryInterval": 30}
            watcher.publish("job/1", b"\xff\x00", **properties, UserProperty=[("a", "1"), ("b", "2")])
            reply = watcher.wait("here" if version == "5" else "answers")
            mqtt.on_event(Event(event_type=EventType.QUEUED, id="e"))
            watcher.wait("ended", lambda payload: payload == b"e")
            wait_until(lambda: len(feature.ticks) >= 2)
            assert 0.9 < feature.ticks[1] - feature.ticks[0] < 2.5
    (message,) = feature.messages
    assert (message.topic, message.payload, message.retained) == ("job/1", b"\xff\x00", False)
    assert feature.connects == [version == "5"]
    assert watcher.payloads("hello") == [b"mqtt5" if version == "5" else b"3.1.1"]
    assert caplog.text.count("bug in a feature of the mqtt input") >= 4
    if version == "5":
        assert (message.response_topic, message.correlation, message.mqtt5) == ("here", b"\0c", True)
        assert message.user == {"a": "1", "b": "2"}
        assert 0 < message.expiry_s <= 30
        assert reply.properties.CorrelationData == b"\0c"
        assert (reply.properties.ResponseTopic, reply.properties.UserProperty) == ("r", [("k", "v")])
        assert reply.properties.MessageExpiryInterval <= 9
    else:
        assert (message.response_topic, message.correlation, message.user, message.mqtt5) == (None, None, {}, False)


def test_an_answer_that_the_broker_hangs_up_on(tmp_path):
    """It is tried twice; then the speaker stays connected, and hears what is said."""
    broker = start_broker(tmp_path, extra=["max_packet_size 2000"])
    try:
        with running(broker.port, "kitchen") as mqtt, Watcher(broker.port) as watcher:
            too_long = {"ResponseTopic": "answers", "CorrelationData": b"c" * 1950}
            watcher.publish("crier/kitchen/say", "Hi", **too_long)
            wait_until(lambda: mqtt.reconnects == 2 and mqtt.connected)
            time.sleep(3)
            assert mqtt.reconnects == 2
            watcher.publish("crier/kitchen/say", "Still here")
            mqtt.speaker.wait_said("Still here")
            assert mqtt.speaker.said == ["Hi", "Still here"]
    finally:
        broker.kill()


def test_two_speakers_of_one_name_are_told(broker, caplog):
    """They throw each other out of the broker; the log of each says what that may be."""
    with running(broker.port, "twin"), running(broker.port, "twin", connected=False):
        wait_until(lambda: caplog.text.count("is there another speaker with this node?") == 2, timeout=30)


def test_a_shared_subscription_gives_each_job_to_one(broker, caplog):
    """Two that share take turns, nothing is done twice; a broker of 3.1.1 has no such thing, and the log says so."""
    first, second = Remembering("$share/g/jobs/+"), Remembering("$share/g/jobs/+")
    with (
        running(broker.port, "a", features=lambda *_: [first]),
        running(broker.port, "b", features=lambda *_: [second]),
        Watcher(broker.port, "nothing") as watcher,
    ):
        for number in range(20):
            watcher.publish(f"jobs/{number}")
        wait_until(lambda: len(first.messages) + len(second.messages) == 20)
    assert first.messages
    assert second.messages
    assert {m.topic for m in first.messages + second.messages} == {f"jobs/{number}" for number in range(20)}
    with refusing_mqtt5(broker.port) as old, running(old, "c", features=lambda *_: [Remembering("$share/g/x")]) as mqtt:
        assert "topic $share/g/x: needs a broker that speaks MQTT 5" in caplog.text
        mosquitto_pub(broker.port, "crier/c/say", "still heard")
        mqtt.speaker.wait_said("still heard")


def test_publications_of_other_threads(broker):
    """All arrive in order, a burst too; what would be too much is refused, and so is everything without a broker."""
    with running(broker.port, "burst") as mqtt, Watcher(broker.port, "burst") as watcher:
        taken = [n for n in range(2000) if mqtt.publish(Publication(topic="burst", payload=str(n).encode() * 100))]
        assert len(taken) >= 256
        wait_until(lambda: len(watcher.messages) == len(taken))
        assert watcher.payloads("burst") == [str(n).encode() * 100 for n in taken]
        assert mqtt.publish(Publication(topic="burst/#", payload=b"a topic that is none"))
        assert mqtt.publish(Publication(topic="burst", payload=b"end"))
        watcher.wait("burst", lambda payload: payload == b"end")
    assert not mqtt.publish(Publication(topic="burst", payload=b""))


def test_what_features_say_waits_for_the_broker(tmp_path):
    """What they say while the broker is away is told when it is back; the speaker's own old events are not."""
    broker = start_broker(tmp_path)
    feature = Remembering()
    try:
        with running(broker.port, "wait", features=lambda *_: [feature]) as mqtt:
            broker.kill()
            wait_until(lambda: not mqtt.connected)
            mqtt.on_event(Event(event_type=EventType.FINISHED, id="meanwhile"))
            wait_until(lambda: feature.events)
            assert not mqtt.publish(Publication(topic="x", payload=b""))
            broker.start()
            with Watcher(broker.port) as watcher:
                watcher.wait("ended", lambda payload: payload == b"meanwhile")
                assert not watcher.payloads("crier/wait/event")
                wait_until(lambda: len(feature.connects) == 2)
    finally:
        broker.kill()


def test_stats(broker):
    """Published at once and again, never retained."""
    started = time.monotonic()
    stats = lambda config, _speaker: [Stats(config, lambda: {"rtf": 0.5, "at": time.monotonic() - started})]  # noqa: E731
    with Watcher(broker.port, "crier/stats/#") as watcher, running(broker.port, "stats", features=stats, stats_s=5):
        wait_until(lambda: len(watcher.payloads("crier/stats/stats")) == 2)
        first, second = map(json.loads, watcher.payloads("crier/stats/stats"))
        assert first["rtf"] == 0.5
        assert 4 < second["at"] - first["at"] < 8
        with Watcher(broker.port, "crier/stats/#") as late:
            late.wait("crier/stats/speed")
            assert not late.payloads("crier/stats/stats")
