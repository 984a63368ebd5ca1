"""How well the speaker does, on crier/NODE/stats from time to time."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from daemon.config_sections import MqttConfig
from daemon.inputs.messages import to_json
from daemon.inputs.mqtt_feature import Feature, Publication


class Stats(Feature):
    """Publishes what ``read`` gives: at every connect, and every ``[mqtt] stats_s`` seconds; never retained."""

    def __init__(self, config: MqttConfig, read: Callable[[], Mapping[str, Any]]) -> None:
        self._topic = f"{config.base_topic}/{config.node}/stats"
        self._every_s = config.stats_s
        self._read = read
        self._due_s = 0.0

    def on_connect(self, *, mqtt5: bool) -> Iterable[Publication]:  # noqa: ARG002 (a Feature's)
        """The first."""
        return self._publish(time.monotonic())

    def tick(self, now_s: float) -> Iterable[Publication]:
        """The next, when it is due."""
        return self._publish(now_s) if now_s >= self._due_s else ()

    def _publish(self, now_s: float) -> Iterable[Publication]:
        self._due_s = now_s + self._every_s
        yield Publication(topic=self._topic, payload=to_json(self._read()), qos=0)
