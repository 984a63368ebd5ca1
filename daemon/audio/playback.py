"""What the audio thread does, block by block: silence, speech, fades, and coming back after a lost device.

A plain state machine: one thread, no lock. ``Playback.step`` writes one block, or says how long there is nothing to do.
Positions in the ring tell utterances apart, so that a cut never drops samples of the next one.
"""

import time
from collections import deque

import numpy as np

from daemon.audio.device import Device
from daemon.audio.pcm import FADE_SAMPLES, Gain, fade_out
from daemon.audio.ring import PcmRing
from daemon.audio.sink import Sink
from daemon.audio.utterance import PlayerListener, PlayOutcome, Utterance
from daemon.config_sections import AudioConfig
from daemon.values import SAMPLE_RATE, Pcm16

_WAKE_SAMPLES = 2 * SAMPLE_RATE
"""Silence that follows ``wake`` if no utterance comes of it."""
_CLOSING_TAIL_MS = 100
_REST_S = 1.0
"""Said when nothing is to be done: the heartbeat sets how long the thread may sleep."""


class Playback:
    """Plays utterances from the ring, one after the other.

    Args:
        sink: closed.
        ring: its only reader is this.
        config: [audio].
        listener: called from ``step`` and ``cut``.
    """

    def __init__(self, sink: Sink, ring: PcmRing, config: AudioConfig, listener: PlayerListener) -> None:
        block_samples = config.block_ms * SAMPLE_RATE // 1000
        self.device = Device(sink, listener.on_audio_ok)
        self.paused = False
        self.volume = config.volume
        self.closing = False
        """Set to finish what is left of the silence and then rest, whatever ``keep_open`` says."""
        self.underrun_count = 0
        self.underrun_samples = 0
        self._ring = ring
        self._config = config
        self._listener = listener
        self._gain = Gain(block_samples)
        self._block: Pcm16 = np.zeros(block_samples, dtype=np.int16)
        self._silence: Pcm16 = np.zeros(block_samples, dtype=np.int16)
        self._current: Utterance | None = None
        self._next: deque[Utterance] = deque()  # bounded by the announcement queue
        self._stale_end = 0  # cut utterances that were never current lie before this position
        self._kept = 0  # speech samples in _block that the lost device did not take
        self._sounding = False  # the last sample written was speech
        self._quiet = 0  # samples of silence since speech, or since the device was opened
        self._quiet_needed = 0  # as many must there be before speech begins
        self._tail = 0  # samples of silence still to write before the device may be closed
        self._wake = 0  # the same, on account of wake

    def wake(self) -> None:
        """Speech is being made: have the device open and silence going out ahead of it."""
        self._wake = _WAKE_SAMPLES
        self.device.retry_now()

    def begin(self, utterance: Utterance) -> None:
        """Play this after what there is."""
        self.device.retry_now()
        self._next.append(utterance)

    def finish(self, name: str, end: int) -> None:
        """The utterance ends at position ``end``."""
        item = self._find(name)
        if item is not None and item.end is None:
            item.end = end

    def cut(self, name: str, end: int) -> None:
        """End the utterance now; up to ``end`` the ring's samples are its own."""
        item = self._find(name)
        if item is None or (item is self._current and self._all_written(item)):
            return  # too late: the device has it all
        item.end = end if item.end is None else item.end
        item.cut = True
        if item is not self._current:
            self._next.remove(item)
            self._stale_end = max(self._stale_end, item.end)
            self._listener.on_done(name, PlayOutcome.CUT, 0)

    def cut_all(self) -> None:
        """Cut everything and forget ``wake``."""
        self._wake = 0
        self._tail = min(self._tail, self._tail_samples())
        for item in [*self._next, self._current]:
            if item is not None:
                self.cut(item.name, self._ring.total_written)

    def step(self) -> float:
        """Write one block and return 0, or return after how many seconds there may be something to do."""
        self._advance()
        if not self._device_wanted():
            if self.device.is_open:
                self.device.close()
            if self._current is not None:
                self._current.device_missed_s = None
            return _REST_S
        if not self._have_device():
            return self._miss_device()
        item = self._current
        if item is not None and self._may_speak(item):
            self._speak(item)
        else:
            if item is not None and item.dry and not self.paused and not self._all_written(item):
                self.underrun_samples += len(self._silence)
            self._write_silence()
        return 0.0

    def _find(self, name: str) -> Utterance | None:
        """The newest of that name, for an utterance that was cut may be spoken again."""
        known = [*self._next] if self._current is None else [self._current, *self._next]
        return next((item for item in reversed(known) if item.name == name), None)

    def _all_written(self, item: Utterance) -> bool:
        return item.end is not None and self._ring.total_read >= item.end and not self._kept

    def _advance(self) -> None:
        """End the current utterance if it is over, and take the next one."""
        if self._current is not None:
            self._end_if_over(self._current)
        while self._current is None and self._next:
            self._current = item = self._next.popleft()
            self._ring.discard_to(item.start)
            self._wake = 0
            self._end_if_over(item)

    def _end_if_over(self, item: Utterance) -> None:
        if item.cut:
            self._fade_away(item)
            self._end(item, PlayOutcome.CUT)
        elif self._all_written(item):
            heard = self._quiet >= self._samples(self.device.latency_s)
            if heard or not item.sounding or not self.device.is_open:
                self._end(item, PlayOutcome.FINISHED)

    def _end(self, item: Utterance, outcome: PlayOutcome) -> None:
        end = self._ring.total_written if item.end is None else item.end
        self._ring.discard_to(max(end, self._stale_end))
        self._current = None
        self._kept = 0
        if item.sounding and self.device.is_open:
            self._quiet_needed = self._samples(self._config.gap_ms / 1000)
        self._listener.on_done(item.name, outcome, item.played_samples)

    def _device_wanted(self) -> bool:
        playing = self._current is not None and not self.paused
        kept = (self._config.keep_open or not self.device.ok) and not self.closing  # lost: until it takes a block again
        return playing or self._tail > 0 or self._wake > 0 or kept

    def _have_device(self) -> bool:
        if self.device.is_open:
            return True
        self._tail = 0
        self._quiet = 0
        self._quiet_needed = self._samples(self._config.lead_ms / 1000)
        self._sounding = False
        return self.device.open()

    def _miss_device(self) -> float:
        """Wait for the device; the utterance fails when that takes too long."""
        self._wake = 0
        wait_s = self.device.retry_in_s()
        item = self._current
        if item is not None and not self.paused:
            now_s = time.monotonic()
            if item.device_missed_s is None:
                item.device_missed_s = now_s
            left_s = item.device_missed_s + self._config.device_wait_s - now_s
            if left_s <= 0:
                self._end(item, PlayOutcome.FAILED)
                return 0.0
            wait_s = min(wait_s, left_s)
        return max(wait_s, 0.001)

    def _may_speak(self, item: Utterance) -> bool:
        if self.paused or self._quiet < self._quiet_needed or self._all_written(item):
            return False
        if self._kept or item.is_ready(self._ring):
            return True
        return item.chime_left(self._ring) > 0 and self._ring.available > 0 and not item.chime_waits

    def _speak(self, item: Utterance) -> None:
        if not self._kept:
            self._kept = self._fill(item)
        count = self._kept
        if count == 0:
            self._write_silence()
            return
        if not self.device.write(self._block):
            return
        self._kept = 0
        self._wrote_speech(item, count)

    def _fill(self, item: Utterance) -> int:
        """Fill the block from the ring; return how many samples of it are speech."""
        block, ring = self._block, self._ring
        limit = len(block) if item.end is None else min(len(block), item.end - ring.total_read)
        if not item.is_ready(self._ring):
            limit = min(limit, item.chime_left(self._ring))
        count = ring.read_into(block[:limit])
        block[count:] = 0
        volume = min(self.volume if item.volume is None else item.volume, item.max_volume)
        if not item.sounding:
            self._gain.reset(volume)
        self._gain.apply(block[:count], volume)
        if count < limit:
            self.underrun_count += not item.dry
            self.underrun_samples += limit - count
            item.hold.begun = item.end is not None  # one longer silence is understood, a stutter is not
        item.dry = count < limit
        return count

    def _wrote_speech(self, item: Utterance, count: int) -> None:
        item.played_samples += count
        item.device_missed_s = None
        self._sounding = count == len(self._block)
        self._quiet = len(self._block) - count
        self._quiet_needed = 0
        self._tail = self._tail_samples() - self._quiet
        item.sounding = True
        if not item.started and item.played_samples > item.chime_samples:
            item.started = True
            self._listener.on_started(item.name, time.monotonic())

    def _write_silence(self) -> None:
        if self.device.write(self._silence):
            self._sounding = False
            self._quiet += len(self._silence)
            self._tail -= len(self._silence)
            self._wake -= len(self._silence)

    def _fade_away(self, item: Utterance) -> None:
        """Write the faded next samples, if the last that was written is speech."""
        if not self._sounding or not self.device.is_open:
            return
        count = min(self._fill(item), FADE_SAMPLES)
        fade_out(self._block, count)
        if self.device.write(self._block):
            self._wrote_speech(item, count)

    def _tail_samples(self) -> int:
        """Silence after speech; at the end of the program no more than it takes for the speech to be heard."""
        tail_ms = min(self._config.tail_ms, _CLOSING_TAIL_MS) if self.closing else self._config.tail_ms
        return self._samples(self.device.latency_s + tail_ms / 1000)

    @staticmethod
    def _samples(seconds: float) -> int:
        return round(seconds * SAMPLE_RATE)
