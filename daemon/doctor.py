"""``crier doctor``: what this machine has, and whether the configuration will work on it."""

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from daemon import startup
from daemon.audio import tempo
from daemon.bandwidth import bandwidth_rtf, bytes_per_frame, memory_bandwidth
from daemon.config import Config, load_config
from daemon.engine.bundle import bundle_search, load_bundle
from daemon.engine.engine import Engine, choose_threads
from daemon.engine.llama import system_info
from daemon.errors import AudioError, ConfigError, ModelError, SpeechError
from daemon.places import Places
from daemon.synthesizer import Synthesizer


class _Bandwidth:
    """The memory bandwidth in bytes a second, measured once for each number of threads that is asked for."""

    def __init__(self) -> None:
        self.measured: dict[int, int] = {}

    def of(self, num_threads: int) -> int:
        if num_threads not in self.measured:
            self.measured[num_threads] = round(memory_bandwidth(num_threads))
        return self.measured[num_threads]


def run(args: argparse.Namespace, places: Places) -> int:
    """Report; the exit code is that of the first problem that keeps the daemon from speaking, else 0."""
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
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "simd": system_info(),
        "bandwidth_bytes_per_s": round(bandwidth.of(1)),
        "devices": _devices(config, problems),
        "bundles": _bundles(config, bandwidth),
        "bandwidth_by_threads": bandwidth.measured,
        "libsonic": tempo.version() or None,
        "configured": _configured(config, problems),
    }
    report["notes"] = list(startup.notes(config))
    report["problems"] = list(dict.fromkeys(map(str, problems)))  # a bad lexicon is also found by what reads with it
    if args.json:
        print(json.dumps(report))
    else:
        _print(report)
    return problems[0].exit_code if problems else 0


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


def _bundles(config: Config, bandwidth: _Bandwidth) -> list[dict[str, Any]]:
    """Every bundle that can be found, checked to the last byte, with what this machine's memory allows it at best."""
    folders = [
        path.parent for search in bundle_search(config.engine) for path in sorted(search.glob("*/manifest.toml"))
    ]
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("checking {task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=None)
        found = []
        for folder in folders:
            progress.update(task, description=str(folder))
            found.append({"path": str(folder)} | _bundle(folder, config, bandwidth))
    return found


def _bundle(folder: Path, config: Config, bandwidth: _Bandwidth) -> dict[str, Any]:
    try:
        bundle = load_bundle(folder, verify="full")
    except ModelError as err:
        return {"error": str(err)}
    manifest, num_threads = bundle.manifest, choose_threads(config.engine, bundle)
    return {
        "name": manifest.name,
        "recipe": manifest.recipe,
        "depth_recipe": manifest.depth_storage,
        "bytes": sum(file.bytes for file in manifest.files.values()),
        "can_clone": "codec_encoder" in manifest.files,
        "threads": num_threads,
        "bytes_per_frame": bytes_per_frame(manifest),
        "bandwidth_rtf": round(bandwidth_rtf(manifest, bandwidth.of(num_threads)), 4),
    }


def _configured(config: Config, problems: list[SpeechError]) -> dict[str, Any] | None:
    """The configured bundle, loaded and measured."""
    try:
        with Engine(config.engine) as engine:
            engine.self_test()
            Synthesizer(engine, text=config.text)  # reads the lexicon
            return {
                "name": engine.bundle.manifest.name,
                "threads": engine.num_threads,
                "rtf": round(engine.rtf, 3),
                "keeps_up": engine.rtf < 1,
                "bytes_per_frame": bytes_per_frame(engine.bundle.manifest),
            }
    except SpeechError as err:
        problems.append(err)
        return None


def _print(report: dict[str, Any]) -> None:
    table = Table(show_header=False, title="crier doctor")
    table.add_row("configuration", Text(report["config"] or "none: the defaults"))
    table.add_row("machine", f"{report['machine']}, {report['cores']} cores")
    table.add_row("SIMD in llama.cpp", report["simd"])
    for num_threads, speed in report["bandwidth_by_threads"].items():
        table.add_row(f"memory, {num_threads} thread(s)", f"{speed / 1e9:.1f} GB/s")
    for device in report["devices"]:
        table.add_row("sound device", Text(f"{device['index']}: {device['name']}"))
    for bundle in report["bundles"]:
        table.add_row("bundle", Text(bundle.get("error") or _bundle_text(bundle)))
    configured = report["configured"]
    if configured:
        verdict = "keeps up" if configured["keeps_up"] else "is slower than real time here"
        table.add_row("configured voice", f"{configured['name']}: real-time factor {configured['rtf']}, {verdict}")
    table.add_row("speeds other than 1", report["libsonic"] or "none: libsonic0 is not installed")
    for note in report["notes"]:
        table.add_row("[yellow]note", Text(note))
    for problem in report["problems"]:
        table.add_row("[red]problem", Text(problem))
    Console().print(table)


def _bundle_text(bundle: dict[str, Any]) -> str:
    folder = Path(bundle["path"]).name
    name = folder if folder == bundle["name"] else f"{folder} (by its manifest {bundle['name']})"
    depth = "" if bundle["depth_recipe"] == bundle["recipe"] else f" (depth decoder {bundle['depth_recipe']})"
    cloning = ", takes recorded voices" if bundle["can_clone"] else ""
    return (
        f"{name} {bundle['recipe']}{depth}, {bundle['bytes'] / 1e6:.0f} MB, intact{cloning}\n"
        f"reads {bundle['bytes_per_frame'] / 1e6:.0f} MB a frame: by this memory, with {bundle['threads']} thread(s),"
        f" a real-time factor of {bundle['bandwidth_rtf']:.2f} at best"
    )
