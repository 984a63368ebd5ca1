"""What Home Assistant is told of the speaker: its rules for a device, which it enforces by silence."""

import json
import re
from itertools import chain

import pytest
from recording_speaker import RecordingSpeaker

from daemon.config_sections import MqttConfig
from daemon.inputs.discovery import Discovery, device_id, device_name, device_payload, device_topic
from daemon.inputs.mqtt_feature import Message
from daemon.inputs.mqtt_messages import COMMANDS, RETAINED
from daemon.values import Event, EventType, SpeakerState, VoiceInfo

ROOT = {
    *("device", "components", "origin", "availability", "availability_mode", "payload_available"),
    "payload_not_available",
}
"""The keys of ours that are allowed at the root; any other there, and Home Assistant refuses the whole payload."""
DEVICE = {"identifiers", "name", "manufacturer", "model", "sw_version", "suggested_area"}
COMMON = {"platform", "unique_id", "default_entity_id", "name", "icon", "qos"}
COMMAND = {"command_topic", "retain"}
SENSOR = {
    *("state_topic", "value_template", "device_class", "state_class", "entity_category", "enabled_by_default"),
    *("expire_after", "suggested_display_precision", "unit_of_measurement", "options", "json_attributes_topic"),
}
STATE = {"state_topic", "value_template"}
PLATFORMS = {
    "notify": COMMAND,
    "text": {*COMMAND, *STATE, "min", "max", "mode"},
    "button": {*COMMAND, "payload_press"},
    "number": {*COMMAND, "state_topic", "min", "max", "step", "mode", "unit_of_measurement", "entity_category"},
    "switch": {*COMMAND, "state_topic", "payload_on", "payload_off"},
    "select": {*COMMAND, "state_topic", "options", "entity_category"},
    "sensor": SENSOR,
    "binary_sensor": {*STATE, "device_class", "entity_category", "payload_on", "payload_off"},
    "event": {"event_types", "state_topic"},
}
"""What each platform of a payload that Home Assistant 2026.2 accepted has."""
CONFIGS = [
    MqttConfig(),
    MqttConfig(node="kitchen", name="Kitchen speaker", area="Kitchen", publish_text=False),
    MqttConfig(base_topic="home/ground floor/Büro", node="a-B_9", discovery_prefix="ha/mqtt", stats_s=3600),
    MqttConfig(node="___", name="台所のスピーカー"),
    MqttConfig(base_topic="/".join(["long"] * 60), node="n" * 64, name="x" * 100),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.node[:8])
def test_the_device_keeps_home_assistants_rules(config):
    """No key that is not allowed, every id new and of allowed letters, every topic one that the speaker serves."""
    payload = json.loads(json.dumps(device_payload(config, ["slt", "Büro"])))
    assert set(payload) == ROOT
    assert set(payload["device"]) <= DEVICE
    assert payload["device"].get("suggested_area", "") == config.area
    assert set(payload["origin"]) == {"name", "sw_version"}
    *folders, device, object_id, last = device_topic(config).split("/")
    assert "/".join(folders) == config.discovery_prefix
    assert (device, last) == ("device", "config")
    assert re.fullmatch(r"[a-zA-Z0-9_-]+", object_id)
    assert payload["device"]["identifiers"] == [object_id]
    components = payload["components"].values()
    assert len(payload["components"]) == 16
    for component in components:
        assert COMMON - {"icon"} <= set(component)
        assert set(component) <= COMMON | PLATFORMS[component["platform"]]
        assert re.fullmatch(component["platform"] + r"\.[a-z0-9]+(_[a-z0-9]+)*", component["default_entity_id"])
        assert len(component["unique_id"]) <= 255
        assert len(component["default_entity_id"]) <= 255
        assert component["name"]
    assert len({component["unique_id"] for component in components}) == len(components)
    assert len({component["default_entity_id"] for component in components}) == len(components)
    base = f"{config.base_topic}/{config.node}/"
    used = {
        key: {c[key].removeprefix(base) for c in components if key in c} for key in ("command_topic", "state_topic")
    }
    assert used["command_topic"] <= set(COMMANDS)
    assert used["state_topic"] <= {*RETAINED, "event", "stats"}
    assert payload["availability"] == [{"topic": base + "availability"}]


