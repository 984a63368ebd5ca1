"""The report of ``crier doctor`` for people."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def show(report: Mapping[str, Any]) -> None:
    """Print it."""
    table = Table(show_header=False, title="crier doctor")
    table.add_row("configuration", Text(report["config"] or "none: the defaults"))
    _add_machine(table, report)
    for device in report["devices"]:
        table.add_row("sound device", Text(f"{device['index']}: {device['name']}"))
    broker = report["broker"]
    if broker and broker["reached"]:
        table.add_row("broker", Text(f"{broker['address']} takes the connection, MQTT {broker['mqtt']}"))
    for bundle in report["bundles"]:
        table.add_row("bundle", Text(bundle.get("error") or _bundle_text(bundle)))
    configured = report["configured"]
    if configured:
        keeps_up = "keeps up" if configured["keeps_up"] else "is slower than real time"
        verdict = f"{configured['name']}: {keeps_up}: {configured['verdict']}"
        table.add_row("configured voice", Text(f"{verdict}, real-time factor {configured['rtf']}"))
    table.add_row("speeds other than 1", report["libsonic"] or "none: libsonic0 is not installed")
    for note in report["notes"]:
        table.add_row("[yellow]note", Text(note))
    for problem in report["problems"]:
        table.add_row("[red]problem", Text(problem))
    Console().print(table)


def _add_machine(table: Table, report: Mapping[str, Any]) -> None:
    limits = f" ({report['cores_note']})" if report["cores_note"] else ""
    table.add_row("machine", f"{report['machine']}, {report['cores']} cores{limits}")
    governors = ", ".join(f"{name} on {count}" for name, count in report["governors"].items())
    table.add_row("frequency governor", Text(governors or "none to be seen"))
    table.add_row("SIMD in llama.cpp", report["simd"])
    table.add_row("SIMD in onnxruntime", f"{report['onnxruntime_simd']} (derived from the processor's flags)")
    for num_threads, speed in report["bandwidth_by_threads"].items():
        table.add_row(f"memory, {num_threads} thread(s)", f"{speed / 1e9:.1f} GB/s")
    if report["available_bytes"] is not None:
        table.add_row("memory available", f"{report['available_bytes'] / 1e6:.0f} MB")


def _bundle_text(bundle: Mapping[str, Any]) -> str:
    folder = Path(bundle["path"]).name
    name = folder if folder == bundle["name"] else f"{folder} (by its manifest {bundle['name']})"
    depth = "" if bundle["depth_recipe"] == bundle["recipe"] else f" (depth decoder {bundle['depth_recipe']})"
    cloning = ", takes recorded voices" if bundle["can_clone"] else ""
    return (
        f"{name} {bundle['recipe']}{depth}: {bundle['verdict']}\n"
        f"{bundle['bytes'] / 1e6:.0f} MB, intact{cloning};"
        f" needs about {bundle['needed_bytes'] / 1e6:.0f} MB of memory\n"
        f"reads {bundle['bytes_per_frame'] / 1e6:.0f} MB a frame: by this memory, with {bundle['threads']} thread(s),"
        f" a real-time factor of {bundle['bandwidth_rtf']:.2f} at best"
    )
