"""transformers' CSM on the same processor, in a process of its own: its libraries never load into this one."""

import json
import os
import subprocess
import sys
from typing import Any

from daemon.bench.environment import peer_environment
from daemon.engine.bundle import Bundle

_MOST_S = 600.0
SHAPE = {"num_codebooks": 32, "codebook_size": 2048}
"""Of CSM-1B: only a model with its codebooks is of the shape that transformers' class was made for."""


def measure_transformers(bundle: Bundle, our_frame_s: float) -> dict[str, Any]:
    """Seconds of a frame in the faster of its number formats and caches, and how many of ours that is."""
    audio = bundle.manifest.audio
    if any(getattr(audio, name) != value for name, value in SHAPE.items()):
        return {"absent": "the bundle is not of CSM-1B's shape"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "quantize.reference_speed", str(bundle.folder)],
            capture_output=True,
            text=True,
            check=False,
            timeout=_MOST_S,
            env=peer_environment(os.environ),
        )
    except subprocess.TimeoutExpired:
        return {"absent": f"transformers took more than {_MOST_S:.0f} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"ended with {done.returncode}: perhaps there was not enough memory"
        return {"absent": f"transformers' CSM: {reason}"}
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures | {"frame_to_ours": round(figures["frame_s"] / our_frame_s, 2)}
