"""The daemon as it is used: a real broker, a real crierd, times from the publish on. Prints a table, then a JSON line.

    python tests/bench/bench_daemon.py [--rounds N] [--idle-s S] [--json]

Nothing is asserted: the figures are the machine's. Run it on a quiet one.
"""

import argparse
import json
import math
import os
import platform
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

from daemon.bench import SENTENCES  # noqa: E402

BASE = "crier/bench"
FINAL = ("finished", "cancelled", "expired", "rejected", "failed")
STARTS = 5
CONFIG = f"{NULL_CONFIG}[phrases]\ncache = false\n"
"""Everything is spoken anew: what comes from disk says nothing of the voice."""
PAUSE_S = 0.3
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

    def memory(self):
        """Resident bytes, and how many of them are this process's own."""
        info = self.daemon.info().memory_full_info()
        return {"rss_bytes": info.rss, "uss_bytes": info.uss}

    def idle_percent(self, seconds):
        """Processor time of the idle daemon, percent of one core."""
        times = self.daemon.info().cpu_times
        before, began = sum(times()[:2]), time.monotonic()
        time.sleep(seconds)
        return 100 * (sum(times()[:2]) - before) / (time.monotonic() - began)


def percentiles(values):
    """Median and 95th percentile by nearest rank."""
    ordered = sorted(values)
    return {f"p{p}": round(ordered[math.ceil(len(ordered) * p / 100) - 1], 2) for p in (50, 95)}


def announce_all(speaker, rounds, *, whole=False):
    """Percentiles of the times of ``rounds`` announcements; the first, which warms up, is left out."""
    runs = [speaker.announce(f"a{n}", SENTENCES[n % len(SENTENCES)], whole=whole) for n in range(rounds + 1)][1:]
    return {name: percentiles([run[name] for run in runs]) for name in runs[0]}


def measure_start(folder, config, starts):
    """Milliseconds from starting the process to READY."""
    times = []
    for _ in range(starts):
        began = time.monotonic()
        with run_daemon(folder, config) as daemon:
            times.append((time.monotonic() - began) * 1000)
            daemon.terminate()
    return percentiles(times)


def measure_client(speaker, count):
    """Milliseconds of a whole ``crier say``, from starting the process to its exit."""
    command = ["-m", "daemon.client", "say", "--socket", str(speaker.daemon.socket), "Dinner is ready."]
    times = [run_ms([sys.executable, *command]) for _ in range(count)]
    speaker.daemon.client(subscribe=False).op("stop", what="all")
    return percentiles(times)


def run_ms(command):
    """Milliseconds of a process."""
    began = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return (time.monotonic() - began) * 1000


def measure_peers(folder, count):
    """Milliseconds in which other programs, started afresh, speak the first sentence into a file."""
    out = str(folder / "peer.wav")
    commands = {
        "crier render": [sys.executable, "-m", "daemon.client", "render", SENTENCES[0], "--out", out],
        "flite": ["flite", "-voice", "slt", "-t", SENTENCES[0], "-o", out],
        "espeak-ng": ["espeak-ng", "-w", out, SENTENCES[0]],
    }
    found = {name: command for name, command in commands.items() if shutil.which(command[0])}
    return {name: percentiles([run_ms(command) for _ in range(count)]) for name, command in found.items()}


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
        return {**times, "underruns": metrics["underruns"], "underrun_ms": metrics["underrun_ms"], **speaker.memory()}


def measure_engine(rounds):
    """``crier bench``."""
    command = [sys.executable, "-m", "daemon.client", "bench", "--json", "--rounds", str(rounds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure_all(folder, rounds, idle_s):
    """Every figure."""
    broker = start_broker(folder)
    try:
        config = CONFIG + mqtt_section(broker.port, "bench")
        figures = {"machine": machine(), "ready_ms": measure_start(folder, config, min(STARTS, rounds))}
        with run_daemon(folder, config) as daemon, Speaker(daemon, broker.port) as speaker:
            figures["at_start"] = speaker.memory()
            figures["null_sink"] = announce_all(speaker, rounds)
            figures["after"] = speaker.memory()
            figures["say_ms"] = measure_client(speaker, min(10, rounds))
            time.sleep(1.0)
            figures["idle_percent"] = round(speaker.idle_percent(idle_s), 3)
        figures["pulseaudio"] = measure_pulse(folder, broker.port, rounds)
    finally:
        broker.kill()
    figures["peers_ms"] = measure_peers(folder, min(5, rounds))
    return {**figures, "engine": measure_engine(min(5, rounds))}


def machine():
    """Where the figures come from."""
    lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    names = [value.strip() for key, _, value in lines if key.strip() in ("model name", "Model")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }


def print_table(figures):
    """The figures for people."""
    where = figures["machine"]
    table = Table(title=f"{where['cpu']}, {where['cores']} cores, load {where['load']} at the start")
    table.add_column("figure")
    table.add_column("value", justify="right")

    def times(name, value):
        table.add_row(name, f"{value['p50']:.1f} / {value['p95']:.1f} ms")

    times("process start to READY, median / 95 %", figures["ready_ms"])
    for sink in ("null_sink", "pulseaudio"):
        if figures[sink]:
            name = sink.replace("_", " ")
            times(f"publish to queued event, {name}", figures[sink]["queued_ms"])
            times(f"publish to first sample in the ring, at most, {name}", figures[sink]["ttfa_ms"])
            times(f"publish to started event, {name}", figures[sink]["started_ms"])
    if figures["pulseaudio"]:
        table.add_row("underruns, pulseaudio", str(figures["pulseaudio"]["underruns"]))
    for name in ("at_start", "after"):
        rss, uss = (figures[name][kind] / 1e6 for kind in ("rss_bytes", "uss_bytes"))
        table.add_row(f"resident memory {name.replace('_', ' ')} (its own)", f"{rss:.0f} ({uss:.0f}) MB")
    table.add_row("idle, of one core", f"{figures['idle_percent']:.2f} %")
    times("crier say, process", figures["say_ms"])
    for name, value in figures["peers_ms"].items():
        times(f"{name} to a file, process", value)
    engine = figures["engine"]
    table.add_row("real-time factor", f"{engine['rtf']:.3f}")
    times("first audio of the engine alone", {"p50": engine["ttfa_ms_p50"], "p95": engine["ttfa_ms_p95"]})
    for stage, value in engine["frame_ms"].items():
        table.add_row(f"  {stage}, a frame", f"{value:.2f} ms")
    Console(width=110).print(table)


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure the daemon end to end.")
    parser.add_argument("--rounds", type=int, default=40, help="announcements (default 40)")
    parser.add_argument("--idle-s", type=float, default=30.0, help="seconds of idling (default 30)")
    parser.add_argument("--json", action="store_true", help="the JSON line alone")
    args = parser.parse_args()
    if MOSQUITTO is None:
        sys.exit("bench_daemon: mosquitto is not installed")
    with tempfile.TemporaryDirectory() as folder:
        figures = measure_all(Path(folder), max(1, args.rounds), args.idle_s)
    if not args.json:
        print_table(figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
