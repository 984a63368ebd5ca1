"""Where and with what the figures were measured."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

_CPU_KEYS = ("model name", "Model", "Hardware")
"""Of /proc/cpuinfo: x86's name, then what boards with an ARM processor say."""


def machine() -> dict[str, Any]:
    """This machine as it is now."""
    return {
        "cpu": cpu_name(_read(Path("/proc/cpuinfo"))) or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_1min": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "llama_cpp_python": version("llama-cpp-python"),
        "onnxruntime": version("onnxruntime"),
    }


def cpu_name(cpuinfo: str) -> str:
    """What /proc/cpuinfo calls the processor; empty where it has no name."""
    pairs = [line.partition(":") for line in cpuinfo.splitlines()]
    names = {key.strip(): value.strip() for key, _, value in reversed(pairs)}
    return next((names[key] for key in _CPU_KEYS if names.get(key)), "")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
