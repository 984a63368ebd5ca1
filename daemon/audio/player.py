"""The audio thread: obeys commands from other threads between two blocks, and beats."""

import logging
import threading
from collections import deque
from collections.abc import Callable

from daemon.audio.playback import Playback
from daemon.audio.ring import PcmRing
from daemon.audio.sink import Sink
from daemon.audio.utterance import Hold, PlayerListener, Utterance
from daemon.config_sections import AudioConfig

logger = logging.getLogger(__name__)

_MAX_WAIT_S = 1.0
"""Longest sleep, so that the heartbeat goes on."""


class Player:
    """Owns the thread ``audio`` and through it the sink. Every command is thread-safe and returns at once.

    A command takes effect after the block under way, that is within ``block_ms``; what the device holds
    (``latency_s`` of the sink) is heard on top of that.

    Args:
        sink: closed; opened, used and closed on the audio thread alone.
        ring: what the synth thread writes.
        config: [audio].
        listener: called on the audio thread.
        beat: called on the audio thread, at least once a second while it is well.
    """

    def __init__(
        self, sink: Sink, ring: PcmRing, config: AudioConfig, listener: PlayerListener, beat: Callable[[], None]
    ) -> None:
        self._playback = Playback(sink, ring, config, listener)
        self._ring = ring
        self._beat = beat
        self._thread = threading.Thread(target=self._run, name="audio")
        self._news = threading.Condition()
        self._commands: deque[Callable[[], None]] = deque()  # a few for each utterance, and those are bounded
        self._closing = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, timeout_s: float) -> bool:
        """Cut what plays, let the fade be heard, close the sink and end the thread; False if it hangs."""
        self._post(self._set_closing)
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def wake(self) -> None:
        """Speech is being made: open the device now and send the silence that goes ahead of it."""
        self._post(self._playback.wake)

    def begin(
        self,
        utterance: str,
        *,
        volume: int | None = None,
        max_volume: int = 100,
        hold: Hold | None = None,
        chime_samples: int = 0,
        chime_waits: bool = False,
    ) -> None:
        """What is written to the ring from now on belongs to ``utterance``, which is played when the last one is done.

        Call it when nothing more of an earlier utterance will be written, that is after its ``finish`` or ``cut``.

        Args:
            utterance: the name that comes back in the callbacks.
            volume: percent, in place of the player's volume.
            max_volume: percent that neither exceeds.
            hold: speech waits for so many samples in the ring, for ``finish``, or for a full ring; None: for one.
            chime_samples: so many come before the speech, and are played at once.
            chime_waits: they are held back with the speech, so that they are heard right before it.
        """
        item = Utterance(
            utterance,
            self._ring.total_written,
            volume=volume,
            max_volume=max_volume,
            hold=hold or Hold(),
            chime_samples=chime_samples,
            chime_waits=chime_waits,
        )
        self._post(lambda: self._playback.begin(item))

    def finish(self, utterance: str) -> None:
        """All of the utterance is in the ring."""
        end = self._ring.total_written
        self._post(lambda: self._playback.finish(utterance, end))

    def cut(self, utterance: str) -> None:
        """Fade the utterance out within 5 ms and drop the rest of it.

        Nothing happens if it is done already or if the device has all of it (then it ends as finished).
        """
        end = self._ring.total_written
        self._post(lambda: self._playback.cut(utterance, end))

    def pause(self) -> None:
        """Hold all speech after the block under way. Nothing is lost; the device is closed as after an utterance."""
        self._post(lambda: setattr(self._playback, "paused", True))

    def resume(self) -> None:
        """Go on with the very next sample."""
        self._post(lambda: setattr(self._playback, "paused", False))

    def set_volume(self, percent: int) -> None:
        """Change the volume, 0..100, of utterances without one of their own; within a block and without a click."""
        self._playback.volume = percent

    @property
    def latency_s(self) -> float:
        """From a write to what is heard; true while the device is open."""
        return self._playback.device.latency_s

    @property
    def underrun_count(self) -> int:
        """How often the ring ran dry inside an utterance."""
        return self._playback.underrun_count

    @property
    def underrun_samples(self) -> int:
        """How much silence that made."""
        return self._playback.underrun_samples

    def _post(self, command: Callable[[], None]) -> None:
        with self._news:
            self._commands.append(command)
            self._news.notify()

    def _run(self) -> None:
        try:
            self._play_until_closed()
        except Exception:
            logger.exception("bug in the audio thread")  # the heartbeat stops now, and that ends the process
        finally:
            self._playback.device.close()

    def _play_until_closed(self) -> None:
        while True:
            self._beat()
            while self._commands:
                self._commands.popleft()()
            wait_s = self._playback.step()
            if wait_s == 0:
                continue
            if self._closing:
                return
            with self._news:
                if not self._commands:
                    self._news.wait(min(wait_s, _MAX_WAIT_S))

    def _set_closing(self) -> None:
        self._closing = self._playback.closing = True
        self._playback.cut_all()
