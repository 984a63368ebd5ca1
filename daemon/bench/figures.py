"""What was measured of the engine, as figures: milliseconds of a frame, and its bytes set against the memory's speed.

A frame reads every weight of the backbone once, the depth decoder's once for each codebook, and the heads and
the codec once. The time it cannot do without is those bytes over the memory's bandwidth; the *bandwidth fraction* is
that time's share of the time it took.
"""

from typing import Any

from daemon.bandwidth import BandwidthMeter, bandwidth_rtf, bytes_per_frame, step_bytes_per_frame
from daemon.bench.arithmetic import percentile, percentiles
from daemon.bench.speaking import Frames, Speech, Spoken
from daemon.engine.bundle import Manifest

LLAMA_STAGES = ("backbone", "depth")


def engine_figures(speech: Speech) -> dict[str, Any]:
    """Real-time factor, first audio, and where the time of a frame goes. Times of a frame hold all there is."""
    texts = speech.texts
    frames = sum(text.frames for text in texts)
    frame_s = sum(text.synthesis_s for text in texts) / frames
    stages = {name: 1000 * sum(text.stages[name] for text in texts) / frames for name in texts[0].stages}
    return {
        "utterances": len(texts),
        "cut": sum(text.cut for text in texts),
        "rtf": round(percentile([text.synthesis_s / text.audio_s for text in texts], 50), 4),
        **percentiles("first_audio_ms", [1000 * text.first_audio_s for text in texts]),
        "frames": frames,
        "frames_per_s": round(1 / frame_s, 2),
        "frame_ms": {name: round(ms, 3) for name, ms in {**stages, "other": other_ms(1000 * frame_s, stages)}.items()},
        **steady_figures(speech.steady),
    }


def other_ms(frame_ms: float, stages: dict[str, float]) -> float:
    """What no stage accounts for; nothing, where stages that run beside each other add up to more than the frame."""
    return max(0.0, frame_ms - sum(stages.values()))


def steady_figures(steady: Frames) -> dict[str, Any]:
    """How even the frames are that only make sound, and what of them is neither llama.cpp's nor onnxruntime's."""
    if not steady.seconds:
        return {**percentiles("frame_time_ms", [], 50, 99), "frame_time_p99_to_p50": None, "outside_native_share": None}
    p50, p99 = (percentile(steady.seconds, percent) for percent in (50, 99))
    return {
        **percentiles("frame_time_ms", [1000 * s for s in steady.seconds], 50, 99),
        "frame_time_p99_to_p50": round(p99 / p50, 3),
        "outside_native_share": round(outside_share(steady), 4),
    }


def outside_share(steady: Frames) -> float:
    """Sampling's share of the frames' time, and Python's, the stages' own included."""
    return max(0.0, 1 - steady.native_s / sum(steady.seconds))


def memory_figures(manifest: Manifest, steady: Frames, meter: BandwidthMeter) -> dict[str, Any]:
    """Bytes a frame reads, and which fraction of the bandwidth that is, over the frame and over llama.cpp's steps."""
    frame_bytes, step_bytes = bytes_per_frame(manifest), step_bytes_per_frame(manifest)
    return {
        "bytes_per_frame": frame_bytes,
        "step_bytes_per_frame": step_bytes,
        "bandwidth_bytes_per_s": round(meter.best),
        "bandwidth_median_bytes_per_s": round(meter.median),
        "bandwidth_fraction": fraction(frame_bytes, len(steady.seconds), sum(steady.seconds), meter.best),
        "step_bandwidth_fraction": fraction(
            step_bytes, len(steady.seconds), sum(steady.stages.get(name, 0.0) for name in LLAMA_STAGES), meter.best
        ),
        "bandwidth_rtf": round(bandwidth_rtf(manifest, meter.best), 4),
    }


def fraction(num_bytes: int, times: int, seconds: float, bandwidth: float) -> float | None:
    """Of ``bandwidth``, what reading ``num_bytes`` so many times in ``seconds`` takes; None where nothing was read."""
    return round(num_bytes * times / seconds / bandwidth, 4) if seconds else None


def by_length(texts: list[Spoken]) -> list[dict[str, Any]]:
    """For every text, shortest first: characters, seconds of speech, first audio and the whole synthesis (medians)."""
    rows = []
    for text in sorted({spoken.text for spoken in texts}, key=len):
        of_it = [spoken for spoken in texts if spoken.text == text]
        rows.append(
            {
                "chars": len(text),
                "audio_s": round(percentile([spoken.audio_s for spoken in of_it], 50), 3),
                "first_audio_ms": round(percentile([1000 * spoken.first_audio_s for spoken in of_it], 50), 2),
                "synthesis_ms": round(percentile([1000 * spoken.synthesis_s for spoken in of_it], 50), 1),
                "cut": any(spoken.cut for spoken in of_it),
            }
        )
    return rows
