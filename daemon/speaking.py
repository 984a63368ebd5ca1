"""The synth thread: takes one request after another from the queue and sees each through to its final event."""

import logging
import threading
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from daemon.audio.ring import PcmRing
from daemon.audio.utterance import PlayOutcome
from daemon.desk import Desk, Job
from daemon.engine.engine import Engine
from daemon.errors import BadRequestError, EngineError, SpeechError
from daemon.metrics import Metrics
from daemon.output import Writer
from daemon.rendering import Renders
from daemon.speech import Spoken
from daemon.text_source import TextSource
from daemon.values import SAMPLE_RATE, Pcm16, Priority, SpeakRequest
from daemon.waiting import WORTH_TELLING_S, told

logger = logging.getLogger(__name__)

IDLE_WAIT_S = 1.0


class SpeechMaker(Protocol):
    """Makes the speech of announcements, on the synth thread."""

    def speak(
        self, request: SpeakRequest, source: TextSource, writer: Writer, *, voice: str | None, speed: float
    ) -> Spoken:
        """As ``Synthesizer.speak``."""
        ...


class SpeakingLoop:
    """Runs on the thread ``synth``; the player reports to it on the thread ``audio``.

    Attributes:
        fatal: set when the engine failed for good, or by a bug; the process should then exit.
    """

    def __init__(
        self,
        desk: Desk,
        engine: Engine,
        synthesizer: SpeechMaker,
        ring: PcmRing,
        renders: Renders,
        *,
        metrics: Metrics,
        beat: Callable[[], None],
    ) -> None:
        self._desk = desk
        self._engine = engine
        self._synthesizer = synthesizer
        self._ring = ring
        self._renders = renders
        self._metrics = metrics
        self._beat = beat
        self._underruns = (0, 0)
        self._thread = threading.Thread(target=self._run, name="synth")
        self.fatal: SpeechError | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread to end (``desk.stopping`` has been set); whether it has."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except Exception:
            logger.exception("bug in the synth thread")
            self._give_up(EngineError("the synth thread died of a bug; see the log"))
        finally:
            self._renders.close(self.fatal or BadRequestError("queue_full", "the daemon is shutting down"))

    def _turn(self) -> bool:
        """Do what there is to be done, or wait for it; False when all is over."""
        desk = self._desk
        seen = desk.version
        self._beat()
        self._settle()
        with desk.open():
            if desk.failed or (desk.stopping and desk.job is None):
                return False
            desk.look_at_clock()
            job = self._take()
        if job is not None:
            self._speak(job)
        elif desk.stopping or not self._render():
            with desk.changed:
                if desk.version == seen:
                    desk.changed.wait(IDLE_WAIT_S)
        return True

    def _settle(self) -> None:
        """See to what has been played to its end."""
        job = self._desk.job
        if job is not None and job.done.is_set():
            self._conclude(job)

    def _take(self) -> Job | None:
        """Begin the next request with the player; the caller holds the lock."""
        desk = self._desk
        request, events = desk.queue.take(monotonic())
        desk.publish(events)
        if request is None:
            return None
        desk.job = self._begin(request)
        return desk.job

    def _render(self) -> bool:
        """Make a sentence for a door, if one waits."""
        try:
            return self._renders.step(self._interrupted)
        except EngineError:
            self._recover()
            return True

    def _interrupted(self) -> bool:
        """Once a frame of a render: whether the voice is wanted for an announcement, or for nothing any more."""
        desk = self._desk
        self._beat()
        self._settle()
        with desk.open():
            desk.look_at_clock()
            desk.publish(desk.queue.hush(monotonic()))
            return desk.stopping or desk.queue.ready

    def _give_up(self, err: SpeechError) -> None:
        self.fatal = err
        with self._desk.open():
            self._desk.failed = True

    def _begin(self, request: SpeakRequest) -> Job:
        desk = self._desk
        entry = desk.entries[request.id]
        entry.attempts += 1
        if entry.attempts > 1:
            source = entry.source
            entry.source = TextSource(source.text, more=source.open, expected_s=source.expected_s)
        chime = desk.chimes.before(request)
        job = Job(request, entry.source, f"{request.id}#{entry.attempts}", entry.accepted_at, chime)
        logger.debug("speak request_id=%s attempt=%d text=%r", request.id, entry.attempts, entry.source.text)
        self._ring.clear()
        desk.player.resume()
        desk.player.begin(
            job.utterance,
            volume=request.volume,
            max_volume=desk.max_volume(request),
            hold=job.hold,
            chime_samples=len(chime),
            chime_waits=self._chime_waits(request, entry.wait_s, len(chime)),
        )
        return job

    def _chime_waits(self, request: SpeakRequest, wait_s: float, samples: int) -> bool:
        """Whether a chime is heard right before speech that is held back; what is critical may be heard of earlier."""
        held_back = wait_s >= WORTH_TELLING_S and request.priority is not Priority.CRITICAL
        return held_back and samples <= self._ring.capacity // 2

    def _speak(self, job: Job) -> None:
        """Synthesise it all; what is still to be heard then plays by itself."""
        job.spoken, job.failure = self._synthesize(job)
        if job.failure is not None or job.cancelled.is_set():
            self._desk.player.cut(job.utterance)
        else:
            self._desk.player.finish(job.utterance)
            job.spoken.keep()
        if isinstance(job.failure, EngineError):
            while not job.done.wait(IDLE_WAIT_S):
                self._beat()
            self._settle()
            self._recover()

    def _synthesize(self, job: Job) -> tuple[Spoken, SpeechError | None]:
        def on_first_sample(time_s: float) -> None:
            job.ttfa_ms = round((time_s - job.accepted_at) * 1000, 1)

        try:
            self._play(job.chime, job)
            spoken = self._synthesizer.speak(
                job.request,
                job.source,
                Writer(self._ring, job.cancelled.is_set, self._beat, on_first_sample, job.hold),
                voice=job.request.voice or self._engine.voices.known(self._desk.settings.voice),
                speed=job.request.speed or self._desk.settings.speed,
            )
            if spoken.samples:
                self._play(self._desk.chimes.after(job.request), job)
        except BadRequestError as err:  # it came in pieces, so what is wrong with it was not to be seen before
            logger.warning("refused request_id=%s code=%s: %s", job.request.id, err.code, err)
            return Spoken(), err
        except SpeechError as err:
            logger.error("synthesis failed request_id=%s: %s", job.request.id, err)  # noqa: TRY400 (one line says it)
            return Spoken(), err
        except Exception as err:
            logger.exception("bug in synthesis request_id=%s", job.request.id)
            return Spoken(), EngineError(f"bug: {err}")
        return spoken, None

    def _play(self, sound: Pcm16, job: Job) -> None:
        """Put a chime into the ring, unless the job is cancelled."""
        Writer(self._ring, job.cancelled.is_set, self._beat).write(sound)

    def _conclude(self, job: Job) -> None:
        spoken = job.spoken
        kind, reason = job.final
        audio_s = round(job.played_samples / SAMPLE_RATE, 3)
        underrun_ms = self._measure(spoken)
        desk = self._desk
        with desk.open():
            events = desk.queue.ended(
                job.request.id,
                monotonic(),
                kind,
                reason=reason,
                audio_s=audio_s,
                truncated=spoken.truncated or None,
            )
            desk.job = None
            if desk.last is not None and desk.last.id == job.request.id:
                desk.last = job.request.model_copy(update={"text": job.source.text})  # it may have grown since
            desk.publish([event.model_copy(update={"underrun_ms": underrun_ms or None}) for event in events])
        logger.info(
            "utterance request_id=%s audio_s=%.2f ttfa_ms=%s rtf=%s underrun_ms=%.0f outcome=%s",
            job.request.id,
            audio_s,
            job.ttfa_ms,
            "cached" if spoken.cached else spoken.rtf and round(spoken.rtf, 3),
            underrun_ms,
            events[-1].event_type if events else job.outcome,
        )

    def _measure(self, spoken: Spoken) -> float:
        """Count what the utterance tells; returns the milliseconds it was short of samples."""
        if spoken.rtf is not None:
            self._metrics.add_rtf(spoken.rtf)
        if spoken.truncated:
            self._metrics.count_runaway()
        player, (count, samples) = self._desk.player, self._underruns
        self._underruns = (player.underrun_count, player.underrun_samples)
        underrun_ms = round((self._underruns[1] - samples) * 1000 / SAMPLE_RATE, 1)
        self._metrics.add_underruns(self._underruns[0] - count, underrun_ms)
        return underrun_ms

    def _recover(self) -> None:
        try:
            self._engine.rebuild()
        except SpeechError as err:
            logger.critical("engine cannot be rebuilt: %s", err)
            self._give_up(EngineError(str(err)))  # not a ModelError: starting again may well help

    # PlayerListener, on the audio thread

    def on_started(self, utterance: str, time_s: float) -> None:
        """The first speech sample went to the device."""
        desk = self._desk
        with desk.open():
            job = desk.job
            if job is None or job.utterance != utterance:
                return
            job.speaking_since = time_s
            desk.last = job.request.model_copy(update={"text": job.source.text})
            logger.debug("onset request_id=%s onset_ms=%.1f", job.request.id, (time_s - job.accepted_at) * 1000)
            waited_s = told(time_s - job.accepted_at)
            desk.publish(desk.queue.started(job.request.id, monotonic(), ttfa_ms=job.ttfa_ms, wait_s=waited_s))

    def on_done(self, utterance: str, outcome: PlayOutcome, played_samples: int) -> None:
        """The last speech sample is out, or was dropped."""
        with self._desk.changed:
            job = self._desk.job
            if job is None or job.utterance != utterance:
                return
            job.outcome, job.played_samples = outcome, played_samples
            if outcome is PlayOutcome.FAILED:
                job.cancelled.set()
            job.done.set()
            self._desk.wake()

    def on_audio_ok(self, ok: bool) -> None:  # noqa: FBT001 (the protocol's one value)
        """The device was lost, or is back."""
        with self._desk.open():
            self._desk.audio_ok = ok
