"""What crosses the connection to the broker, and who deals in it: the speaker as the peer, features beside it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from daemon.values import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A message for the broker. The last four are MQTT 5's and left out with 3.1.1."""

    topic: str
    payload: bytes
    retain: bool = False
    qos: int = 1
    """With 1 it is sent once more if the connection breaks before the broker has it: it may then arrive twice."""
    again: bool = False
    """That has happened."""
    on_unheard: Callable[[], None] | None = None
    """Called on the connection's thread if the broker says that nobody has subscribed (MQTT 5, QoS 1)."""
    response_topic: str | None = None
    correlation: bytes | None = None
    user: Mapping[str, str] = field(default_factory=dict)
    expiry_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message from the broker. With MQTT 3.1.1 the last four are empty and ``mqtt5`` is false."""

    topic: str
    payload: bytes
    retained: bool
    """It was kept by the broker from before the subscription. With MQTT 5 none such is sent to features."""
    response_topic: str | None = None
    correlation: bytes | None = None
    user: Mapping[str, str] = field(default_factory=dict)
    expiry_s: float | None = None
    """What is left of its expiry."""
    mqtt5: bool = True


class Feature(Protocol):
    """A use of the connection. All is called on the mqtt thread and must not block; a raise is logged, never fatal.

    What the methods return is published in that order: at once, or within a minute when there is a connection again.
    Whoever is a subclass need not say that it has nothing to say.
    """

    topics: Sequence[str] = ()
    """Subscribed to at every connect with QoS 1, wildcards and ``$share/GROUP/TOPIC`` too (MQTT 5 only)."""

    def on_connect(self, *, mqtt5: bool) -> Iterable[Publication]:  # noqa: ARG002 (for subclasses)
        """There is a connection, for the first time or again; the subscriptions have been asked for."""
        return ()

    def on_message(self, message: Message) -> Iterable[Publication]:  # noqa: ARG002 (for subclasses)
        """Something came on one of ``topics``."""
        return ()

    def on_event(self, event: Event) -> Iterable[Publication]:  # noqa: ARG002 (for subclasses)
        """Something became of a request; also while there is no connection."""
        return ()

    def tick(self, now_s: float) -> Iterable[Publication]:  # noqa: ARG002 (for subclasses)
        """About once a second while connected; ``now_s`` is monotonic."""
        return ()


class Peer(Protocol):
    """Who speaks over the connection. All is called on the connection's thread and must not block."""

    @property
    def client_id(self) -> str:
        """The name of the connection: the broker lets go of an older one of the same name."""
        ...

    @property
    def will(self) -> Publication | None:
        """What the broker is to publish when the connection breaks."""
        ...

    @property
    def wants_retained(self) -> bool:
        """Have what the broker kept sent at every connect (3.1.1 does so anyway)."""
        ...

    @property
    def topics(self) -> Sequence[str]:
        """What to subscribe to, at every connect."""
        ...

    def on_connected(self, *, mqtt5: bool) -> None:
        """The broker has accepted the connection."""
        ...

    def on_disconnected(self, unconfirmed: Sequence[Publication]) -> None:
        """The connection is gone; of these it is not known whether the broker has them."""
        ...

    def on_message(self, message: Message) -> None:
        """Something came."""
        ...

    def on_beat(self) -> None:
        """At least once a second, connected or not."""
        ...

    def next_publication(self) -> Publication | None:
        """The next to be published, while connected."""
        ...

    def farewell(self) -> None:
        """The connection is going to be closed in good order; what waits is still published."""
        ...
