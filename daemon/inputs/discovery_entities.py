"""The entities that the speaker has in Home Assistant: what can be done with it, set and seen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from daemon.config_sections import MqttConfig
from daemon.values import EventType, SpeakerState

_MISSED_STATS = 3
"""So many messages may stay away before what they told is taken for unknown."""
_MAX_STATE = 255
"""Home Assistant refuses longer states, and longer texts in a text entity."""
_LAST_TEXT = f"{{{{ value_json.last_text | default('', true) | truncate({_MAX_STATE}, true, '…', 0) }}}}"
_DIAGNOSTIC = {"entity_category": "diagnostic"}
_COMMAND = {"retain": False}
_ON_OFF = {"payload_on": "ON", "payload_off": "OFF"}


@dataclass(frozen=True, slots=True)
class Entity:
    """One entity; ``fields`` are Home Assistant's for its platform."""

    platform: str
    key: str
    """Tells it from the others of the device, for good: Home Assistant keeps settings by it."""
    name: str
    fields: dict[str, Any]
    entity: str = ""
    """Its part of the entity's id, where that is not the key."""
    qos: int = field(default=1)

    def to_component(self, *, device: str, speaker: str) -> dict[str, Any]:
        """As the device's payload has it; ``speaker`` begins the ids that automations use."""
        return {
            "platform": self.platform,
            "unique_id": f"{device}_{self.key}",
            "default_entity_id": f"{self.platform}.{speaker}_{self.entity or self.key}",
            "name": self.name,
            **self.fields,
            "qos": self.qos,
        }


def entities(config: MqttConfig, base: str, voices: Sequence[str]) -> Iterator[Entity]:
    """All of a speaker whose topics are below ``base`` and who has these voices."""
    yield from _speech(config, base)
    yield from _settings(base, voices)
    yield from _sensors(base)
    yield from _measurements(config, base)


def _speech(config: MqttConfig, base: str) -> Iterator[Entity]:
    announce = {"icon": "mdi:bullhorn", "command_topic": f"{base}/say", **_COMMAND}
    yield Entity("notify", "announce", "Announce", announce)
    alert = {"icon": "mdi:alert", "command_topic": f"{base}/say/critical", **_COMMAND}
    yield Entity("notify", "alert", "Critical alert", alert)
    text = {"icon": "mdi:message-text", "command_topic": f"{base}/say", "min": 0, "max": _MAX_STATE, "mode": "text"}
    if config.publish_text:
        text |= {"state_topic": f"{base}/state", "value_template": _LAST_TEXT}
    yield Entity("text", "text", "Say", {**text, **_COMMAND}, entity="say")
    stop = {"icon": "mdi:stop", "command_topic": f"{base}/stop", "payload_press": "all", **_COMMAND}
    yield Entity("button", "stop", "Stop", stop)
    yield Entity(
        "button", "repeat", "Repeat last", {"icon": "mdi:repeat", "command_topic": f"{base}/repeat", **_COMMAND}
    )


def _settings(base: str, voices: Sequence[str]) -> Iterator[Entity]:
    def setting(name: str, icon: str, **fields: Any) -> dict[str, Any]:
        topics = {"command_topic": f"{base}/{name}/set", "state_topic": f"{base}/{name}"}
        return {"icon": f"mdi:{icon}", **topics, **fields, **_COMMAND}

    percent = {"min": 0, "max": 100, "step": 1, "mode": "slider", "unit_of_measurement": "%"}
    yield Entity("number", "volume", "Volume", setting("volume", "volume-high", **percent))
    yield Entity("switch", "mute", "Mute", setting("mute", "volume-off", **_ON_OFF))
    config = {"entity_category": "config"}
    yield Entity("select", "voice", "Voice", setting("voice", "account-voice", options=list(voices), **config))
    times = {"min": 0.5, "max": 2, "step": 0.05, "mode": "slider"}
    yield Entity("number", "speed", "Speed", setting("speed", "speedometer", **times, **config))


def _sensors(base: str) -> Iterator[Entity]:
    state = {"state_topic": f"{base}/state"}
    doing = {
        "icon": "mdi:speaker-message",
        "device_class": "enum",
        "options": [str(value) for value in SpeakerState],
        **state,
        "value_template": "{{ value_json.state }}",
        "json_attributes_topic": f"{base}/state",
    }
    yield Entity("sensor", "state", "State", doing)
    speaking = "{{ 'ON' if value_json.state == 'speaking' else 'OFF' }}"
    sound = {"device_class": "sound", **state, "value_template": speaking, **_ON_OFF}
    yield Entity("binary_sensor", "speaking", "Speaking", sound)
    broken = "{{ 'OFF' if value_json.audio_ok else 'ON' }}"
    problem = {"device_class": "problem", **_DIAGNOSTIC, **state, "value_template": broken, **_ON_OFF}
    yield Entity("binary_sensor", "audio_problem", "Audio problem", problem)
    queue = {
        "icon": "mdi:tray-full",
        "state_class": "measurement",
        **_DIAGNOSTIC,
        **state,
        "value_template": "{{ value_json.queue }}",
        "suggested_display_precision": 0,
    }
    yield Entity("sensor", "queue", "Queue length", queue)
    event = {
        "icon": "mdi:bell-ring",
        "event_types": [str(value) for value in EventType],
        "state_topic": f"{base}/event",
    }
    yield Entity("event", "event", "Announcement", event, entity="announcement")


def _measurements(config: MqttConfig, base: str) -> Iterator[Entity]:
    """For those who look for them: switched off at first."""
    common = {
        "state_class": "measurement",
        **_DIAGNOSTIC,
        "enabled_by_default": False,
        "state_topic": f"{base}/stats",
        "expire_after": _MISSED_STATS * config.stats_s,
    }
    rtf = {"icon": "mdi:speedometer", "value_template": "{{ value_json.rtf }}", "suggested_display_precision": 2}
    yield Entity("sensor", "rtf", "Real-time factor", {**common, **rtf}, qos=0)
    ttfa = {"device_class": "duration", "unit_of_measurement": "ms", "value_template": "{{ value_json.ttfa_ms }}"}
    yield Entity("sensor", "ttfa", "First audio latency", {**common, **ttfa}, entity="first_audio_latency", qos=0)
