"""The result for people."""

from typing import Any

from rich.console import Console
from rich.table import Table

from daemon.bench.result import MS, PLAIN, ROWS, shown


def print_table(console: Console, result: dict[str, Any]) -> None:
    """Print everything that was measured."""
    console.print(_main_table(result))
    console.print(_stage_table(result))
    if "peers" in result:
        console.print(_peer_table(result["peers"]))


def title(result: dict[str, Any]) -> str:
    """Which bundle on which machine."""
    depth = "" if result["depth_recipe"] == result["recipe"] else f" (depth decoder {result['depth_recipe']})"
    where = result["machine"]
    return (
        f"{result['bundle']} {result['recipe']}{depth}, {result['threads']} thread(s); {where['cpu']},"
        f" {where['cores']} cores, load {where['load_1min']}"
    )


def _main_table(result: dict[str, Any]) -> Table:
    table = Table("figure", title=title(result))
    table.add_column("value", justify="right")
    for key, name, how in ROWS:
        if result.get(key) is not None:
            table.add_row(name, shown(result[key], how))
    return table


def _stage_table(result: dict[str, Any]) -> Table:
    table = Table("stage", title="A frame")
    table.add_column("ms", justify="right")
    table.add_column("share", justify="right")
    whole = sum(result["frame_ms"].values())
    for stage, value in result["frame_ms"].items():
        table.add_row(stage, f"{value:.3f}", f"{100 * value / whole:.1f} %")
    return table


def _peer_table(peers: dict[str, Any]) -> Table:
    table = Table("peer", "figure", title="Peers")
    table.add_column("value", justify="right")
    for name, figures in peers.items():
        if "absent" in figures:
            table.add_row(name, figures["absent"], "-")
        elif name == "llama-bench":
            for role, step in figures.items():
                table.add_row(f"{name} {role}", "a step", shown(step["llama_bench_step_ms"], MS))
                table.add_row("", "our bare step", shown(step["our_step_ms"], MS))
                table.add_row("", "ours over theirs", shown(step["ours_to_llama_bench"], PLAIN))
                table.add_row("", "our stage in a frame over theirs", shown(step["frame_stage_to_llama_bench"], PLAIN))
        elif name == "transformers":
            table.add_row(f"{name}, {figures['best']}", "a frame", shown(1000 * figures["frame_s"], MS))
            table.add_row("", "theirs over ours", shown(figures["frame_to_ours"], PLAIN))
        else:
            table.add_row(name, "the process that speaks a sentence, median", shown(figures["process_ms_p50"], MS))
            table.add_row("", "real-time factor", shown(figures["rtf"], PLAIN))
    return table
