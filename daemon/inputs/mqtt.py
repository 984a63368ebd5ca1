"""The MQTT input: paho's only owner, and one thread that alone touches the connected client (PROTOCOL.md).

The thread drives paho's socket itself: no other thread takes paho's locks, events and state wait in bounded places,
and the wait for a broker can be ended at once.
"""

import logging
import random
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from daemon.config_sections import MqttConfig
from daemon.inputs.messages import to_json
from daemon.inputs.mqtt_commands import MqttCommands, OnceLog
from daemon.inputs.mqtt_credentials import tls_context
from daemon.inputs.mqtt_messages import Hints, state_payloads
from daemon.inputs.wakeup import Wakeup
from daemon.ports import Speaker
from daemon.values import Event, State

logger = logging.getLogger(__name__)

_WAIT_S = 1.0
"""The longest wait between two beats."""
_BACKOFF_S = (1.0, 30.0)
_GOODBYE_S = 2.0
_MAX_EVENTS = 200
_MAX_PACKET_BYTES = 4 * 1024 * 1024
"""What a broker may send at all (MQTT 5); above the limit of a message, so that its sender hears of the refusal."""


class MqttInput:
    """Serves ``speaker`` on crier/NODE/ and crier/all/."""

    def __init__(
        self,
        config: MqttConfig,
        speaker: Speaker,
        *,
        password: str | None,
        beat: Callable[[], None],
    ) -> None:
        self._config = config
        self._speaker = speaker
        self._log = OnceLog()
        self._commands = MqttCommands(config, speaker)
        self._password = password
        self._beat = beat
        self._prefix = f"{config.base_topic}/{config.node}/"
        self._broker = f"broker {config.host}:{config.port}"
        self._tls = tls_context(config)
        # All below belong to the mqtt thread, but for events and state, which any thread hands over.
        self._events: deque[Event] = deque(maxlen=_MAX_EVENTS)
        self._states: deque[State] = deque(maxlen=1)
        self._published: dict[str, bytes] = {}
        self._protocol = MQTTProtocolVersion.MQTTv5
        self._connected = False
        self._refused = False
        self._connections = 0
        self._wakeup = Wakeup()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqtt")

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted the connection."""
        return self._connected

    @property
    def reconnects(self) -> int:
        """How often the connection came back."""
        return max(0, self._connections - 1)

    def start(self) -> None:
        """Connect and serve in a thread; a broker that is down is waited for."""
        self._thread.start()

    def close(self) -> None:
        """Say goodbye (availability offline) and disconnect, within about 2 s."""
        self._closing.set()
        self._wakeup.set()
        if self._thread.is_alive():
            self._thread.join(timeout=_GOODBYE_S + 1)
        self._wakeup.close()

    def on_event(self, event: Event) -> None:
        """Publish an event; dropped while there is no broker. Any thread; never waits."""
        self._events.append(event)
        self._wakeup.set()

    def on_state(self, state: State) -> None:
        """Publish the newest state; those that were overtaken are skipped. Any thread; never waits."""
        self._states.append(state)
        self._wakeup.set()

    def _run(self) -> None:
        attempts = 0
        while not self._closing.is_set():
            connections, protocol = self._connections, self._protocol
            try:
                self._connection()
            except Exception:
                logger.exception("bug in the mqtt input; connecting again")
            self._connected = False
            attempts = attempts + 1 if self._connections == connections else 0
            if self._protocol is protocol:  # otherwise the broker wants the other version, at once
                self._wait_to_retry(attempts)

    def _wait_to_retry(self, attempts: int) -> None:
        shortest, longest = _BACKOFF_S
        end = time.monotonic() + random.uniform(shortest, min(longest, 2.0 ** min(attempts + 1, 10)))  # noqa: S311 jitter
        while not self._closing.is_set() and (left := end - time.monotonic()) > 0:
            self._beat()
            select.select([self._wakeup], [], [], min(left, _WAIT_S))
            self._wakeup.clear()
            self._events.clear()

    def _connection(self) -> None:
        """One connection, from the first packet to the last."""
        client = self._new_client()
        self._refused = False
        if not self._open(client):
            return
        while client.socket() is not None and not self._closing.is_set():
            self._beat()
            self._step(client, _WAIT_S)
        if self._connected and self._closing.is_set():
            self._say_goodbye(client)

    def _new_client(self) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{self._config.base_topic.replace('/', '-')}-{self._config.node}",
            protocol=self._protocol,
            reconnect_on_failure=False,
        )
        client.max_queued_messages_set(_MAX_EVENTS)
        client.will_set(self._prefix + "availability", "offline", qos=1, retain=True)
        if self._config.username:
            client.username_pw_set(self._config.username, self._password)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        return client

    def _open(self, client: Client) -> bool:
        """Connect in a helper thread: resolving a name may take longer than the watchdog has patience."""
        properties = None
        if self._protocol is MQTTProtocolVersion.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.MaximumPacketSize = _MAX_PACKET_BYTES
        failures: list[str] = []

        def connect() -> None:
            config = self._config
            try:
                client.connect(config.host, config.port, keepalive=config.keepalive_s, properties=properties)
            except (OSError, ValueError) as err:
                failures.append(str(err))  # the error itself would keep the socket

        attempt = threading.Thread(target=connect, name="mqtt-connect", daemon=True)  # may hang in the resolver
        attempt.start()
        while attempt.is_alive():
            self._beat()
            attempt.join(timeout=_WAIT_S / 2)
            if self._closing.is_set():
                return False
        if failures:
            self._log.warn(self._broker, f"no connection: {failures[0]}")
        return not failures

    def _step(self, client: Client, wait_s: float) -> None:
        """Wait for the socket or for something to publish, and serve both."""
        sock: Any = client.socket()
        pending = sock.pending() if self._tls is not None else 0  # decrypted already: select would not see it
        writers = [sock] if client.want_write() else []
        ready, _, _ = select.select([sock, self._wakeup], writers, [], 0 if pending else wait_s)
        if pending or sock in ready:
            client.loop_read()
        if self._wakeup in ready:
            self._wakeup.clear()
        if self._connected and not client.want_write():
            self._publish_news(client)
        if client.want_write():
            client.loop_write()
        client.loop_misc()

    def _say_goodbye(self, client: Client) -> None:
        end = time.monotonic() + _GOODBYE_S
        self._publish_news(client)
        offline = client.publish(self._prefix + "availability", "offline", qos=1, retain=True)
        while client.socket() is not None and not offline.is_published() and time.monotonic() < end:
            self._step(client, 0.1)
        client.disconnect()
        while client.socket() is not None and client.want_write() and time.monotonic() < end:
            self._step(client, 0.1)
        logger.info("event=mqtt_closed")

    def _publish_news(self, client: Client) -> None:
        while self._events:
            client.publish(self._prefix + "event", to_json(self._events.popleft().to_wire()), qos=1)
        while self._states:
            self._publish_state(client, self._states.popleft())

    def _publish_state(self, client: Client, state: State) -> None:
        """Retained, each topic only when it changed. QoS 0: a later one must never be overtaken by a repeated one."""
        payloads = state_payloads(state, with_text=self._config.publish_text)
        for name, payload in payloads.items():
            if self._published.get(name) != payload:
                self._published[name] = payload
                client.publish(self._prefix + name, payload, retain=True)

    def _publish_state_anew(self, client: Client) -> None:
        self._states.clear()  # older than what the speaker says now
        self._published.clear()
        self._publish_state(client, self._speaker.state())

    def _on_connect(self, client: Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if reason.is_failure:
            self._refused = True
            if self._protocol is MQTTProtocolVersion.MQTTv5 and reason.getName() == "Unsupported protocol version":
                logger.info("event=mqtt_downgrade version=3.1.1")
                self._protocol = MQTTProtocolVersion.MQTTv311
            else:
                self._log.warn(self._broker, f"refused by the broker: {reason} (username {self._config.username!r})")
            return
        sock: Any = client.socket()  # or events wait 40 ms behind an acknowledgement (Nagle and delayed ACK):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections += 1
        self._log.forget(self._broker)
        version = "5" if self._protocol is MQTTProtocolVersion.MQTTv5 else "3.1.1"
        logger.info("event=mqtt_connected host=%s version=%s node=%s", self._config.host, version, self._config.node)
        if self._protocol is MQTTProtocolVersion.MQTTv5:
            options = SubscribeOptions(qos=1, noLocal=True, retainAsPublished=False, retainHandling=2)
            client.subscribe([(topic, options) for topic in self._commands.topics])
        else:
            client.subscribe([(topic, 1) for topic in self._commands.topics])
        client.publish(self._prefix + "availability", "online", retain=True)
        self._publish_state_anew(client)
        self._events.clear()  # nobody is helped by old news
        self._connected = True

    def _on_subscribe(
        self, _client: Client, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        refused = [topic for topic, reason in zip(self._commands.topics, reasons, strict=False) if reason.is_failure]
        if refused:
            logger.warning("event=mqtt_subscribe_refused topics=%s", ",".join(refused))

    def _on_disconnect(self, _client: Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if not self._refused and not self._closing.is_set():
            self._log.warn(self._broker, f"connection lost: {reason}")
        self._connected = False

    def _on_message(self, client: Client, _data: Any, message: MQTTMessage) -> None:
        """Obey one command. A raise would cost the connection."""
        try:
            hints = _hints(message)
            reply = self._commands.obey(message.topic, bytes(message.payload), hints, retained=message.retain)
            if self._commands.is_get(message.topic):
                self._publish_state_anew(client)
            if reply is not None:
                self._reply(client, message, reply)
        except Exception:
            logger.exception("bug in the mqtt input")

    def _reply(self, client: Client, message: MQTTMessage, reply: Mapping[str, Any]) -> None:
        topic = getattr(message.properties, "ResponseTopic", None)
        if not topic or "+" in topic or "#" in topic:
            return
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        correlation = getattr(message.properties, "CorrelationData", None)
        if correlation is not None:
            properties.CorrelationData = correlation
        client.publish(topic, to_json(reply), qos=1, properties=properties)


def _hints(message: MQTTMessage) -> Hints:
    properties = message.properties
    return Hints(
        user=dict(getattr(properties, "UserProperty", ())),
        expiry_s=getattr(properties, "MessageExpiryInterval", None),
    )