def test_entities_tell_what_the_speaker_says():
    """Options and event types are those of the wire; a text is at most what Home Assistant takes."""
    components = device_payload(MqttConfig(node="kitchen"), ["slt", "rms"])["components"]
    assert components["voice"]["options"] == ["slt", "rms"]
    assert components["state"]["options"] == list(SpeakerState)
    assert components["event"]["event_types"] == list(EventType)
    assert components["text"]["max"] == 255
    assert "truncate(255, true" in components["text"]["value_template"]
    assert components["stop"]["payload_press"] == "all"
    assert components["rtf"]["expire_after"] == 180
    assert (components["speed"]["min"], components["speed"]["max"]) == (0.5, 2)
    assert components["alert"]["command_topic"] == "crier/kitchen/say/critical"
    assert components["announce"]["default_entity_id"] == "notify.kitchen_speaker_announce"
    hidden = device_payload(MqttConfig(node="kitchen", publish_text=False), ["slt"])["components"]["text"]
    assert not {"state_topic", "value_template"} & set(hidden)


def test_no_two_speakers_are_one_device():
    """Whatever base topics and nodes are made of, ids differ; the plain ones stay readable."""
    bases = ["crier", "crier/a", "crier-a", "crier_a", "a/crier", "a_b", "a/b", "ä", "ö"]
    configs = [MqttConfig(base_topic=base, node=node) for base in bases for node in ("a", "b", "a_b", "a-b", "A")]
    assert len({device_id(config) for config in configs}) == len(configs)
    assert device_id(MqttConfig(node="kitchen")) == "crier_kitchen"
    unique = [c["unique_id"] for config in configs for c in device_payload(config, ["slt"])["components"].values()]
    assert len(set(unique)) == len(unique)


@pytest.mark.parametrize(
    ("node", "name"),
    [
        ("kitchen", "Kitchen speaker"),
        ("living-room", "Living room speaker"),
        ("speaker", "Speaker"),
        ("kitchen_speaker", "Kitchen speaker"),
        ("DG2", "DG2 speaker"),
        ("___", "___ speaker"),
    ],
)
def test_a_speaker_is_called_after_its_node(node, name):
    """Words, once "speaker", and never nothing; unless it has been given a name."""
    assert device_name(MqttConfig(node=node)) == name
    assert device_name(MqttConfig(node=node, name="Radio")) == "Radio"


def test_it_is_published_when_it_should_be():
    """At a connect, at Home Assistant's birth, when voices have changed: and at no other time."""
    speaker = RecordingSpeaker()
    discovery = Discovery(MqttConfig(node="kitchen", discovery_prefix="ha"), speaker)
    assert list(discovery.topics) == ["ha/status"]
    (first,) = discovery.on_connect(mqtt5=True)
    assert (first.topic, first.retain, first.qos) == ("ha/device/crier_kitchen/config", True, 1)
    assert json.loads(first.payload)["components"]["voice"]["options"] == ["starter"]
    birth = Message(topic="ha/status", payload=b"online", retained=False)
    assert list(discovery.on_message(birth)) == [first]
    quiet = chain(
        discovery.on_message(Message(topic="ha/status", payload=b"offline", retained=False)),
        discovery.on_message(Message(topic="ha/status", payload=b"online", retained=True)),
        discovery.on_event(Event(event_type=EventType.QUEUED, id="a")),
        discovery.tick(1.0),
    )
    assert not list(quiet)
    anna = VoiceInfo(name="anna", description="", language="en", default=False)
    speaker.voices = lambda: [anna]
    (changed,) = discovery.tick(2.0)
    assert json.loads(changed.payload)["components"]["voice"]["options"] == ["anna"]
    assert not list(discovery.tick(3.0))
