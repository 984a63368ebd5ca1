"""What the daemon counts, for ``crier status --json``."""

import threading
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

from daemon.values import Event

_WINDOW = 256
_STATUS_FILE = Path("/proc/self/status")


class Metrics:
    """Thread-safe counters since the start, and the latest samples of what varies."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._start = time.monotonic()
        self._requests: Counter[str] = Counter()
        self._renders: Counter[str] = Counter()
        self._ttfa_ms: deque[float] = deque(maxlen=_WINDOW)
        self._rtf: deque[float] = deque(maxlen=_WINDOW)
        self._underruns = 0
        self._underrun_ms = 0.0
        self._runaways = 0
        self._reconnects = 0
        self._remote_jobs = 0
        self._remote_fallbacks = 0
        self._phrase_hits = 0
        self._phrase_misses = 0
        self._phrase_bytes = 0

    def count_event(self, event: Event) -> None:
        """Count an event by its type, and by its reason where it has one (``cancelled.stopped``); keep its TTFA."""
        name = str(event.event_type) if event.reason is None else f"{event.event_type}.{event.reason}"
        with self._lock:
            self._requests[name] += 1
            if event.ttfa_ms is not None:
                self._ttfa_ms.append(event.ttfa_ms)

    def add_rtf(self, rtf: float) -> None:
        """Add an utterance's synthesis time divided by its audio time."""
        with self._lock:
            self._rtf.append(rtf)

    def add_underruns(self, count: int, ms: float) -> None:
        """Count gaps inside an utterance, ``ms`` long together, where speech should have been."""
        with self._lock:
            self._underruns += count
            self._underrun_ms += ms

    def count_runaway(self) -> None:
        """Count an utterance in which a segment ran away."""
        with self._lock:
            self._runaways += 1

    def count_render(self, outcome: str) -> None:
        """Count speech that was made for a door (finished, cancelled, failed)."""
        with self._lock:
            self._renders[outcome] += 1

    def count_remote(self, *, fallback: bool) -> None:
        """Count an announcement that was to be made by a renderer: whether the local voice had to take over."""
        with self._lock:
            self._remote_jobs += not fallback
            self._remote_fallbacks += fallback

    def count_phrase(self, *, hit: bool) -> None:
        """Count an utterance that could have been in the phrase cache: whether it was."""
        with self._lock:
            self._phrase_hits += hit
            self._phrase_misses += not hit

    def set_phrase_bytes(self, num_bytes: int) -> None:
        """Note how large the phrase cache is."""
        with self._lock:
            self._phrase_bytes = num_bytes

    def set_reconnects(self, reconnects: int) -> None:
        """Note how often the connection to the broker came back."""
        with self._lock:
            self._reconnects = reconnects

    def snapshot(self) -> dict[str, Any]:
        """Everything, ready for JSON; what has no sample yet is None."""
        memory = resident_memory()  # not under the lock: the audio thread counts events too
        with self._lock:
            return {
                "uptime_s": round(time.monotonic() - self._start, 1),
                "requests": dict(self._requests),
                "renders": dict(self._renders),
                "ttfa_ms": _percentiles(self._ttfa_ms, 1),
                "rtf": _percentiles(self._rtf, 3),
                "underruns": self._underruns,
                "underrun_ms": round(self._underrun_ms, 1),
                "runaways": self._runaways,
                "reconnects": self._reconnects,
                "remote_jobs": self._remote_jobs,
                "remote_fallbacks": self._remote_fallbacks,
                "phrases": {
                    "hits": self._phrase_hits,
                    "misses": self._phrase_misses,
                    "bytes": self._phrase_bytes,
                },
                **memory,
            }

    def summary(self) -> dict[str, Any]:
        """The few figures that are worth watching: plain numbers, None where there is no sample yet."""
        whole = self.snapshot()
        return {
            "rtf": whole["rtf"]["p50"],
            "ttfa_ms": whole["ttfa_ms"]["p50"],
            "underruns": whole["underruns"],
            "requests": whole["requests"].get("queued", 0),
            "phrases": {name: whole["phrases"][name] for name in ("hits", "misses")},
            "uptime_s": whole["uptime_s"],
            "rss_bytes": whole["rss_bytes"],
        }


def resident_memory() -> dict[str, int | None]:
    """This process's resident memory in bytes, now and at its highest; None where /proc does not tell."""
    try:
        lines = _STATUS_FILE.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    kib = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines) if "kB" in value}
    return {
        name: kib[field] * 1024 if field in kib else None
        for name, field in (("rss_bytes", "VmRSS"), ("peak_rss_bytes", "VmHWM"))
    }


def _percentiles(samples: deque[float], digits: int) -> dict[str, float | None]:
    """Median and 95th percentile by nearest rank: each is a sample that was seen."""
    ordered = sorted(samples)
    if not ordered:
        return {"p50": None, "p95": None}
    return {f"p{p}": round(ordered[-(-len(ordered) * p // 100) - 1], digits) for p in (50, 95)}
