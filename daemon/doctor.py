"""``crier doctor``: what this machine has, and whether the configuration will work on it."""

import argparse
import json
import platform
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from daemon import doctor_page, machine, startup
from daemon.audio import tempo
from daemon.bandwidth import bandwidth_rtf, bytes_per_frame, memory_bandwidth
from daemon.broker_check import BrokerCheck
from daemon.config import Config, load_config
from daemon.engine.bundle import bundle_search, load_bundle
from daemon.engine.engine import Engine, choose_threads
from daemon.engine.llama import system_info
from daemon.engine.onnx import runtime
from daemon.errors import AudioError, ConfigError, SpeechError
from daemon.expectation import Expectation, expect, measured, needed_bytes
from daemon.metrics import resident_memory
from daemon.places import Places
from daemon.synthesizer import Synthesizer

TOO_SLOW = 71
"""The exit code where the configured voice will not keep up and nothing is wrong: what sysexits has for a system that
cannot do what is asked. The daemon speaks all the same, after a wait."""


class _Bandwidth:
    """The memory bandwidth in bytes a second, measured once for each number of threads that is asked for."""

    def __init__(self) -> None:
        self.measured: dict[int, int] = {}

    def of(self, num_threads: int) -> int:
        if num_threads not in self.measured:
            self.measured[num_threads] = round(memory_bandwidth(num_threads))
        return self.measured[num_threads]


def run(args: argparse.Namespace, places: Places) -> int:
    """Report; the exit code is that of the first problem that keeps the daemon from speaking.

    Without any it tells whether the configured voice keeps up: 0, or ``TOO_SLOW``.
    """
    problems: list[SpeechError] = []
    path = Path(args.config) if args.config else places.config
    try:
        config = load_config(path)
    except ConfigError as err:
        config = Config()
        problems.append(err)
    problems += startup.problems(config, places.credentials)
    bandwidth = _Bandwidth()
    report: dict[str, Any] = {
        "config": str(path) if path else None,
        **_machine(bandwidth),
        "devices": _devices(config, problems),
    }
    configured = report["configured"] = _configured(config, problems)
    report["bundles"] = _bundles(config, bandwidth, configured)
    report["bandwidth_by_threads"] = bandwidth.measured
    report["libsonic"] = tempo.version() or None
    broker = BrokerCheck(config.mqtt, places.credentials).run() if config.mqtt.enabled else None
    report["broker"] = _broker(config, broker)
    report["notes"] = [*_notes(report), *startup.notes(config, broker)]
    report["problems"] = list(dict.fromkeys(map(str, problems)))  # a bad lexicon is also found by what reads with it
    if args.json:
        print(json.dumps(report))
    else:
        doctor_page.show(report)
    if problems:
        return problems[0].exit_code
    return 0 if configured and configured["keeps_up"] else TOO_SLOW


def _machine(bandwidth: _Bandwidth) -> dict[str, Any]:
    found = machine.cores()
    governors = machine.governors()
    return {
        "machine": platform.machine(),
        "cores": found.allowed,
        "cores_present": found.present,
        "cores_quota": found.quota,
        "cores_note": found.note or None,
        "governors": governors,
        "governor_advice": machine.governor_advice(governors) or None,
        "simd": system_info(),
        "onnxruntime": runtime(),
        "onnxruntime_simd": machine.mlas_kernels(machine.cpu_flags()),
        "bandwidth_bytes_per_s": round(bandwidth.of(1)),
        "available_bytes": machine.available_memory(),
    }


def _broker(config: Config, check: BrokerCheck | None) -> dict[str, Any] | None:
    if check is None:
        return None
    where = f"{config.mqtt.host}:{config.mqtt.port}"
    return {"address": where, "reached": not check.trouble, "mqtt": check.version or None}


