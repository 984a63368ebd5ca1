"""Whether the broker takes a connection as [mqtt] has it: a real one, with its user and its TLS, and gone at once."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from daemon.config_sections import MqttConfig
from daemon.errors import ConfigError
from daemon.inputs.mqtt_client import MqttClient
from daemon.inputs.mqtt_credentials import read_password, tls_context
from daemon.inputs.mqtt_feature import Message, Publication
from daemon.inputs.wakeup import Wakeup

_NUMBER = re.compile(r"^\[Errno -?\d+\] ")
BROKER_S = 2.0
"""How long a broker has to take a connection."""


class BrokerCheck:
    """One attempt; a ``Peer`` that subscribes to nothing and says nothing.

    Its name is no speaker's: a broker lets go of an older connection of the same name.
    """

    will: Publication | None = None
    wants_retained = False
    topics: Sequence[str] = ()

    def __init__(self, config: MqttConfig, credentials: Path | None) -> None:
        self._config = config
        self._credentials = credentials
        self.client_id = f"crier-doctor-{os.getpid()}"
        self.trouble = f"no answer within {BROKER_S:.0f} s"
        """Why there is no connection; empty when there was one."""
        self.version = ""
        """The MQTT that was spoken."""

    def run(self) -> "BrokerCheck":
        """Connect, with 3.1.1 where the broker knows no other, and disconnect."""
        try:
            password, tls = read_password(self._config, self._credentials), tls_context(self._config)
        except ConfigError as err:
            self.trouble = str(err)
            return self
        until = monotonic() + BROKER_S
        for mqtt5 in (True, False):
            client = MqttClient(
                self._config, self, mqtt5=mqtt5, tls=tls, password=password, complain=self._on_complaint
            )
            self._try(client, until)
            if not client.wants_older:
                break
        return self

    def _try(self, client: MqttClient, until: float) -> None:
        wakeup = Wakeup()
        try:
            if not client.open(lambda: monotonic() < until):
                return
            while client.alive and not client.connected and not client.refused and (left := until - monotonic()) > 0:
                client.step(wakeup, left)
            if client.connected:
                client.disconnect()
                client.step(wakeup, 0.0)
        finally:
            wakeup.close()

    def _on_complaint(self, _thing: str, trouble: str) -> None:
        if not self.version:
            self.trouble = _NUMBER.sub("", trouble.removeprefix("no connection: "))

    # Peer

    def on_connected(self, *, mqtt5: bool) -> None:
        """It does."""
        self.trouble, self.version = "", "5" if mqtt5 else "3.1.1"

    def on_disconnected(self, unconfirmed: Sequence[Publication]) -> None:
        """Nothing was published."""

    def on_message(self, message: Message) -> None:
        """Nothing was asked for."""

    def on_beat(self) -> None:
        """Nobody waits for it."""

    def next_publication(self) -> Publication | None:
        """None."""
        return None

    def farewell(self) -> None:
        """Nothing to say."""
