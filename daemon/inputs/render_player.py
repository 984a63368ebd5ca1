"""The player's side of shared speech: asks renderers over the broker, and sorts what they send by the job it is for."""

import logging
import math
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

from daemon.config_sections import MqttConfig, ShareConfig
from daemon.inputs.messages import make_id
from daemon.inputs.mqtt_feature import Feature, Message, Publication
from daemon.inputs.render_messages import NOBODY, AudioPart, RenderTopics, encode_job, parse_audio
from daemon.values import SpeakRequest

logger = logging.getLogger(__name__)

MAX_PARTS = 1200
"""Of one job that wait to be played, ten minutes; the rest is lost, and the job with it."""


class Answer:
    """What comes back for one job: its parts in order, each once. A context manager, which tells when it is left early.

    ``take`` is for one thread, ``put`` for the mqtt thread.
    """

    def __init__(self, close: Callable[[bool], None]) -> None:
        self._close = close
        self._parts: queue.Queue[AudioPart] = queue.Queue(MAX_PARTS)
        self._renderer: str | None = None
        self._expected = 0
        self._broken = False
        self._ended = False

    @property
    def broken(self) -> bool:
        """Something is missing: what follows will not come."""
        return self._broken

    def take(self, timeout_s: float) -> AudioPart | None:
        """The next part; None if there is none in time."""
        try:
            part = self._parts.get(timeout=timeout_s) if timeout_s > 0 else self._parts.get_nowait()
        except queue.Empty:
            return None
        self._ended = part.end or bool(part.error)
        return part

    def put(self, part: AudioPart) -> None:
        """Take a part that has come: QoS 1 may bring one twice, and two renderers the same job."""
        if self._renderer is None:
            self._renderer = part.renderer
        if self._broken or part.renderer != self._renderer or part.seq < self._expected:
            return
        try:
            if part.seq == self._expected:
                self._parts.put_nowait(part)
                self._expected += 1
                return
        except queue.Full:
            logger.warning("event=render_overflow: speech comes faster than it is played")
        self._broken = True

    def put_nobody(self) -> None:
        """The job has reached no renderer."""
        self.put(AudioPart(seq=0, renderer="broker", error=NOBODY, message="no renderer is connected"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(self._ended)


class RenderPlayer(Feature):
    """Asks the renderers of a group; a Feature.

    Args:
        share: names the group, and how long to wait.
        mqtt: names the topics and this node.
    """

    def __init__(self, share: ShareConfig, mqtt: MqttConfig) -> None:
        self._topics = RenderTopics(mqtt.base_topic, share.group)
        self._audio_topic = self._topics.audio(mqtt.node)
        self.topics: Sequence[str] = (self._audio_topic, self._topics.ready)
        self._expiry_s = math.ceil(share.wait_s)
        self._publish: Callable[[Publication], bool] = lambda _publication: False
        self._connected: Callable[[], bool] = lambda: False
        self._mqtt5 = False
        self._lock = threading.Lock()
        self._answers: dict[bytes, Answer] = {}
        self._arrivals = 0

    def attach(self, publish: Callable[[Publication], bool], connected: Callable[[], bool]) -> None:
        """Use this connection; before any thread starts."""
        self._publish, self._connected = publish, connected

    @property
    def reachable(self) -> bool:
        """Whether there is a broker that a renderer could be asked over."""
        return self._mqtt5 and self._connected()

    @property
    def arrivals(self) -> int:
        """Counts when a renderer may have come: one said so, or the connection is new."""
        return self._arrivals

    def ask(self, request: SpeakRequest, *, heard_samples: int = 0) -> Answer | None:
        """Have a request made, of which so much is known already; None if nobody can be asked. Never waits."""
        key = make_id().encode()
        answer = Answer(lambda ended: self._close(key, ended=ended))
        with self._lock:
            self._answers[key] = answer
        job = Publication(
            topic=self._topics.jobs,
            payload=encode_job(request),
            response_topic=self._audio_topic,
            correlation=key,
            user={"heard": str(heard_samples)} if heard_samples else {},
            expiry_s=self._expiry_s,
            on_unheard=answer.put_nobody,
        )
        if self.reachable and self._publish(job):
            return answer
        with self._lock:
            del self._answers[key]
        return None

    def _close(self, key: bytes, *, ended: bool) -> None:
        with self._lock:
            del self._answers[key]
        if not ended:
            self._publish(Publication(topic=self._topics.cancel, payload=key, expiry_s=60))

    def on_connect(self, *, mqtt5: bool) -> Iterable[Publication]:
        """Renderers can be asked with MQTT 5 alone."""
        if not mqtt5:
            logger.warning("event=share_off: sharing speech needs a broker that speaks MQTT 5; the local voice speaks")
        self._mqtt5 = mqtt5
        self._arrivals += 1
        return ()

    def on_message(self, message: Message) -> Iterable[Publication]:
        """Sort a part to its job; one that is not waited for is dropped."""
        if message.topic == self._topics.ready:
            self._arrivals += 1
            return ()
        with self._lock:
            answer = self._answers.get(message.correlation or b"")
        part = parse_audio(message.payload, message.user)
        if answer is not None and part is not None:
            answer.put(part)
        return ()
