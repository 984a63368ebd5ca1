"""What `crier bench` does not see: from an MQTT publish to the sound, PulseAudio, and `crier` as a process.

    python tests/bench/bench_daemon.py [--rounds N] [--json]

A real broker, a real crierd; prints a table, then a JSON line. Nothing is asserted: the figures are the machine's.
Run it on a quiet one.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from broker import MOSQUITTO, Watcher, start_broker  # noqa: E402 (found by the line above, as the others are)
from daemon_process import NULL_CONFIG, mqtt_section, run_daemon  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from soundcard import start_pulse  # noqa: E402

from daemon.bench.arithmetic import percentiles  # noqa: E402
from daemon.bench.machine import machine  # noqa: E402
from daemon.bench.texts import SENTENCES  # noqa: E402

BASE = "crier/bench"
FINAL = ("finished", "cancelled", "expired", "rejected", "failed")
CONFIG = f"{NULL_CONFIG}[phrases]\ncache = false\n"
"""Everything is spoken anew: what comes from disk says nothing of the voice."""
PAUSE_S = 0.6
"""Between announcements, so that each finds an idle speaker with a closed device."""


class Speaker:
    """A running crierd, seen from the broker."""

    def __init__(self, daemon, port):
        self.daemon = daemon
        self._events = Watcher(port, f"{BASE}/event")
        self._publisher = Watcher(port, f"{BASE}/availability")  # apart: no event waits for the reply to a publish
        self._publisher.wait(f"{BASE}/availability", lambda payload: payload == b"online")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._events.__exit__(*error)
        self._publisher.__exit__(*error)

    def announce(self, request_id, text, *, whole):
        """Publish one text and wait for its end, which is brought about as soon as it is heard unless ``whole``.

        Returns:
            Milliseconds from the publish to the queued event, to the first sample in the ring (at most), to started.
        """
        began = time.monotonic()
        self._publisher.publish(f"{BASE}/say/json", json.dumps({"text": text, "id": request_id}))
        queued, _ = self._wait(request_id, "queued")
        started, event = self._wait(request_id, "started")
        if not whole:
            self._publisher.publish(f"{BASE}/stop", request_id)
        self._wait(request_id, *FINAL)
        time.sleep(PAUSE_S)
        queued_ms = (queued - began) * 1000
        return {
            "queued_ms": queued_ms,
            "ttfa_ms": queued_ms + event["ttfa_ms"],
            "started_ms": (started - began) * 1000,
        }

    def _wait(self, request_id, *kinds):
        """When an event of the request arrived (monotonic), and the event."""

        def wanted(payload):
            event = json.loads(payload)
            return event["id"] == request_id and event["event_type"] in kinds

        message = self._events.wait(f"{BASE}/event", wanted, timeout=30)
        return message.timestamp, json.loads(message.payload)

    def metrics(self):
        """What the daemon has counted."""
        return self.daemon.client(subscribe=False).op("status")["status"]["metrics"]


def announce_all(speaker, rounds, *, whole=False):
    """Percentiles of the times of ``rounds`` announcements; the first, which warms up, is left out."""
    runs = [speaker.announce(f"a{n}", SENTENCES[n % len(SENTENCES)], whole=whole) for n in range(rounds + 1)][1:]
    figures = {}
    for name in runs[0]:
        figures |= percentiles(name, [run[name] for run in runs])
    return figures


def measure_client(speaker, folder, count):
    """Milliseconds of a whole `crier say` and of a `crier render` into a file, from the process's start to its end."""
    crier = [sys.executable, "-m", "daemon.client"]
    say = [*crier, "say", "--socket", str(speaker.daemon.socket), SENTENCES[0]]
    say_ms = [run_ms(say) for _ in range(count)]
    speaker.daemon.client(subscribe=False).op("stop", what="all")
    render = [*crier, "render", SENTENCES[0], "--out", str(folder / "render.wav")]
    return percentiles("say_process_ms", say_ms) | percentiles(
        "render_process_ms", [run_ms(render) for _ in range(count)]
    )


def run_ms(command):
    """Milliseconds of a process."""
    began = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return (time.monotonic() - began) * 1000


def measure_pulse(folder, port, rounds):
    """The same announcements, said whole, on PulseAudio; None where that is not installed."""
    if shutil.which("pulseaudio") is None:
        return None
    with (
        start_pulse(folder) as pulse,
        run_daemon(folder, CONFIG.replace("null", "pyaudio") + mqtt_section(port, "bench"), env=pulse.env) as daemon,
        Speaker(daemon, port) as speaker,
    ):
        pulse.record()  # with nobody listening a null sink renders 2 s at a time, as no sound card does
        times = announce_all(speaker, min(rounds, len(SENTENCES)), whole=True)
        metrics = speaker.metrics()
        return {**times, "underruns": metrics["underruns"], "underrun_ms": metrics["underrun_ms"]}


def measure_all(folder, rounds):
    """Every figure."""
    broker = start_broker(folder)
    try:
        figures = {"machine": machine()}
        config = CONFIG + mqtt_section(broker.port, "bench")
        with run_daemon(folder, config) as daemon, Speaker(daemon, broker.port) as speaker:
            figures["null_sink"] = announce_all(speaker, rounds)
            figures |= measure_client(speaker, folder, min(10, rounds))
        figures["pulseaudio"] = measure_pulse(folder, broker.port, rounds)
    finally:
        broker.kill()
    return figures


def print_table(figures):
    """The figures for people."""
    where = figures["machine"]
    table = Table(title=f"{where['cpu']}, {where['cores']} cores, load {where['load_1min']} at the start")
    table.add_column("figure, median / 95 %")
    table.add_column("value", justify="right")

    def times(text, values, name):
        table.add_row(text, f"{values[f'{name}_p50']:.1f} / {values[f'{name}_p95']:.1f} ms")

    for sink in ("null_sink", "pulseaudio"):
        if figures[sink]:
            name = sink.replace("_", " ")
            times(f"publish to queued event, {name}", figures[sink], "queued_ms")
            times(f"publish to first sample in the ring, at most, {name}", figures[sink], "ttfa_ms")
            times(f"publish to started event, {name}", figures[sink], "started_ms")
    if figures["pulseaudio"]:
        table.add_row("underruns, pulseaudio", str(figures["pulseaudio"]["underruns"]))
    times("crier say, process", figures, "say_process_ms")
    times("crier render to a file, process", figures, "render_process_ms")
    Console(width=110).print(table)


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure the daemon from the broker to the sound server.")
    parser.add_argument("--rounds", type=int, default=40, help="announcements (default 40)")
    parser.add_argument("--json", action="store_true", help="the JSON line alone")
    args = parser.parse_args()
    if MOSQUITTO is None:
        sys.exit("bench_daemon: mosquitto is not installed")
    with tempfile.TemporaryDirectory() as folder:
        figures = measure_all(Path(folder), max(1, args.rounds))
    if not args.json:
        print_table(figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
