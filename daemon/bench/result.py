"""The form of a result, and the names and units of its figures for people."""

from typing import Any

FORMAT = "crier-bench-1"

MS, MB, GB_S, PERCENT = ("ms", 1.0, 2), ("MB", 1e-6, 0), ("GB/s", 1e-9, 1), ("%", 100.0, 1)
"""What is shown: its unit, what a figure is multiplied by for it, and digits after the point."""
PLAIN = ("", 1.0, 3)
COUNT = ("", 1.0, 0)
ROWS: tuple[tuple[str, str, tuple[str, float, int]], ...] = (
    ("rtf", "real-time factor (below 1 keeps up)", PLAIN),
    ("bandwidth_rtf", "real-time factor if the memory were never idle", PLAIN),
    ("ttfa_ms_first", "first announcement: accepted to first sample in the ring", MS),
    ("ttfa_ms_p50", "accepted to first sample in the ring, median", MS),
    ("ttfa_ms_p95", "accepted to first sample in the ring, 95 %", MS),
    ("onset_ms_p50", "sent to audible, median", MS),
    ("onset_ms_p95", "sent to audible, 95 %", MS),
    ("lead_ms", "  of which silence before speech", MS),
    ("device_latency_ms", "  of which latency of the device", MS),
    ("told_wait_s_max", "longest wait told beforehand", ("s", 1.0, 1)),
    ("ready_ms_p50", "process start to READY, median", MS),
    ("load_s", "load and warm-up of the engine", ("s", 1.0, 2)),
    ("frames_per_s", "frames a second", ("", 1.0, 1)),
    ("frame_time_ms_p50", "a frame, median", MS),
    ("frame_time_ms_p99", "a frame, 99 %", MS),
    ("frame_time_p99_to_p50", "99 % over the median", PLAIN),
    ("outside_native_share", "of a frame outside llama.cpp and onnxruntime", PERCENT),
    ("bytes_per_frame", "weights read for a frame", ("MB", 1e-6, 1)),
    ("step_bytes_per_frame", "  of which by llama.cpp", ("MB", 1e-6, 1)),
    ("bandwidth_bytes_per_s", "memory bandwidth, best pass", GB_S),
    ("bandwidth_median_bytes_per_s", "memory bandwidth, median", GB_S),
    ("bandwidth_fraction", "of it used over a frame", PERCENT),
    ("step_bandwidth_fraction", "of it used over llama.cpp's steps", PERCENT),
    ("underruns", "underruns", COUNT),
    ("played_whole", "  in so many announcements played whole", COUNT),
    ("rss_bytes", "resident memory", MB),
    ("pss_bytes", "  with its share of what is shared (PSS)", MB),
    ("uss_bytes", "  its own alone (USS)", MB),
    ("idle_cpu_percent", "idle, of one core", ("%", 1.0, 3)),
)
"""Key, name for people, how it is shown; in this order."""


def shown(value: Any, how: tuple[str, float, int]) -> str:
    """A figure with its unit; a dash where there is none."""
    unit, factor, digits = how
    return "-" if value is None else f"{value * factor:.{digits}f} {unit}".rstrip()
