"""``crier bench``: how fast a bundle speaks here, and how near that is to what the memory allows."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from daemon.bandwidth import bandwidth_rtf, bytes_per_frame, memory_bandwidth
from daemon.config import load_config
from daemon.config_sections import EngineConfig
from daemon.engine.bundle import Manifest
from daemon.engine.engine import Engine
from daemon.metrics import resident_memory
from daemon.synthesizer import Synthesizer
from daemon.values import SAMPLE_RATE

SENTENCES = (
    "Dinner is ready.",
    "The front door has been left open.",
    "Your timer for ten minutes is done.",
    "It is half past seven and twenty one degrees outside.",
    "The washing machine has finished, please empty it.",
    "Good morning. Today will be cloudy with some rain in the afternoon.",
)
TEXT_S = 10.0
"""A text is cut after so long: a voice that is slower than real time, or does not end, is measured in a minute too."""
TOTAL_S = 30.0
"""After so long no other text is begun."""


def run(args: argparse.Namespace) -> int:
    """Measure the configured bundle, or the one that is named.

    Raises:
        SpeechError: the bundle does not load.
    """
    config = load_config(Path(args.config) if args.config else None).engine
    if args.bundle:
        config = config.model_copy(update={"bundle": args.bundle})
    figures = measure(config, rounds=args.rounds)
    if args.json:
        print(json.dumps(figures))
    else:
        _print_table(figures)
    return 0


def measure(config: EngineConfig, *, rounds: int) -> dict[str, Any]:
    """Speak the sentences ``rounds`` times, or for ``TOTAL_S``.

    Times are medians over utterances, stages milliseconds a frame.
    """
    began = perf_counter()
    with Engine(config) as engine:
        engine.self_test()
        load_s = perf_counter() - began
        runs = _speak_all(engine, Synthesizer(engine, profile=False), rounds)
        peak_rss_bytes = resident_memory()["peak_rss_bytes"]  # before the next line's arrays
        bandwidth = memory_bandwidth(engine.num_threads)
        manifest = engine.bundle.manifest
        return {
            "bundle": manifest.name,
            "recipe": manifest.recipe,
            "threads": engine.num_threads,
            "load_s": round(load_s, 3),
            **_figures(runs),
            **_against_memory(manifest, runs, bandwidth),
            "peak_rss_bytes": peak_rss_bytes,
        }


def _figures(runs: list[dict[str, Any]]) -> dict[str, Any]:
    frame_s = _frame_s(runs)
    frames = sum(r["frames"] for r in runs)
    stages = {
        name: round(1000 * sum(r["stages"][name] for r in runs) / frames, 3)
        for name in runs[0]["stages"]
        if name != "frames"
    }
    ttfa = sorted(1000 * r["ttfa_s"] for r in runs)
    return {
        "utterances": len(runs),
        "cut": sum(r["cut"] for r in runs),
        "rtf": round(float(np.median([r["synthesis_s"] / r["audio_s"] for r in runs])), 4),
        "ttfa_ms_p50": round(ttfa[len(ttfa) // 2], 2),
        "ttfa_ms_p95": round(ttfa[int(len(ttfa) * 0.95)], 2),
        "frames_per_s": round(1 / frame_s, 1),
        "frame_ms": {**stages, "other": round(1000 * frame_s - sum(stages.values()), 3)},
    }


def _against_memory(manifest: Manifest, runs: list[dict[str, Any]], bandwidth: float) -> dict[str, Any]:
    frame_bytes = bytes_per_frame(manifest)
    return {
        "bytes_per_frame": frame_bytes,
        "bandwidth_bytes_per_s": round(bandwidth),
        "bandwidth_fraction": round(frame_bytes / _frame_s(runs) / bandwidth, 4),
        "bandwidth_rtf": round(bandwidth_rtf(manifest, bandwidth), 4),
    }


def _frame_s(runs: list[dict[str, Any]]) -> float:
    return float(sum(r["synthesis_s"] for r in runs) / sum(r["frames"] for r in runs))


def _speak_all(engine: Engine, synthesizer: Synthesizer, rounds: int) -> list[dict[str, Any]]:
    began = perf_counter()
    runs: list[dict[str, Any]] = []
    for text in SENTENCES * rounds:
        if runs and perf_counter() - began > TOTAL_S:
            break
        runs.append(_speak(engine, synthesizer, text))
    return runs


def _speak(engine: Engine, synthesizer: Synthesizer, text: str) -> dict[str, Any]:
    began = perf_counter()
    times = engine.reset_times()
    session = engine.session(synthesizer.segmenter())
    session.push_text(text)
    session.flush()
    ttfa_s, cut = 0.0, False
    while not cut and session.next_audio_chunk() is not None:
        taken_s = perf_counter() - began
        ttfa_s = ttfa_s or taken_s
        cut = taken_s > TEXT_S
    return {
        "synthesis_s": perf_counter() - began,
        "audio_s": session.num_samples / SAMPLE_RATE,
        "frames": times.frames,
        "ttfa_s": ttfa_s,
        "cut": cut,
        "stages": asdict(times),
    }


def _print_table(figures: dict[str, Any]) -> None:
    table = Table(title=f"{figures['bundle']} {figures['recipe']}, {figures['threads']} thread(s)")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_row("real-time factor (below 1 keeps up)", f"{figures['rtf']:.3f}")
    table.add_row("first audio, median / 95 %", f"{figures['ttfa_ms_p50']:.0f} / {figures['ttfa_ms_p95']:.0f} ms")
    table.add_row("load and warm-up", f"{figures['load_s']:.2f} s")
    for stage, value in figures["frame_ms"].items():
        table.add_row(f"  {stage}, a frame", f"{value:.2f} ms")
    table.add_row("weights read, a frame", f"{figures['bytes_per_frame'] / 1e6:.1f} MB")
    table.add_row("memory bandwidth", f"{figures['bandwidth_bytes_per_s'] / 1e9:.1f} GB/s")
    table.add_row("share of it used", f"{100 * figures['bandwidth_fraction']:.0f} %")
    table.add_row("real-time factor at all of it", f"{figures['bandwidth_rtf']:.3f}")
    table.add_row("peak memory", f"{(figures['peak_rss_bytes'] or 0) / 1e6:.0f} MB")
    Console().print(table)
