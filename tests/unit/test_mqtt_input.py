"""What the MQTT input has to publish, and in which order, whatever becomes of the connection."""

import json

import pytest
from recording_speaker import RecordingSpeaker

from daemon.config_sections import MqttConfig
from daemon.inputs.mqtt import MqttInput
from daemon.inputs.mqtt_feature import Message, Publication


@pytest.fixture
def mqtt():
    """The input of the speaker "kitchen", without a connection."""
    speaker = RecordingSpeaker()
    mqtt = MqttInput(MqttConfig(node="kitchen"), speaker, password=None, beat=lambda: None)
    mqtt.speaker = speaker
    yield mqtt
    mqtt.close()


def publications(mqtt, most=100_000):
    """What would be published now."""
    return [item for _, item in zip(range(most), iter(mqtt.next_publication, None), strict=False)]


def answers(mqtt, *names):
    """Have requests answered on topics of these names."""
    for name in names:
        mqtt.on_message(Message(topic="crier/kitchen/say", payload=b"Hi", retained=False, response_topic=name))


def test_what_was_under_way_comes_first_again(mqtt):
    """After a broken connection all is published in the order in which it was said, and what is retained is not."""
    answers(mqtt, "a", "b", "c", "d")
    under_way = [*publications(mqtt, 2), Publication(topic="crier/kitchen/state", payload=b"old", retain=True)]
    mqtt.on_disconnected(under_way)
    assert [item.topic for item in publications(mqtt)] == ["a", "b", "c", "d"]


def test_what_breaks_connections_is_given_up(mqtt):
    """A publication that was under way when the connection broke, twice, is not tried again; what waited is."""
    answers(mqtt, "a", "b")
    mqtt.on_disconnected(publications(mqtt, 1))
    mqtt.on_disconnected(publications(mqtt, 1))
    assert [item.topic for item in publications(mqtt)] == ["b"]


def test_a_flood_of_gets_is_answered_with_the_newest_state(mqtt):
    """However slowly the broker takes it: the state at the end is that on the broker."""
    for number in range(300):
        mqtt.speaker.last_text = str(number)
        mqtt.on_message(Message(topic="crier/kitchen/get", payload=b"", retained=False))
    states = [item for item in publications(mqtt) if item.topic == "crier/kitchen/state"]
    assert json.loads(states[-1].payload)["last_text"] == "299"


@pytest.mark.parametrize(
    ("topic", "answered"),
    [
        ("answers/1", True),
        ("crier/answers/doorbell", True),
        ("crier/kitchen/test", True),
        ("answers/+", False),
        ("#", False),
        ("crier/kitchen/say", False),
        ("crier/all/stop", False),
        ("crier/den/volume/set", False),
    ],
)
def test_an_answer_is_never_a_command(mqtt, topic, answered):
    """Another speaker would obey it, and whoever asked might not be allowed to command that one."""
    answers(mqtt, topic)
    assert mqtt.speaker.said == ["Hi"]
    assert [item.topic for item in publications(mqtt)] == [topic] * answered
