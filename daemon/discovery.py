"""``crier discovery``: what Home Assistant is told of the speaker, and how that is taken back. Needs no daemon."""

import argparse
import json
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from daemon.config import load_config
from daemon.config_sections import EngineConfig, MqttConfig
from daemon.engine.bundle import bundle_search, find_bundle, load_bundle
from daemon.engine.voice_store import VoiceStore
from daemon.engine.voices import Voices
from daemon.errors import UnreachableError
from daemon.inputs.discovery import device_name, device_payload, device_topic
from daemon.inputs.mqtt_connection import MqttConnection
from daemon.inputs.mqtt_credentials import read_password
from daemon.inputs.mqtt_feature import Message, Publication
from daemon.inputs.mqtt_messages import RETAINED
from daemon.places import Places

_CONNECT_S = 10.0
_RETAINED_S = 1.0
"""How long to wait for what the broker has kept of a speaker."""
_POLL_S = 0.02


def run(args: argparse.Namespace, places: Places) -> int:
    """Print the payload, or remove it; returns the exit code.

    Raises:
        SpeechError: a bad configuration, a bundle that does not load, a broker that does not answer or refuses.
    """
    config = load_config(Path(args.config) if args.config else places.config)
    if args.remove:
        _remove(config.mqtt, password=read_password(config.mqtt, places.credentials))
        return 0
    print(device_topic(config.mqtt), file=sys.stderr)
    print(json.dumps(device_payload(config.mqtt, _voices(config.engine, places)), indent=2, ensure_ascii=False))
    return 0


def _voices(config: EngineConfig, places: Places) -> list[str]:
    """The names that the daemon would offer."""
    bundle = load_bundle(find_bundle(config.bundle, bundle_search(config)), verify="size")
    return [voice.name for voice in Voices(bundle.manifest, VoiceStore(places.voices, bundle.manifest.name)).all()]


class _Remover:
    """A peer that reads whether the speaker is there, and takes back what the broker has kept of it."""

    will = None
    wants_retained = True

    def __init__(self, config: MqttConfig) -> None:
        self.client_id = f"crier-discovery-{os.getpid()}"  # not the daemon's, which would lose its connection
        self._base = f"{config.base_topic}/{config.node}"
        self._outgoing: deque[Publication] = deque()
        self.topics: Sequence[str] = [f"{self._base}/availability"]
        self.availability: bytes | None = None
        self.unconfirmed: Sequence[Publication] = ()

    def remove(self, topics: Sequence[str]) -> None:
        """Have the broker forget these."""
        self._outgoing.extend(Publication(topic=topic, payload=b"", retain=True) for topic in topics)

    def on_connected(self, *, mqtt5: bool) -> None:
        """Nothing to say yet."""

    def on_disconnected(self, unconfirmed: Sequence[Publication]) -> None:
        """Remember what may not have been removed."""
        self.unconfirmed = [*unconfirmed, *self._outgoing]

    def on_message(self, message: Message) -> None:
        """What the broker has kept."""
        self.availability = message.payload

    def on_beat(self) -> None:
        """Nothing to do."""

    def next_publication(self) -> Publication | None:
        """The next to be removed."""
        return self._outgoing.popleft() if self._outgoing else None

    def farewell(self) -> None:
        """Nothing more to say."""


def _remove(config: MqttConfig, *, password: str | None) -> None:
    logging.getLogger("daemon").addHandler(logging.NullHandler())  # what is wrong is said once, below
    remover = _Remover(config)
    connection = MqttConnection(config, remover, password=password, beat=lambda: None)
    connection.start()
    try:
        _wait(lambda: connection.connected or connection.trouble, _CONNECT_S)
        if not connection.connected:
            raise UnreachableError(connection.trouble or f"broker {config.host}:{config.port} does not answer")
        _wait(lambda: remover.availability is not None, _RETAINED_S)
        running = remover.availability == b"online"
        kept = [] if running else [f"{config.base_topic}/{config.node}/{name}" for name in RETAINED]
        remover.remove([device_topic(config), *kept])
    finally:
        connection.close()
    if remover.unconfirmed or connection.trouble:
        raise UnreachableError(f"not removed: {connection.trouble or 'the broker does not confirm it'}")
    _report(config, running=running, kept=kept)


def _wait(true: Callable[[], object], timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while not true() and time.monotonic() < end:
        time.sleep(_POLL_S)


def _report(config: MqttConfig, *, running: bool, kept: Sequence[str]) -> None:
    print(f"{device_name(config)}: removed from Home Assistant ({device_topic(config)})")
    if kept:
        names = ", ".join(topic.rpartition("/")[2] for topic in kept)
        print(f"it is not running; the broker has forgotten its {names}")
    if config.discovery:
        running_on = "it is running, and comes back with its next connection or when Home Assistant starts"
        when = running_on if running else "it comes back when it runs again"
        print(f"{when}, unless [mqtt] discovery = false", file=sys.stderr)