def _notes(report: dict[str, Any]) -> list[str]:
    """What is no problem for the daemon, and may well be one for whoever listens."""
    notes = [text for text in (report["governor_advice"],) if text]
    if report["cores_note"]:
        notes.append(f"cores: {report['cores_note']}")
    configured = report["configured"]
    if not configured:
        return notes
    available = report["available_bytes"]
    if available is not None and configured["needed_bytes"] > available:
        need, there = (f"{value / 1e6:.0f} MB" for value in (configured["needed_bytes"], available))
        notes.append(f"{configured['name']} needs about {need} of memory, {there} are available: it will be slow")
    if not configured["keeps_up"]:
        notes.append(
            f"{configured['name']} does not keep up here: speech begins when the rest can be made in time, so that"
            " it does not break off; a smaller recipe, the phrase cache or a renderer ([share]) make it begin earlier"
        )
    return notes


def _devices(config: Config, problems: list[SpeechError]) -> list[dict[str, Any]]:
    """The output devices; that there is none is a problem only for the pyaudio sink."""
    from daemon.audio.pyaudio_sink import list_devices  # noqa: PLC0415 (PortAudio is loaded only where it is used)

    try:
        devices: list[dict[str, Any]] = [{"index": d.index, "name": d.name} for d in list_devices()]
    except AudioError as err:
        devices = []
        reason = f": {err}"
    else:
        reason = ""
    if config.audio.sink == "pyaudio":
        wanted = config.audio.device.lower()
        if not devices:
            problems.append(AudioError(f"no sound output device{reason}"))
        elif wanted and not any(wanted in str(d["name"]).lower() or wanted == str(d["index"]) for d in devices):
            problems.append(AudioError(f"no sound device matches [audio] device = {config.audio.device!r}"))
    return devices


def _bundles(config: Config, bandwidth: _Bandwidth, configured: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Every bundle that can be found, checked to the last byte, with what is to be expected of it here."""
    folders = [
        path.parent for search in bundle_search(config.engine) for path in sorted(search.glob("*/manifest.toml"))
    ]
    if configured and Path(configured["path"]) not in folders:
        folders.append(Path(configured["path"]))
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("checking {task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=None)
        found = []
        for folder in folders:
            progress.update(task, description=str(folder))
            known = configured if configured and Path(configured["path"]) == folder else None
            found.append({"path": str(folder)} | _bundle(folder, config, bandwidth, known))
    return found


def _bundle(folder: Path, config: Config, bandwidth: _Bandwidth, configured: dict[str, Any] | None) -> dict[str, Any]:
    try:
        bundle = load_bundle(folder, verify="full")
        manifest, num_threads = bundle.manifest, choose_threads(config.engine, bundle)
        if configured:
            expected = Expectation(configured["rtf"], "measured")
        else:
            expected = expect(bundle, config.engine, bandwidth.of(num_threads))
    except SpeechError as err:
        return {"error": str(err)}
    return {
        "name": manifest.name,
        "recipe": manifest.recipe,
        "depth_recipe": manifest.depth_storage,
        "bytes": sum(file.bytes for file in manifest.files.values()),
        "can_clone": "codec_encoder" in manifest.files,
        "threads": num_threads,
        "bytes_per_frame": bytes_per_frame(manifest),
        "needed_bytes": needed_bytes(manifest),
        "bandwidth_rtf": round(bandwidth_rtf(manifest, bandwidth.of(num_threads)), 4),
        "rtf": round(expected.rtf, 4),
        "rtf_how": expected.how,
        "verdict": expected.words,
    }


def _configured(config: Config, problems: list[SpeechError]) -> dict[str, Any] | None:
    """The configured bundle, loaded and measured."""
    before = resident_memory()["rss_bytes"]
    try:
        with Engine(config.engine) as engine:
            expected = measured(engine)
            after = resident_memory()["rss_bytes"]
            Synthesizer(engine, text=config.text)  # reads the lexicon
            manifest = engine.bundle.manifest
            return {
                "name": manifest.name,
                "path": str(engine.bundle.folder),
                "threads": engine.num_threads,
                "rtf": round(expected.rtf, 3),
                "keeps_up": expected.rtf < 1,
                "verdict": expected.words,
                "bytes_per_frame": bytes_per_frame(manifest),
                "needed_bytes": needed_bytes(manifest),
                "loaded_bytes": None if before is None or after is None else after - before,
            }
    except SpeechError as err:
        problems.append(err)
        return None
