"""``crier doctor``: what this machine has, and whether the configuration will work on it."""

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from daemon.bench import bytes_per_frame, memory_bandwidth
from daemon.config import Config, load_config
from daemon.engine.bundle import load_bundle
from daemon.engine.engine import Engine, bundle_search
from daemon.engine.llama import system_info
from daemon.errors import AudioError, ConfigError, ModelError, SpeechError


def run(args: argparse.Namespace) -> int:
    """Report; the exit code is that of the first problem that keeps the daemon from speaking, else 0."""
    problems: list[SpeechError] = []
    try:
        config = load_config(Path(args.config) if args.config else None)
    except ConfigError as err:
        config = Config()
        problems.append(err)
    report: dict[str, Any] = {
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "simd": system_info(),
        "bandwidth_bytes_per_s": round(memory_bandwidth(1)),
        "devices": _devices(config, problems),
        "bundles": _bundles(config),
        "configured": _configured(config, problems),
    }
    report["problems"] = [str(err) for err in problems]
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


def _bundles(config: Config) -> list[dict[str, Any]]:
    """Every bundle that can be found, checked to the last byte."""
    found: list[dict[str, Any]] = []
    for parent in bundle_search(config.engine):
        for path in sorted(parent.glob("*/manifest.toml")):
            entry: dict[str, Any] = {"path": str(path.parent)}
            try:
                manifest = load_bundle(path.parent, verify="full").manifest
            except ModelError as err:
                entry["error"] = str(err)
            else:
                entry |= {"name": manifest.name, "recipe": manifest.recipe}
                entry["bytes"] = sum(file.bytes for file in manifest.files.values())
            found.append(entry)
    return found


def _configured(config: Config, problems: list[SpeechError]) -> dict[str, Any] | None:
    """The configured bundle, loaded and measured."""
    try:
        with Engine(config.engine) as engine:
            engine.self_test()
            return {
                "name": engine.bundle.manifest.name,
                "threads": engine.num_threads,
                "rtf": round(engine.rtf, 3),
                "keeps_up": engine.rtf < 1,
                "bytes_per_frame": bytes_per_frame(engine),
            }
    except SpeechError as err:
        problems.append(err)
        return None


def _print(report: dict[str, Any]) -> None:
    table = Table(show_header=False, title="crier doctor")
    table.add_row("machine", f"{report['machine']}, {report['cores']} cores")
    table.add_row("SIMD in llama.cpp", report["simd"])
    table.add_row("memory, one thread", f"{report['bandwidth_bytes_per_s'] / 1e9:.1f} GB/s")
    for device in report["devices"]:
        table.add_row("sound device", Text(f"{device['index']}: {device['name']}"))
    for bundle in report["bundles"]:
        text = bundle.get("error") or f"{bundle['name']} {bundle['recipe']}, {bundle['bytes'] / 1e6:.0f} MB, intact"
        table.add_row("bundle", Text(text))
    configured = report["configured"]
    if configured:
        verdict = "keeps up" if configured["keeps_up"] else "is slower than real time here"
        table.add_row("configured voice", f"{configured['name']}: real-time factor {configured['rtf']}, {verdict}")
    for problem in report["problems"]:
        table.add_row("[red]problem", Text(problem))
    Console().print(table)
