"""The renderer's side of shared speech: takes jobs from players over the broker and sends the speech back."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from daemon.config_sections import MqttConfig, ShareConfig
from daemon.errors import BadRequestError, SpeechError
from daemon.inputs.messages import make_id
from daemon.inputs.mqtt_feature import Feature, Message, Publication
from daemon.inputs.render_messages import (
    BUSY,
    PART_SAMPLES,
    AudioPart,
    RenderTopics,
    encode_audio,
    parse_count,
    parse_job,
)
from daemon.log import RateLimited
from daemon.ports import Renderer, RenderTicket
from daemon.recent_ids import RecentIds
from daemon.values import SAMPLE_RATE, Pcm16, SpeakRequest

logger = logging.getLogger(__name__)

MAX_JOBS = 4
"""At the same time; of more, the players hear at once that this renderer is busy."""
MAX_AHEAD_S = 10.0
"""Of its audio that a job has sent more than time has passed: what its player and the broker keep of it."""
MAX_BACKLOG_BYTES = 16 * 1024 * 1024
"""Speech of one job that has not been sent yet; nearly six minutes."""
_LEAST_SAMPLES = SAMPLE_RATE // 5
"""In one message, but for the first, which goes out with the first samples, and the last."""
_PART_EXPIRY_S = 30
_RECENT = (300.0, 256)
_REPEAT_LOG_S = 10.0


class RenderJob:
    """One job: takes its speech from the synth thread and sends it in parts. A ``RenderListener``.

    Args:
        message: the job, with somewhere to answer to.
        key: what its player knows it by.
        publish: False where there is no connection, or too much is waiting.
        describe: an ``AudioPart`` with what is the same in all of them; only ``seq`` is given.
    """

    def __init__(
        self,
        message: Message,
        key: bytes,
        publish: Callable[[Publication], bool],
        describe: Callable[[int], AudioPart],
    ) -> None:
        self.key = key
        self.over = False
        """Nothing more is to be sent."""
        self._message = message
        self._publish = publish
        self._describe = describe
        self._deadline = None if message.expiry_s is None else time.monotonic() + message.expiry_s
        self._lock = threading.Lock()
        self._ticket: RenderTicket | None = None
        self._waiting = bytearray()
        self._seq = 0
        self._sent_samples = -parse_count(message.user.get("heard", ""))  # its player has need of what follows
        self._began = 0.0
        self._ended = False
        self._error: tuple[str, str] | None = None

    def begin(self, renderer: Renderer, request: SpeakRequest) -> None:
        """Have it made.

        Raises:
            BadRequestError: it cannot be.
        """
        ticket = renderer.render(request, self)
        with self._lock:
            self._ticket = ticket
            over = self.over
        if over:  # meanwhile
            ticket.cancel()

    def on_audio(self, pcm: Pcm16) -> None:
        """More speech, on the synth thread."""
        with self._lock:
            if self.over or self._ended:
                return
            self._waiting += pcm.tobytes()
            if len(self._waiting) > MAX_BACKLOG_BYTES:
                self._fail("too_long", "more speech than can wait to be sent")
            self._send()

    def on_end(self, error: SpeechError | None) -> None:
        """All is made, on the synth thread."""
        with self._lock:
            if isinstance(error, BadRequestError):
                self._fail(BUSY if error.code == "queue_full" else error.code, str(error))
            elif error is not None:
                self._fail("engine", str(error))
            self._ended = True
            self._send()

    def cancel(self) -> None:
        """Nobody wants the rest."""
        with self._lock:
            self._drop()

    def tick(self) -> None:
        """Send what may go by now; give up what came too late."""
        with self._lock:
            if not self._began and self._deadline is not None and time.monotonic() > self._deadline:
                logger.info("event=render_expired")
                self._drop()
            self._send()

    def _fail(self, code: str, message: str) -> None:
        """Send an error when what was made is sent; the caller holds the lock."""
        if not self._ended:
            self._ended, self._error = True, (code, message)
            if self._ticket is not None:
                self._ticket.cancel()

    def _drop(self) -> None:
        self.over = True
        self._waiting.clear()
        if self._ticket is not None:
            self._ticket.cancel()

    def _send(self) -> None:
        """Send as much as may go now; the caller holds the lock."""
        while not self.over and (part := self._next_part()) is not None:
            if not self._publish(answer(self._message, part)):
                return
            self._began = self._began or time.monotonic()
            self._seq += 1
            self._sent_samples += len(part.pcm)
            del self._waiting[: 2 * len(part.pcm)]
            self.over = part.end or bool(part.error)

    def _next_part(self) -> AudioPart | None:
        count = min(len(self._waiting) // 2, PART_SAMPLES)
        least = 1 if not self._seq else _LEAST_SAMPLES
        if not self._ended and count < least:
            return None
        if count and self._began and self._sent_samples / SAMPLE_RATE - (time.monotonic() - self._began) > MAX_AHEAD_S:
            return None
        part = self._describe(self._seq)
        if self._error is not None and not count:
            code, message = self._error
            return replace(part, error=code, message=message)
        end = self._ended and self._error is None and 2 * count == len(self._waiting)
        pcm = np.frombuffer(bytes(self._waiting[: 2 * count]), np.int16)
        return replace(part, pcm=pcm, end=end)


def answer(message: Message, part: AudioPart) -> Publication:
    """A part as the answer to a job."""
    payload, user = encode_audio(part)
    return Publication(
        topic=message.response_topic or "",
        payload=payload,
        correlation=message.correlation,
        user=user,
        expiry_s=_PART_EXPIRY_S,
    )


class RenderShare(Feature):
    """Renders for the players of a group; a Feature.

    Args:
        share: names the group.
        mqtt: names the topics and this node.
        renderer: makes the speech.
        publish: from any thread.
        rtf: how fast the renderer is.
    """

    def __init__(
        self,
        share: ShareConfig,
        mqtt: MqttConfig,
        renderer: Renderer,
        publish: Callable[[Publication], bool],
        rtf: Callable[[], float],
    ) -> None:
        self._topics = RenderTopics(mqtt.base_topic, share.group)
        self.topics: Sequence[str] = (self._topics.shared_jobs, self._topics.cancel)
        self._node = mqtt.node
        self._renderer = renderer
        self._publish = publish
        self._rtf = rtf
        self._jobs: dict[bytes, RenderJob] = {}
        self._recent = RecentIds(*_RECENT)
        self._log = RateLimited(logger, _REPEAT_LOG_S)

    def on_connect(self, *, mqtt5: bool) -> Iterable[Publication]:
        """Whatever was asked over an earlier connection is asked again by whoever still wants it."""
        for job in self._jobs.values():
            job.cancel()
        self._jobs.clear()
        if mqtt5:
            yield Publication(topic=self._topics.ready, payload=self._node.encode())

    def on_message(self, message: Message) -> Iterable[Publication]:
        """Take a job, or drop one."""
        if message.retained:
            return
        if message.topic == self._topics.cancel:
            job = self._jobs.pop(message.payload, None)
            if job is not None:
                job.cancel()
        elif message.response_topic is None or not self._topics.is_audio(message.response_topic):
            self._log.log(logging.WARNING, "event=render_refused: a job without a response topic below audio/")
        else:
            yield from self._take(message)

    def tick(self, now_s: float) -> Iterable[Publication]:  # noqa: ARG002 (a Feature's)
        """Send what waits, forget what is done."""
        for job in self._jobs.values():
            job.tick()
        self._forget()
        return ()

    def _take(self, message: Message) -> Iterator[Publication]:
        key = message.correlation or make_id().encode()
        if self._is_repeated(key):
            return
        self._forget()
        try:
            self._begin(message, key)
        except BadRequestError as err:
            code = BUSY if err.code == "queue_full" else err.code
            yield answer(message, AudioPart(seq=0, error=code, message=str(err), renderer=self._node))

    def _begin(self, message: Message, key: bytes) -> None:
        request = parse_job(message.payload)
        if len(self._jobs) >= MAX_JOBS:
            raise BadRequestError("queue_full", f"{MAX_JOBS} jobs are under way")
        job = RenderJob(message, key, self._publish, self._describe)
        job.begin(self._renderer, request)
        self._jobs[key] = job

    def _is_repeated(self, key: bytes) -> bool:
        """Whether a job is here for the second time, as QoS 1 may have it."""
        now, name = time.monotonic(), key.hex()
        if self._recent.known(name, now):
            return True
        self._recent.add(name, now)
        return False

    def _describe(self, seq: int) -> AudioPart:
        return AudioPart(seq=seq, renderer=self._node, rtf=self._rtf())

    def _forget(self) -> None:
        self._jobs = {key: job for key, job in self._jobs.items() if not job.over}
