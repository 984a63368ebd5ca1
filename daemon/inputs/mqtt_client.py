"""One connection to the broker, from its first packet to its last: paho's only owner.

Paho starts no thread here: whoever steps it waits for its socket, and no other thread takes its locks.
"""

import logging
import select
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

from paho.mqtt.client import Client, MQTTMessage, topic_matches_sub
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from daemon.config_sections import MqttConfig
from daemon.inputs.mqtt_feature import Message, Peer, Publication
from daemon.inputs.wakeup import Wakeup

logger = logging.getLogger(__name__)

_CONNECT_BEAT_S = 0.5
_MAX_UNCONFIRMED = 16
"""Publications of QoS 1 under way; below the 20 that brokers and paho take at once."""
_MAX_PACKET_BYTES = 4 * 1024 * 1024
"""What a broker may send at all (MQTT 5); above the limit of a message, so that its sender hears of the refusal."""
_SHARED = "$share/"
_NO_SUBSCRIBERS = 16
"""The reason code of MQTT 5; brokers may keep it to themselves."""


class MqttClient:
    """A connection of ``peer``. Used by one thread; others may read ``connected``.

    Args:
        config: the broker.
        peer: whose messages they are.
        mqtt5: else 3.1.1.
        tls: None for none.
        password: for the configuration's username.
        complain: called with a thing and what is wrong with it.
    """

    def __init__(
        self,
        config: MqttConfig,
        peer: Peer,
        *,
        mqtt5: bool,
        tls: ssl.SSLContext | None,
        password: str | None,
        complain: Callable[[str, str], None],
    ) -> None:
        self._config = config
        self._peer = peer
        self._mqtt5 = mqtt5
        self._tls = tls
        self._complain = complain
        self._broker = f"broker {config.host}:{config.port}"
        self.connected = False
        self.refused = False
        self.wants_older = False
        """The broker refused MQTT 5."""
        self.unconfirmed: dict[int, Publication] = {}
        self._subscribed: list[str] = []
        self._client = self._new_client(password)

    def _new_client(self, password: str | None) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._peer.client_id,
            protocol=MQTTProtocolVersion.MQTTv5 if self._mqtt5 else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        if (will := self._peer.will) is not None:
            client.will_set(will.topic, will.payload, qos=will.qos, retain=will.retain)
        if self._config.username:
            client.username_pw_set(self._config.username, password)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        return client

    @property
    def alive(self) -> bool:
        """Whether there is a connection, be it accepted or not."""
        return self._client.socket() is not None

    def open(self, go_on: Callable[[], bool]) -> bool:
        """Connect in a helper thread, asking ``go_on`` twice a second; returns whether that went well.

        A thread, because resolving a name may take longer than the watchdog has patience.
        """
        properties = _properties(PacketTypes.CONNECT, MaximumPacketSize=_MAX_PACKET_BYTES) if self._mqtt5 else None
        failures: list[str] = []

        def connect() -> None:
            config = self._config
            try:
                self._client.connect(config.host, config.port, keepalive=config.keepalive_s, properties=properties)
            except (OSError, ValueError) as err:
                failures.append(str(err))  # the error itself would keep the socket

        attempt = threading.Thread(target=connect, name="mqtt-connect", daemon=True)  # may hang in the resolver
        attempt.start()
        while attempt.is_alive():
            if not go_on():
                return False
            attempt.join(timeout=_CONNECT_BEAT_S)
        if failures:
            self._complain(self._broker, f"no connection: {failures[0]}")
        return not failures

    def step(self, wakeup: Wakeup, wait_s: float) -> None:
        """Publish what waits, then wait for the socket or for more to publish, and serve it."""
        client = self._client
        if self.connected:
            self.publish()
        sock: Any = client.socket()
        if sock is None:
            return
        pending = sock.pending() if self._tls is not None else 0  # decrypted already: select would not see it
        writers = [sock] if client.want_write() else []
        ready, _, _ = select.select([sock, wakeup], writers, [], 0 if pending else wait_s)
        if pending or sock in ready:
            client.loop_read()
        if wakeup in ready:
            wakeup.clear()
        if client.want_write():
            client.loop_write()
        client.loop_misc()

    def publish(self) -> bool:
        """Publish what waits, as fast as the broker takes it; returns whether it has everything."""
        while not self._client.want_write() and len(self.unconfirmed) < _MAX_UNCONFIRMED:
            publication = self._peer.next_publication()
            if publication is None:
                return not self.unconfirmed
            self._send(publication)
        return False

    def disconnect(self) -> None:
        """In good order: the last will is forgotten."""
        self.connected = False
        self._client.disconnect()

    def _send(self, publication: Publication) -> None:
        properties = None
        if self._mqtt5:
            properties = _properties(
                PacketTypes.PUBLISH,
                ResponseTopic=publication.response_topic,
                CorrelationData=publication.correlation,
                MessageExpiryInterval=publication.expiry_s,
                UserProperty=list(publication.user.items()) or None,
            )
        topic, qos = publication.topic, publication.qos
        try:
            sent = self._client.publish(topic, publication.payload, qos, publication.retain, properties)
        except ValueError as err:  # a topic that is none
            self._complain(f"topic {topic!r}", f"cannot be published on: {err}")
            return
        if qos:
            self.unconfirmed[sent.mid] = publication

    def _on_connect(self, client: Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if reason.is_failure:
            self.refused = True
            self.wants_older = self._mqtt5 and reason.getName() == "Unsupported protocol version"
            if not self.wants_older:
                trouble = f"refused by the broker: {reason} (username {self._config.username!r})"
                self._complain(self._broker, trouble)
            return
        sock: Any = client.socket()  # or events wait 40 ms behind an acknowledgement (Nagle and delayed ACK):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._subscribe()
        self.connected = True
        self._peer.on_connected(mqtt5=self._mqtt5)

    def _subscribe(self) -> None:
        topics = list(self._peer.topics)
        if not self._mqtt5:
            for topic in [topic for topic in topics if topic.startswith(_SHARED)]:
                self._complain(f"topic {topic}", "needs a broker that speaks MQTT 5")
                topics.remove(topic)
        self._subscribed = topics
        if not topics:
            return
        if self._mqtt5:
            self._client.subscribe([(topic, self._options(topic)) for topic in topics])
        else:
            self._client.subscribe([(topic, 1) for topic in topics])

    def _options(self, topic: str) -> SubscribeOptions:
        return SubscribeOptions(
            qos=1,
            noLocal=not topic.startswith(_SHARED),  # which MQTT 5 forbids for these
            retainAsPublished=False,
            retainHandling=0 if self._peer.wants_retained else 2,
        )

    def _on_subscribe(
        self, _client: Client, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        """What is refused is asked for again at the next connect."""
        for topic, reason in zip(self._subscribed, reasons, strict=False):
            if reason.is_failure:
                self._complain(f"topic {topic}", f"subscription refused by the broker: {reason}")

    def _on_publish(self, _client: Client, _data: Any, mid: int, reason: ReasonCode, _properties: Any) -> None:
        """Reasons come with MQTT 5 alone."""
        publication = self.unconfirmed.pop(mid, None)
        if publication is None:
            return
        if reason.is_failure:
            self._complain(f"topic {publication.topic}", f"publication refused by the broker: {reason}")
        elif publication.on_unheard is not None and reason.value == _NO_SUBSCRIBERS:
            publication.on_unheard()

    def _on_disconnect(self, _client: Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if not self.refused and reason.is_failure:
            self._complain(self._broker, f"connection lost: {reason}")
        self.connected = False

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        """A raise would cost the connection."""
        try:
            self._peer.on_message(_read(message, mqtt5=self._mqtt5))
        except Exception:
            logger.exception("bug in the mqtt input")


def matches(topic: str, subscription: str) -> bool:
    """Whether a message of ``topic`` may have come because of ``subscription``."""
    if subscription.startswith(_SHARED):
        subscription = subscription.split("/", 2)[2]
    return topic_matches_sub(subscription, topic)


def _properties(packet: int, **values: Any) -> Properties:
    """Those that are not None, by paho's names."""
    properties = Properties(packet)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        if value is not None:
            setattr(properties, name, value)
    return properties


def _read(message: MQTTMessage, *, mqtt5: bool) -> Message:
    properties = message.properties
    return Message(
        topic=message.topic,
        payload=bytes(message.payload),
        retained=message.retain,
        response_topic=getattr(properties, "ResponseTopic", None),
        correlation=getattr(properties, "CorrelationData", None),
        user=dict(getattr(properties, "UserProperty", ())),
        expiry_s=getattr(properties, "MessageExpiryInterval", None),
        mqtt5=mqtt5,
    )
