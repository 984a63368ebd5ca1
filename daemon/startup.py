"""What can be seen of a configuration before a model is loaded: crierd refuses it for that, crier doctor reports it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.audio.chimes import Chimes
from daemon.config import Config
from daemon.errors import ConfigError
from daemon.inputs.mqtt_credentials import read_password, tls_context
from daemon.reading import open_lexicon

if TYPE_CHECKING:
    from daemon.broker_check import BrokerCheck


def problems(config: Config, credentials: Path | None) -> Iterator[ConfigError]:
    """Whatever keeps crierd from starting, but for the model, the sound device and the control socket.

    Args:
        config: of the daemon.
        credentials: systemd's folder of passwords, if there is one.
    """
    yield from _alone(config)
    checks: list[Callable[[], object]] = [lambda: Chimes(config.chimes), lambda: open_lexicon(config.text)]
    if config.mqtt.enabled:
        checks += [lambda: read_password(config.mqtt, credentials), lambda: tls_context(config.mqtt)]
    if config.wyoming.enabled:
        checks.append(lambda: _check_wyoming(config))
    for check in checks:
        try:
            check()
        except ConfigError as err:
            yield err


def _alone(config: Config) -> Iterator[ConfigError]:
    """Tables that use the broker, without [mqtt]."""
    if config.mqtt.enabled:
        return
    if config.share.role:
        yield ConfigError("[share] role: speech is shared over the broker: set [mqtt] enabled = true")
    if config.hermes.enabled:
        yield ConfigError("[hermes] enabled: its topics are on the broker: set [mqtt] enabled = true")
    if config.duck.topic:
        yield ConfigError("[duck] topic needs [mqtt] enabled = true")


def _check_wyoming(config: Config) -> None:
    try:
        from daemon.inputs.wyoming_server import check_uri  # noqa: PLC0415 (an extra, and slow to import)

        if config.wyoming.zeroconf:
            import daemon.inputs.wyoming_zeroconf  # noqa: F401, PLC0415
    except ModuleNotFoundError as err:
        raise ConfigError(f"[wyoming] needs the package {err.name}: pip install 'crier[wyoming]'") from err
    check_uri(config.wyoming)


def notes(config: Config, broker: "BrokerCheck | None" = None) -> Iterator[str]:
    """What does not work now, and does not keep crierd from starting.

    Args:
        config: of the daemon.
        broker: an attempt to reach the broker that was made; None for none.
    """
    for key, command in (("start", config.duck.start), ("end", config.duck.end)):
        if command and shutil.which(command[0]) is None:
            yield f"[duck] {key}: there is no program {command[0]!r}"
    if broker is not None and broker.trouble:
        yield f"[mqtt] broker {config.mqtt.host}:{config.mqtt.port} is not reached: {broker.trouble}"
    if config.wyoming.enabled and (trouble := _try_wyoming(config)):
        yield f"[wyoming] uri {config.wyoming.uri}: {trouble} (by a daemon that runs?)"


def _try_wyoming(config: Config) -> str:
    try:
        from daemon.inputs.wyoming_server import try_address  # noqa: PLC0415

        return try_address(config.wyoming)
    except (ModuleNotFoundError, ConfigError):  # a problem, and told as one
        return ""
