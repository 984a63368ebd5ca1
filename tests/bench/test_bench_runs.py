"""The benches cannot rot unseen: each runs, briefly, with every option it has."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LLAMA_BENCH = """#!/bin/sh
echo '[{"n_gen": 64, "samples_ns": [6400000, 6400000]}]'
"""
"""Says that a step takes 0.1 ms."""

pytestmark = pytest.mark.engine


def bench(*options):
    """Run crier bench; returns what it printed, and its figures where --json is among the options."""
    command = [sys.executable, "-m", "daemon.client", "bench", "--rounds", "1", "--idle-s", "0.5", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done, json.loads(done.stdout.splitlines()[-1]) if "--json" in options else None


def test_crier_bench_measures_everything_in_one_run(tmp_path):
    """Figures of daemon and engine that add up, peers that are there, a picture, and JSON that a later run takes."""
    pytest.importorskip("matplotlib")
    program, picture, old = (tmp_path / name for name in ("llama-bench", "bench.png", "old.json"))
    program.write_text(LLAMA_BENCH)
    program.chmod(0o755)
    done, figures = bench("--json", "--peers", "--llama-bench", str(program), "--plot", str(picture))
    assert sum(figures["frame_ms"].values()) == pytest.approx(1000 / figures["frames_per_s"], rel=0.05)
    assert 0 < figures["rtf"] < 10
    assert 0 < figures["bandwidth_fraction"] < 2
    assert 0 < figures["step_bandwidth_fraction"] < 3  # a small model's weights stay in the cache
    assert 0 <= figures["outside_native_share"] < 1
    assert 0 < figures["uss_bytes"] <= figures["pss_bytes"] <= figures["rss_bytes"]
    assert 0 < figures["ttfa_ms_p50"] <= figures["ttfa_ms_p95"] < figures["ready_ms_p50"]
    assert figures["onset_ms_p50"] >= figures["lead_ms"]
    assert figures["idle_cpu_percent"] >= 0
    assert figures["played_whole"] == 2
    assert all(row["ttfa_ms"] > 0 for row in figures["by_length"])
    step = figures["peers"]["llama-bench"]["backbone"]
    assert step["llama_bench_step_ms"] == 0.1
    assert step["ours_to_llama_bench"] == pytest.approx(step["our_step_ms"] / 0.1, rel=0.02)
    assert picture.stat().st_size > 10_000

    old.write_text(done.stdout)
    done, _ = bench("--compare", str(old))
    assert "new / old" in done.stdout
    assert "not the same" not in done.stdout


@pytest.mark.broker
def test_bench_daemon_measures_everything():
    """One round; its last line is JSON with every figure."""
    script = Path(__file__).with_name("bench_daemon.py")
    done = subprocess.run(
        [sys.executable, str(script), "--rounds", "1"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert {"machine", "null_sink", "pulseaudio", "say_process_ms_p50", "render_process_ms_p50"} <= figures.keys()
    assert "publish to started event" in done.stdout
