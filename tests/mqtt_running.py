"""An MqttInput that runs against a broker and serves a speaker that only remembers, for the integration tests."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from recording_speaker import RecordingSpeaker

from daemon.config_sections import MqttConfig
from daemon.inputs.mqtt import MqttInput
from daemon.inputs.mqtt_feature import Feature


def wait_until(true: Callable[[], object], timeout: float = 15) -> None:
    """Wait until it is so."""
    end = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def running(
    port: int,
    node: str,
    speaker: RecordingSpeaker | None = None,
    *,
    password: str | None = None,
    connected: bool = True,
    beat: Callable[[], None] = lambda: None,
    features: Callable[[MqttConfig, RecordingSpeaker], list[Feature]] = lambda *_: [],
    **config: Any,
) -> Iterator[Any]:
    """A started MqttInput that gets the speaker's events; its ``speaker`` is that one."""
    speaker = speaker or RecordingSpeaker()
    settings = MqttConfig(**{"enabled": True, "host": "127.0.0.1", "port": port, "node": node, **config})
    mqtt: Any = MqttInput(settings, speaker, password=password, beat=beat)
    for feature in features(settings, speaker):
        mqtt.add(feature)
    speaker.listeners.append(mqtt.on_event)
    mqtt.speaker = speaker
    mqtt.start()
    try:
        if connected:
            wait_until(lambda: mqtt.connected)
        yield mqtt
    finally:
        mqtt.close()
    assert not mqtt._connection._thread.is_alive()


def mosquitto_pub(port: int, topic: str, message: str, *options: str) -> None:
    """Publish with mosquitto's own client."""
    command = ["mosquitto_pub", "-p", str(port), "-t", topic, "-m", message, *options]
    subprocess.run(command, check=True, timeout=10)
