"""The connection to the broker, kept up: the mqtt thread, which alone touches the connected client.

What is to be published waits with the peer until the broker keeps up, and the wait for a broker can be ended at once.
"""

import logging
import random
import select
import threading
import time
from collections.abc import Callable

from daemon.config_sections import MqttConfig
from daemon.inputs.mqtt_client import MqttClient
from daemon.inputs.mqtt_credentials import tls_context
from daemon.inputs.mqtt_feature import Peer
from daemon.inputs.wakeup import Wakeup
from daemon.log import OnceLog

logger = logging.getLogger(__name__)

_WAIT_S = 1.0
"""The longest wait between two beats."""
_BACKOFF_S = (1.0, 30.0)
_GOODBYE_S = 2.0
_BRIEF_S = 10.0
_MAX_BRIEF = 3
"""After so many connections that lasted no longer, one after the other, somebody else may have the same name."""


class MqttConnection:
    """Connects, and connects again; what crosses the connection is the peer's matter.

    Raises:
        ConfigError: from the constructor, when a TLS file is unusable.
    """

    def __init__(self, config: MqttConfig, peer: Peer, *, password: str | None, beat: Callable[[], None]) -> None:
        self._config = config
        self._peer = peer
        self._password = password
        self._beat = beat
        self._tls = tls_context(config)
        self._log = OnceLog(logger, "mqtt_trouble")
        # All below belong to the mqtt thread; others only read.
        self._mqtt5 = True
        self._client: MqttClient | None = None
        self._connections = 0
        self._attempts = 0
        """In vain, one after the other."""
        self._brief = 0
        """Connections that did not last, one after the other."""
        self._trouble = ""
        self._wakeup = Wakeup()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqtt")

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted the connection."""
        client = self._client
        return client is not None and client.connected

    @property
    def reconnects(self) -> int:
        """How often the connection came back."""
        return max(0, self._connections - 1)

    @property
    def trouble(self) -> str:
        """The last thing that went wrong since the start, empty if nothing did."""
        return self._trouble

    def start(self) -> None:
        """Connect and serve in a thread; a broker that is down is waited for."""
        self._thread.start()

    def close(self) -> None:
        """Let the peer say farewell and disconnect, within about 2 s."""
        self._closing.set()
        self._wakeup.set()
        if self._thread.is_alive():
            self._thread.join(timeout=_GOODBYE_S + 1)
        self._wakeup.close()

    def wake(self) -> None:
        """There is something to publish. Any thread; never waits."""
        self._wakeup.set()

    def _run(self) -> None:
        while not self._closing.is_set():
            began_s, connections, mqtt5 = time.monotonic(), self._connections, self._mqtt5
            client = MqttClient(
                self._config,
                self._peer,
                mqtt5=mqtt5,
                tls=self._tls,
                password=self._password,
                complain=self._complain,
            )
            self._client = client
            try:
                self._serve(client)
            except Exception:
                logger.exception("bug in the mqtt input; connecting again")
            client.connected = False
            self._peer.on_disconnected(list(client.unconfirmed.values()))
            self._judge(time.monotonic() - began_s, connected=self._connections != connections)
            if mqtt5 and client.wants_older:
                logger.info("event=mqtt_downgrade version=3.1.1")
                self._mqtt5 = False
            else:
                self._wait_to_retry()

    def _judge(self, lasted_s: float, *, connected: bool) -> None:
        """Be the more patient, the longer it does not go well."""
        if not connected:
            self._attempts += 1
            return
        self._brief = self._brief + 1 if lasted_s < _BRIEF_S else 0
        self._attempts = max(0, self._brief - _MAX_BRIEF)
        if self._brief >= _MAX_BRIEF and not self._closing.is_set():
            name = self._peer.client_id
            self._complain(f"client {name}", "its connections do not last: is there another speaker with this node?")

    def _wait_to_retry(self) -> None:
        shortest, longest = _BACKOFF_S
        most_s = min(longest, 2.0 ** min(self._attempts + 1, 10))
        end = time.monotonic() + random.uniform(shortest, most_s)  # noqa: S311 jitter
        while self._go_on() and (left := end - time.monotonic()) > 0:
            select.select([self._wakeup], [], [], min(left, _WAIT_S))
            self._wakeup.clear()

    def _go_on(self) -> bool:
        """Show life; returns whether the end has not come."""
        self._beat()
        self._peer.on_beat()
        return not self._closing.is_set()

    def _serve(self, client: MqttClient) -> None:
        """One connection, from the first packet to the last."""
        if not client.open(self._go_on):
            return
        counted = False
        while client.alive and self._go_on():
            client.step(self._wakeup, _WAIT_S)
            if client.connected and not counted:
                counted = True
                self._on_connected()
        if client.connected and self._closing.is_set():
            self._say_goodbye(client)

    def _on_connected(self) -> None:
        self._connections += 1
        self._log.forget(f"broker {self._config.host}:{self._config.port}")
        version, name = "5" if self._mqtt5 else "3.1.1", self._peer.client_id
        logger.info("event=mqtt_connected host=%s version=%s client=%s", self._config.host, version, name)

    def _say_goodbye(self, client: MqttClient) -> None:
        end = time.monotonic() + _GOODBYE_S
        self._peer.farewell()
        while client.alive and not client.publish() and time.monotonic() < end:
            client.step(self._wakeup, 0.1)
        client.disconnect()
        while client.alive and time.monotonic() < end:
            client.step(self._wakeup, 0.1)
        logger.info("event=mqtt_closed")

    def _complain(self, thing: str, trouble: str) -> None:
        self._trouble = f"{thing}: {trouble}"
        self._log.warn(thing, trouble)
