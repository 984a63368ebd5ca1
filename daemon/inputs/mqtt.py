"""The MQTT input: the topics of one speaker, and the features that share its connection (PROTOCOL.md)."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from daemon.config_sections import MqttConfig
from daemon.inputs.messages import to_json
from daemon.inputs.mqtt_client import matches
from daemon.inputs.mqtt_commands import MqttCommands
from daemon.inputs.mqtt_connection import MqttConnection
from daemon.inputs.mqtt_feature import Feature, Message, Publication
from daemon.inputs.mqtt_messages import Hints, state_payloads
from daemon.log import RateLimited
from daemon.ports import Speaker
from daemon.values import Event, State

logger = logging.getLogger(__name__)

_MAX_EVENTS = 1000
_MAX_OUTGOING = 256
"""What other threads may have waiting to be published; the answers of the mqtt thread itself may be twice as many."""
_KEEP_S = 60.0
"""How long a publication waits for a broker."""
_TICK_S = 1.0
_REPEAT_LOG_S = 60.0


class MqttInput:
    """Serves ``speaker`` on crier/NODE/ and crier/all/; the peer of its own connection."""

    wants_retained = False

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
        self._commands = MqttCommands(config, speaker)
        self._prefix = f"{config.base_topic}/{config.node}/"
        self._features: list[Feature] = []
        self._log = RateLimited(logger, _REPEAT_LOG_S)
        self.client_id = f"{config.base_topic.replace('/', '-')}-{config.node}"
        self.will = Publication(topic=self._prefix + "availability", payload=b"offline", retain=True)
        # Any thread adds to these; the mqtt thread takes from them.
        self._events: deque[Event] = deque(maxlen=_MAX_EVENTS)
        self._states: deque[State] = deque(maxlen=1)
        self._outgoing: deque[tuple[float, Publication]] = deque()
        """With the time after which nobody wants it any more."""
        # The mqtt thread's own.
        self._published: dict[str, bytes] = {}
        self._ticked = 0.0
        self._connection = MqttConnection(config, self, password=password, beat=beat)

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted the connection."""
        return self._connection.connected

    @property
    def reconnects(self) -> int:
        """How often the connection came back."""
        return self._connection.reconnects

    def add(self, feature: Feature) -> None:
        """Let a feature share the connection; before ``start``."""
        self._features.append(feature)

    def start(self) -> None:
        """Connect and serve in a thread; a broker that is down is waited for."""
        self._connection.start()

    def close(self) -> None:
        """Say goodbye (availability offline) and disconnect, within about 2 s."""
        self._connection.close()

    def publish(self, publication: Publication) -> bool:
        """Publish soon; False where there is no connection, or too much is waiting. Any thread; never waits."""
        if not self.connected or len(self._outgoing) >= _MAX_OUTGOING:
            return False
        self._put(publication)
        self._connection.wake()
        return True

    def on_event(self, event: Event) -> None:
        """Publish an event; dropped while there is no broker. Any thread; never waits."""
        self._events.append(event)
        self._connection.wake()

    def on_state(self, state: State) -> None:
        """Publish the newest state; those that were overtaken are skipped. Any thread; never waits."""
        self._states.append(state)
        self._connection.wake()

    # All below is the connection's to call, on the mqtt thread.

    @property
    def topics(self) -> Sequence[str]:
        """The commands' topics, then the features', each once."""
        return list(dict.fromkeys([*self._commands.topics, *(t for f in self._features for t in f.topics)]))

    def on_connected(self, *, mqtt5: bool) -> None:
        """Say who is there."""
        self._hear_events(tell=False)  # nobody is helped by old news
        self._put(Publication(topic=self._prefix + "availability", payload=b"online", retain=True))
        self._publish_state_anew()
        for feature in self._features:
            self._ask(partial(feature.on_connect, mqtt5=mqtt5))

    def on_disconnected(self, unconfirmed: Sequence[Publication]) -> None:
        """Keep what may still be wanted, in its order; what is retained or concerns old news is said anew or never.

        What was under way when the connection broke, twice, is given up: it may be what the broker hangs up on.
        """
        news = self._prefix + "event"
        waiting = [self._outgoing.popleft() for _ in range(len(self._outgoing))]
        kept = [*(_dated(replace(p, again=True)) for p in unconfirmed if not p.again), *waiting]
        kept = [entry for entry in kept if not entry[1].retain and entry[1].topic != news]
        self._outgoing.extendleft(reversed(kept))  # other threads may have added more

    def on_message(self, message: Message) -> None:
        """Obey a command, tell the features."""
        hints = Hints(user=message.user, expiry_s=message.expiry_s)
        reply = self._commands.obey(message.topic, message.payload, hints, retained=message.retained)
        if self._commands.is_get(message.topic) and not message.retained:
            self._publish_state_anew()
        if reply is not None:
            self._reply(message, reply)
        for feature in self._features:
            if any(matches(message.topic, topic) for topic in feature.topics):
                self._ask(partial(feature.on_message, message))

    def on_beat(self) -> None:
        """Let the features know of events and of the time."""
        self._hear_events(tell=self.connected)
        now = time.monotonic()
        if self.connected and now - self._ticked >= _TICK_S:
            self._ticked = now
            for feature in self._features:
                self._ask(partial(feature.tick, now))

    def next_publication(self) -> Publication | None:
        """Answers and events in their order; the state when nothing else waits."""
        self._hear_events(tell=True)
        if not self._outgoing and self._states:
            self._publish_state(self._states.popleft())
        while self._outgoing:
            deadline, publication = self._outgoing.popleft()
            if time.monotonic() < deadline:
                return publication
        return None

    def farewell(self) -> None:
        """Offline, as the last will says it otherwise."""
        self._put(self.will)

    def _hear_events(self, *, tell: bool) -> None:
        while self._events:
            event = self._events.popleft()
            if tell:
                self._put(Publication(topic=self._prefix + "event", payload=to_json(event.to_wire())))
            for feature in self._features:
                self._ask(partial(feature.on_event, event))

    def _ask(self, call: Callable[[], Iterable[Publication]]) -> None:
        """A feature's turn."""
        try:
            for publication in call():
                self._put(publication)
        except Exception:
            logger.exception("bug in a feature of the mqtt input")

    def _put(self, publication: Publication) -> None:
        if len(self._outgoing) >= 2 * _MAX_OUTGOING:
            self._log.log(
                logging.WARNING, "event=mqtt_publication_dropped: too many wait, one was for %s", publication.topic
            )
            return
        self._outgoing.append(_dated(publication))

    def _publish_state(self, state: State) -> None:
        """Retained, each topic only when it changed. QoS 0: a later one must never be overtaken by a repeated one."""
        payloads = state_payloads(state, with_text=self._config.publish_text)
        for name, payload in payloads.items():
            if self._published.get(name) != payload:
                self._published[name] = payload
                self._put(Publication(topic=self._prefix + name, payload=payload, retain=True, qos=0))

    def _publish_state_anew(self) -> None:
        self._published.clear()
        self._states.append(self._speaker.state())

    def _reply(self, message: Message, reply: Mapping[str, Any]) -> None:
        topic = message.response_topic
        if topic and not {"+", "#"} & set(topic) and not self._commands.is_command(topic):
            self._put(Publication(topic=topic, payload=to_json(reply), correlation=message.correlation))


def _dated(publication: Publication) -> tuple[float, Publication]:
    return time.monotonic() + min(_KEEP_S, publication.expiry_s or _KEEP_S), publication
