"""The synth thread: takes one request after another from the queue and sees each through to its final event."""

import logging
import threading
from collections.abc import Callable
from time import monotonic

from daemon.audio.playback import PlayOutcome
from daemon.audio.ring import PcmRing
from daemon.desk import EVENT_REASONS, Desk, Job
from daemon.engine.engine import Engine
from daemon.errors import BadRequestError, EngineError, SpeechError
from daemon.metrics import Metrics
from daemon.synthesizer import Spoken, Synthesizer, TextSource
from daemon.values import SAMPLE_RATE, EventType, Reason, SpeakRequest

logger = logging.getLogger(__name__)

IDLE_WAIT_S = 1.0
COMFORTABLE_RTF = 0.5
"""Below this, playback starts with the first frame; above, some audio is kept ahead."""
CUSHION_S = 0.3


class SpeakingLoop:
    """Runs on the thread ``synth``; the player reports to it on the thread ``audio``.

    Attributes:
        fatal: set when the engine failed for good, or by a bug; the process should then exit.
    """

    def __init__(
        self,
        desk: Desk,
        engine: Engine,
        synthesizer: Synthesizer,
        ring: PcmRing,
        *,
        metrics: Metrics,
        beat: Callable[[], None],
    ) -> None:
        self._desk = desk
        self._engine = engine
        self._synthesizer = synthesizer
        self._ring = ring
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

    def wait_s(self, expected_s: float) -> float | None:
        """How long playback is held back because synthesis is slower than real time; None where it is not."""
        rtf = self._engine.rtf
        return round(expected_s * (rtf - 1), 1) if rtf > 1 else None

    def _run(self) -> None:
        try:
            while (job := self._next_job()) is not None:
                self._speak(job)
        except Exception:
            logger.exception("bug in the synth thread")
            self._give_up(EngineError("the synth thread died of a bug; see the log"))

    def _give_up(self, err: SpeechError) -> None:
        self.fatal = err
        with self._desk.open():
            self._desk.failed = True

    def _next_job(self) -> Job | None:
        """Wait for the next request and begin it with the player; None when stopping."""
        desk = self._desk
        while True:
            self._beat()
            with desk.open():
                if desk.stopping or desk.failed:
                    return None
                request, events = desk.queue.take(monotonic())
                desk.publish(events)
                if request is not None:
                    desk.job = self._begin(request)
                    return desk.job
                seen = desk.version
            with desk.changed:
                if desk.version == seen:
                    desk.changed.wait(IDLE_WAIT_S)

    def _begin(self, request: SpeakRequest) -> Job:
        entry = self._desk.entries[request.id]
        entry.attempts += 1
        if entry.attempts > 1:
            entry.source = TextSource(entry.source.text, more=entry.source.open)
        job = Job(request, entry.source, f"{request.id}#{entry.attempts}", entry.accepted_at)
        job.wait_s = self.wait_s(entry.expected_s)
        logger.debug("speak request_id=%s attempt=%d text=%r", request.id, entry.attempts, entry.source.text)
        self._ring.clear()
        self._desk.player.resume()
        self._desk.player.begin(
            job.utterance, volume=request.volume, prebuffer_samples=self._prebuffer(entry.expected_s)
        )
        return job

    def _prebuffer(self, expected_s: float) -> int:
        """Samples to have before playback starts, so that it does not starve."""
        rtf = self._engine.rtf
        if rtf <= COMFORTABLE_RTF:
            return 0
        behind_s = expected_s * (1 - 1 / rtf) if rtf > 1 else 0.0
        return min(int((behind_s + CUSHION_S) * SAMPLE_RATE), self._ring.capacity)

    def _speak(self, job: Job) -> None:
        spoken, failure = self._synthesize(job)
        if failure is not None or job.cancelled.is_set():
            self._desk.player.cut(job.utterance)
        else:
            self._desk.player.finish(job.utterance)
        while not job.done.wait(IDLE_WAIT_S):
            self._beat()
        self._conclude(job, spoken, failure)
        if isinstance(failure, EngineError):
            self._recover()

    def _synthesize(self, job: Job) -> tuple[Spoken, SpeechError | None]:
        def on_first_sample(time_s: float) -> None:
            job.ttfa_ms = round((time_s - job.accepted_at) * 1000, 1)

        try:
            spoken = self._synthesizer.speak(
                job.request,
                job.source,
                self._ring,
                job.cancelled.is_set,
                voice=job.request.voice or self._engine.voices.known(self._desk.settings.voice),
                beat=self._beat,
                on_first_sample=on_first_sample,
            )
        except SpeechError as err:
            logger.error("synthesis failed request_id=%s: %s", job.request.id, err)  # noqa: TRY400 (one line says it)
            return Spoken(), err
        except Exception as err:
            logger.exception("bug in synthesis request_id=%s", job.request.id)
            return Spoken(), EngineError(f"bug: {err}")
        return spoken, None

    def _conclude(self, job: Job, spoken: Spoken, failure: SpeechError | None) -> None:
        kind, reason = _final(job, failure)
        audio_s = round(job.played_samples / SAMPLE_RATE, 3)
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
            desk.publish(events)
        underrun_ms = self._measure(spoken)
        logger.info(
            "utterance request_id=%s audio_s=%.2f ttfa_ms=%s rtf=%s underrun_ms=%.0f outcome=%s",
            job.request.id,
            audio_s,
            job.ttfa_ms,
            spoken.rtf and round(spoken.rtf, 3),
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
        underrun_ms = (self._underruns[1] - samples) * 1000 / SAMPLE_RATE
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
            job.speaking = True
            desk.last = job.request.model_copy(update={"text": job.source.text})
            logger.debug("onset request_id=%s onset_ms=%.1f", job.request.id, (time_s - job.accepted_at) * 1000)
            desk.publish(desk.queue.started(job.request.id, monotonic(), ttfa_ms=job.ttfa_ms, wait_s=job.wait_s))

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

    def on_audio_ok(self, ok: bool) -> None:  # noqa: FBT001 (the protocol's one value)
        """The device was lost, or is back."""
        with self._desk.open():
            self._desk.audio_ok = ok


def _final(job: Job, failure: SpeechError | None) -> tuple[EventType, Reason | None]:
    """The final event of a job; the queue leaves it out where one has been given already."""
    if isinstance(failure, BadRequestError):
        return EventType.FAILED, EVENT_REASONS.get(failure.code, Reason.ENGINE)
    if failure is not None:
        return EventType.FAILED, Reason.ENGINE
    if job.outcome is PlayOutcome.FAILED:
        return EventType.FAILED, Reason.AUDIO
    if job.outcome is PlayOutcome.CUT:
        return EventType.CANCELLED, Reason.STOPPED
    return EventType.FINISHED, None
