"""The command: a daemon first, then the engine alone, then the peers; one result of it all."""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console

from daemon.bandwidth import BandwidthMeter
from daemon.bench import compare, plot
from daemon.bench.announcing import daemon_figures
from daemon.bench.figures import by_length, engine_figures, memory_figures
from daemon.bench.machine import machine
from daemon.bench.peers import measure_peers
from daemon.bench.result import FORMAT
from daemon.bench.speaking import speak_all
from daemon.bench.table import print_table
from daemon.config import Config, load_config
from daemon.config_sections import EngineConfig
from daemon.engine.bundle import Bundle, bundle_search, find_bundle, load_bundle
from daemon.engine.engine import Engine

_Say = Callable[[str], None]


def run(args: argparse.Namespace) -> int:
    """Measure the configured bundle, or the one that is named.

    Raises:
        SpeechError: the bundle does not load, the daemon does not start, or a file that is named is of no use.
    """
    old = compare.load_result(Path(args.compare)) if args.compare else None
    if args.plot:
        plot.check(Path(args.plot))
    config = load_config(Path(args.config) if args.config else None)
    if args.bundle:
        config = config.model_copy(update={"engine": config.engine.model_copy(update={"bundle": args.bundle})})
    errors = Console(stderr=True)
    with errors.status("") as status:
        result = measure(
            config,
            rounds=args.rounds,
            idle_s=args.idle_s,
            peers=args.peers or args.llama_bench is not None,
            llama_bench=args.llama_bench,
            say=status.update,
        )
    tables = Console(stderr=args.json)
    if not args.json:
        print_table(tables, result)
    if old is not None:
        compare.print_comparison(tables, old, result)
    if args.plot:
        plot.draw(result, Path(args.plot))
    if args.json:
        sys.stderr.flush()
        print(json.dumps(result))
    return 0


def measure(
    config: Config, *, rounds: int, idle_s: float, peers: bool, llama_bench: str | None, say: _Say
) -> dict[str, Any]:
    """Everything; ``say`` is told what is being done.

    Raises:
        SpeechError: see ``run``.
    """
    bundle = load_bundle(find_bundle(config.engine.bundle, bundle_search(config.engine)), verify="size")
    manifest = bundle.manifest
    result: dict[str, Any] = {
        "format": FORMAT,
        "version": version("crier"),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "bundle": manifest.name,
        "recipe": manifest.recipe,
        "depth_recipe": manifest.depth_storage,
        "revision": manifest.revision,
    }
    with tempfile.TemporaryDirectory(prefix="crier-bench-") as name:
        folder = Path(name)
        say(f"a daemon with {manifest.name}: its start, its announcements, then {idle_s:.0f} s of rest")
        daemon = daemon_figures(config, bundle.folder, folder, rounds=rounds, idle_s=idle_s)
        say(f"the engine with {manifest.name}")
        result |= measure_engine(config.engine, bundle, rounds=rounds)
        ttfa_ms = daemon.pop("ttfa_ms_by_chars")
        result |= daemon
        for row in result["by_length"]:
            row["ttfa_ms"] = ttfa_ms.get(row["chars"])
        if peers:
            say("the peers")
            result["peers"] = measure_peers(bundle, result, folder, rounds=rounds, llama_bench=llama_bench)
    return result


def measure_engine(config: EngineConfig, bundle: Bundle, *, rounds: int) -> dict[str, Any]:
    """What the engine does in this process.

    Raises:
        SpeechError: the bundle does not load.
    """
    began = perf_counter()
    with Engine(config.model_copy(update={"bundle": str(bundle.folder)})) as engine:
        engine.self_test()
        load_s = perf_counter() - began
        meter = BandwidthMeter(engine.num_threads)
        speech = speak_all(engine, meter, rounds)
        return {
            "threads": engine.num_threads,
            "load_s": round(load_s, 3),
            **engine_figures(speech),
            **memory_figures(bundle.manifest, speech.steady, meter),
            "by_length": by_length(speech.texts),
        }
