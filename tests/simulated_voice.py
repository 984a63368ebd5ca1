"""A voice of any speed on a virtual clock, heard through the real ring and playback: a block of the sink is 20 ms."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from playback_rig import BLOCK, Rig

from daemon.audio.utterance import Hold
from daemon.forecast import Forecaster, Outlook
from daemon.text_source import TextSource
from daemon.values import SAMPLE_RATE, Segment

FRAME_S = 0.08
FRAME = 1920


class Engine:
    """Says what an engine says of its bundle: a token is expected to last for 0.1 s."""

    def __init__(self, rtf, *, max_ratio=2.5, slack_s=2.0):
        limits = SimpleNamespace(min_ratio=0.2, max_ratio=max_ratio, slack_s=slack_s, max_utterance_s=90.0)
        self.bundle = SimpleNamespace(manifest=SimpleNamespace(limits=limits, audio=SimpleNamespace(frame_rate=12.5)))
        self.rtf = rtf

    def count_tokens(self, text):
        return len(text)

    def expected_s(self, num_tokens):
        return 0.1 * num_tokens


class Pieces:
    """A segmenter: every push is a segment; numbers are pauses."""

    def __init__(self):
        self._offset = 0

    def push(self, text):
        self._offset += len(text)
        pause_s = float(text) if text.replace(".", "").isdigit() else 0.0
        return [Segment("" if pause_s else text, self._offset, pause_s)]

    def flush(self):
        return []


@dataclass
class Heard:
    """What came of an utterance, in seconds of the virtual clock."""

    started_s: float
    ended_s: float
    underrun_samples: int
    underruns: int
    earliest_s: float
    """When it could have started without running dry, as is known afterwards."""
    made_s: float


def forecaster(rtf, ratios=(), **limits):
    """One that has heard segments of five seconds, each so many times as long as expected."""
    made = Forecaster(Engine(rtf, **limits))
    for ratio in ratios:
        made.lengths("a").add(5.0, 5.0 * ratio)
    return made


def speak(forecasts, segments, pace, *, cautious=True, setup_s=0.0, capacity_s=90, later=(), speed=1.0):
    """Speak segments of (text, seconds that it lasts) at ``pace(seconds of speech made)``.

    Args:
        setup_s: to read a token of a segment's text.
        later: (after so many seconds of speech, more segments): text that is appended.
    """
    rig, hold = Rig(capacity=capacity_s * SAMPLE_RATE, lead_ms=0, tail_ms=0), Hold(Hold.UNKNOWN)
    text = "".join(text for text, _ in segments)
    source = TextSource(text, more=bool(later), expected_s=0.1 * len(text))
    outlook = Outlook(forecasts, source, hold, voice="a", speed=speed, cautious=cautious)
    segmenter, waiting, later = outlook.overhear(Pieces()), [], list(later)
    for text, length_s in segments:
        waiting += [(segment, length_s) for segment in segmenter.push(text)]
    if not later:
        segmenter.flush()
    rig.begin("a", finish=False, hold=hold)
    now = made = 0.0
    written = []  # (when, samples)
    while waiting:
        segment, length_s = waiting.pop(0)
        total = round((segment.pause_s or length_s) * SAMPLE_RATE)
        done = 0
        while done < total:
            count = min(FRAME, total - done)
            took = 0.0 if segment.pause_s else pace(made) * count / SAMPLE_RATE
            took += setup_s * len(segment.text) if done == 0 else 0.0
            now += took
            while len(rig.sink.got) * BLOCK / SAMPLE_RATE < now:
                rig.playback.step()
            done += count
            made += count / SAMPLE_RATE
            chunk = SimpleNamespace(frames=int(not segment.pause_s))
            session = SimpleNamespace(segment=segment, segment_samples=done, segment_ended=done == total, chunk=chunk)
            outlook.note(session, count, took)
            while rig.ring.free < count:
                rig.playback.step()
                now = max(now, len(rig.sink.got) * BLOCK / SAMPLE_RATE)
            rig.ring.write(np.ones(count, np.int16), 0)
            written.append((now, count))
            if later and made >= later[0][0]:
                for text, length_s in later.pop(0)[1]:
                    waiting += [(more, length_s) for more in segmenter.push(text)]
                    source.text += text
                    source.expected_s += 0.1 * len(text)
                if not later:
                    segmenter.flush()
    outlook.close()
    rig.playback.finish("a", rig.ring.total_written)
    rig.rest()
    heard = rig.sink.pcm
    before = np.cumsum([0] + [count for _, count in written])
    earliest_s = max(when - position / SAMPLE_RATE for (when, _), position in zip(written, before, strict=False))
    return Heard(
        started_s=int(np.argmax(heard != 0)) / SAMPLE_RATE,
        ended_s=(len(heard) - int(np.argmax(heard[::-1] != 0))) / SAMPLE_RATE,
        underrun_samples=rig.playback.underrun_samples,
        underruns=rig.playback.underrun_count,
        earliest_s=max(earliest_s, 0.0),
        made_s=now,
    )
