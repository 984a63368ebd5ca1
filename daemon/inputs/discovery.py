"""Home Assistant's discovery: the speaker appears there as one device, by itself.

What Home Assistant takes and what it silently refuses: its developers' page on MQTT discovery, and its own schemas.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

from daemon.config_sections import MqttConfig
from daemon.inputs.discovery_entities import entities
from daemon.inputs.messages import to_json
from daemon.inputs.mqtt_feature import Feature, Message, Publication
from daemon.ports import Speaker

_NO_SLUG = re.compile(r"[^a-z0-9]+")
_SLUG_CHARS = 40
_PLAIN_BASE = MqttConfig().base_topic


class Discovery(Feature):
    """Publishes the device at every connect, when Home Assistant comes up, and when the voices have changed."""

    def __init__(self, config: MqttConfig, speaker: Speaker) -> None:
        self._config = config
        self._speaker = speaker
        self._voices: list[str] = []
        self._birth = f"{config.discovery_prefix}/status"
        self.topics: Sequence[str] = (self._birth,)

    def on_connect(self, *, mqtt5: bool) -> Iterable[Publication]:  # noqa: ARG002 (a Feature's)
        """The device."""
        self._voices = self._read_voices()
        yield self._publication()

    def on_message(self, message: Message) -> Iterable[Publication]:
        """Home Assistant has come up; a retained message comes right after a connect and tells nothing new."""
        if message.payload.strip() == b"online" and not message.retained:
            yield self._publication()

    def tick(self, now_s: float) -> Iterable[Publication]:  # noqa: ARG002 (a Feature's)
        """The device anew, when voices have come or gone."""
        voices = self._read_voices()
        if voices != self._voices:
            self._voices = voices
            yield self._publication()

    def _read_voices(self) -> list[str]:
        return [voice.name for voice in self._speaker.voices()]

    def _publication(self) -> Publication:
        payload = to_json(device_payload(self._config, self._voices))
        return Publication(topic=device_topic(self._config), payload=payload, retain=True)


def device_id(config: MqttConfig) -> str:
    """What the device is known by: another for each base_topic and node, in the letters that Home Assistant allows."""
    if config.base_topic == _PLAIN_BASE:
        return f"{_PLAIN_BASE}_{config.node}"
    # Only the hash tells crier/a_b from crier_a/b.
    digest = hashlib.sha256(config.base_topic.encode()).hexdigest()[:8]
    return f"{_slug(config.base_topic) or _PLAIN_BASE}_{digest}_{config.node}"


def device_topic(config: MqttConfig) -> str:
    """Where Home Assistant looks for the device."""
    return f"{config.discovery_prefix}/device/{device_id(config)}/config"


def device_name(config: MqttConfig) -> str:
    """What people call it."""
    if config.name:
        return config.name
    words = " ".join(re.split(r"[-_]+", config.node)).strip() or config.node
    named = words if words.lower().endswith("speaker") else f"{words} speaker"
    return named[:1].upper() + named[1:]


def device_payload(config: MqttConfig, voices: Sequence[str]) -> dict[str, Any]:
    """The speaker as one device with its entities; ``voices`` are the names that can be chosen."""
    base = f"{config.base_topic}/{config.node}"
    crier = {"name": "Crier", "sw_version": version("crier")}
    device = {
        "identifiers": [device_id(config)],
        "name": device_name(config),
        "manufacturer": crier["name"],
        "model": "Offline announcement speaker",
        "sw_version": crier["sw_version"],
    }
    if config.area:
        device["suggested_area"] = config.area
    speaker = _slug(device_name(config)) or _slug(config.node) or _PLAIN_BASE
    # At the root nothing else is allowed, or all of it is refused; and qos would not be inherited from there.
    return {
        "device": device,
        "origin": crier,
        "availability": [{"topic": f"{base}/availability"}],
        "availability_mode": "latest",
        "payload_available": "online",
        "payload_not_available": "offline",
        "components": {
            entity.key: entity.to_component(device=device_id(config), speaker=speaker)
            for entity in entities(config, base, voices)
        },
    }


def _slug(text: str) -> str:
    """Lower-case letters without accents and digits, joined by ``_``; empty where the script has no such letters."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return _NO_SLUG.sub("_", plain)[:_SLUG_CHARS].strip("_")
