"""llama.cpp's own bench on the bundle's GGUF files, in turn with our bare steps of the same file."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from daemon.bench.arithmetic import percentile
from daemon.bench.environment import peer_environment
from daemon.engine.bundle import Bundle
from daemon.engine.llama import LlamaModel

PROGRAM = "llama-bench"
NUM_STEPS = 64
_TURNS = 3
_BENCH_S = 300.0
_CONTEXT = 256
"""What llama.cpp rounds its own bench's 64 positions up to."""
_REPETITIONS = 2


def measure_llama(bundle: Bundle, num_threads: int, program: str | None) -> dict[str, Any]:
    """For backbone and depth decoder: milliseconds of a step, ours and llama-bench's (medians), and our share of it."""
    found = shutil.which(program or PROGRAM)
    if found is None:
        return {"absent": f"{program or PROGRAM} is not installed (docs/performance.md says how to build it)"}
    try:
        return {role: _compare(bundle.path(role), num_threads, found) for role in ("backbone", "depth_decoder")}
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, IndexError) as err:
        return {"absent": f"{found} failed: {_reason(err)}"}


def _reason(err: Exception) -> str:
    lines = (getattr(err, "stderr", None) or str(err)).strip().splitlines()
    return lines[-1] if lines else type(err).__name__


def _compare(path: Path, num_threads: int, program: str) -> dict[str, Any]:
    """In turns, for the memory drifts; each has the file in the page cache and a warm-up before."""
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(_TURNS):
        ours += our_steps_ms(path, num_threads)
        theirs += their_steps_ms(path, num_threads, program)
    our_ms, their_ms = percentile(ours, 50), percentile(theirs, 50)
    return {
        "our_step_ms": round(our_ms, 3),
        "llama_bench_step_ms": round(their_ms, 3),
        "ours_to_llama_bench": round(our_ms / their_ms, 3),
    }


def our_steps_ms(path: Path, num_threads: int) -> list[float]:
    """Milliseconds of a step, a mean of each repetition: ``NUM_STEPS`` from an empty KV cache, after a warm-up."""
    with LlamaModel(path, num_positions=_CONTEXT, max_batch=1, num_threads=num_threads) as model:
        embedding = np.full(model.width, 0.5, np.float32)
        model.step(embedding)
        means = []
        for _ in range(_REPETITIONS):
            model.rewind(0)
            began = perf_counter()
            for _ in range(NUM_STEPS):
                model.step(embedding)
            means.append(1000 * (perf_counter() - began) / NUM_STEPS)
        return means


def their_steps_ms(path: Path, num_threads: int, program: str) -> list[float]:
    """The same of llama-bench, which generates from random tokens."""
    command = [program, "-m", str(path), "-o", "json", "-p", "0", "-n", str(NUM_STEPS), "-t", str(num_threads)]
    done = subprocess.run(
        [*command, "-r", str(_REPETITIONS)],
        check=True,
        capture_output=True,
        text=True,
        env=peer_environment(os.environ),
        timeout=_BENCH_S,
    )
    return parse_llama_bench(done.stdout)


def parse_llama_bench(text: str) -> list[float]:
    """Milliseconds of a step, one for each repetition, from its JSON."""
    test = json.loads(text)[0]
    return [nanoseconds / 1e6 / test["n_gen"] for nanoseconds in test["samples_ns"]]
