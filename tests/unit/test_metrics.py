"""What the daemon counts."""

import json
import math
import threading

from hypothesis import given
from hypothesis import strategies as st

from daemon.metrics import Metrics, resident_memory
from daemon.values import Event, EventType, Reason


def test_fresh_metrics_are_zeros_and_nones():
    """A snapshot is JSON from the first moment on."""
    snapshot = json.loads(json.dumps(Metrics().snapshot()))
    assert snapshot["requests"] == {}
    assert snapshot["ttfa_ms"] == snapshot["rtf"] == {"p50": None, "p95": None}
    assert [snapshot[name] for name in ("underruns", "underrun_ms", "runaways", "reconnects")] == [0] * 4
    assert snapshot["uptime_s"] >= 0


def test_events_are_counted_by_type_and_reason():
    """Outcomes are told apart by reason, and the time to first audio comes with the event."""
    metrics = Metrics()
    metrics.count_event(Event(event_type=EventType.STARTED, id="a", ttfa_ms=123.456))
    for reason in (None, None, Reason.MUTED):
        metrics.count_event(Event(event_type=EventType.FINISHED, id="a", reason=reason))
    snapshot = metrics.snapshot()
    assert snapshot["requests"] == {"started": 1, "finished": 2, "finished.muted": 1}
    assert snapshot["ttfa_ms"] == {"p50": 123.5, "p95": 123.5}


def test_troubles_add_up():
    """Underruns in number and length, runaways, reconnects."""
    metrics = Metrics()
    metrics.add_underruns(1, 20.0)
    metrics.add_underruns(1, 0.5)
    metrics.count_runaway()
    metrics.set_reconnects(3)
    snapshot = metrics.snapshot()
    assert [snapshot[name] for name in ("underruns", "underrun_ms", "runaways", "reconnects")] == [2, 20.5, 1, 3]


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=600))
def test_percentiles_are_of_the_latest_samples(samples):
    """At least p % of the last 256 samples are at or below the percentile, and it is one of them."""
    metrics = Metrics()
    for sample in samples:
        metrics.add_rtf(sample)
    window = samples[-256:]
    for p, value in ((50, metrics.snapshot()["rtf"]["p50"]), (95, metrics.snapshot()["rtf"]["p95"])):
        assert value in window
        assert sum(sample <= value for sample in window) >= math.ceil(len(window) * p / 100)
        assert sum(sample < value for sample in window) < math.ceil(len(window) * p / 100)


def test_resident_memory_and_its_peak():
    """Memory that was touched shows in the peak, also after it is gone."""
    before = resident_memory()["peak_rss_bytes"]
    size = before + (32 << 20)
    block = bytearray(b"\1") * size
    del block
    after = resident_memory()
    assert after["peak_rss_bytes"] >= size
    assert 0 < after["rss_bytes"] < after["peak_rss_bytes"]


def test_threads_may_count_at_once():
    """No count is lost between threads."""
    metrics = Metrics()
    event = Event(event_type=EventType.QUEUED, id="a")
    threads = [threading.Thread(target=lambda: [metrics.count_event(event) for _ in range(2000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics.snapshot()["requests"] == {"queued": 8000}
