"""espeak-ng and flite: what small boxes speak with today, started afresh for every text as their users do."""

import shutil
import subprocess
import time
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

from daemon.bench.arithmetic import percentile, percentiles
from daemon.bench.texts import SENTENCES

COMMANDS: dict[str, Callable[[str, str], list[str]]] = {
    "espeak-ng": lambda text, out: ["espeak-ng", "-w", out, "--", text],
    "flite": lambda text, out: ["flite", "-t", text, "-o", out],
}
_PROGRAM_S = 60.0


def measure_programs(folder: Path, rounds: int) -> dict[str, Any]:
    """For each: milliseconds of the process that speaks a sentence into a file, and those over the speech's length."""
    return {name: _measure(name, folder / "peer.wav", rounds) for name in COMMANDS}


def _measure(name: str, out: Path, rounds: int) -> dict[str, Any]:
    if shutil.which(name) is None:
        return {"absent": f"{name} is not installed"}
    times_ms, rtfs = [], []
    for text in SENTENCES * rounds:
        began = time.monotonic()
        try:
            subprocess.run(
                COMMANDS[name](text, str(out)), check=True, capture_output=True, timeout=_PROGRAM_S, text=True
            )
        except (OSError, subprocess.SubprocessError) as err:
            return {"absent": f"{name} failed: {err}"}
        seconds = time.monotonic() - began
        times_ms.append(1000 * seconds)
        with wave.open(str(out), "rb") as wav:
            rtfs.append(seconds * wav.getframerate() / max(wav.getnframes(), 1))
    return {**percentiles("process_ms", times_ms), "rtf": round(percentile(rtfs, 50), 4)}
