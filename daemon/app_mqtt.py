"""The part of the composition root that needs a broker; imported only where [mqtt] is enabled."""

from collections.abc import Callable

from daemon.config import Config
from daemon.engine.engine import Engine
from daemon.inputs.discovery import Discovery
from daemon.inputs.hermes import Hermes
from daemon.inputs.mqtt import MqttInput
from daemon.inputs.mqtt_feature import Publication
from daemon.inputs.mqtt_stats import Stats
from daemon.inputs.render_player import RenderPlayer
from daemon.inputs.render_share import RenderShare
from daemon.service import Service


def make_renderers(config: Config) -> RenderPlayer | None:
    """Those that make the speech of announcements in place of the bundle here, if [share] says so."""
    return RenderPlayer(config.share, config.mqtt) if config.share.role == "player" else None


def make_mqtt(
    config: Config,
    service: Service,
    engine: Engine,
    renderers: RenderPlayer | None,
    *,
    password: str | None,
    beat: Callable[[], None],
) -> MqttInput:
    """The speaker's topics, and all else that uses the connection to the broker."""
    mqtt = MqttInput(config.mqtt, service, password=password, beat=beat)
    mqtt.add(Stats(config.mqtt, service.stats))
    if config.mqtt.discovery:
        mqtt.add(Discovery(config.mqtt, service))
    if config.hermes.enabled:
        mqtt.add(Hermes(config.hermes, service, node=config.mqtt.node))
    if config.share.role == "renderer":
        mqtt.add(RenderShare(config.share, config.mqtt, service, mqtt.publish, lambda: engine.rtf))
    if renderers is not None:
        renderers.attach(mqtt.publish, lambda: mqtt.connected)
        mqtt.add(renderers)
    return mqtt


def publisher(mqtt: MqttInput) -> Callable[[str, str], bool]:
    """Publishes a payload on a topic; whether that was possible."""
    return lambda topic, payload: mqtt.publish(Publication(topic=topic, payload=payload.encode()))
