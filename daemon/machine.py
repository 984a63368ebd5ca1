"""What /proc and /sys tell of this machine: cores that may be used, their governor, instruction sets, free memory."""

import os
import platform
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC, SYS = Path("/proc"), Path("/sys")
_STEADY = ("performance", "schedutil")
"""Governors with which a core is fast when speech begins."""
_UNLIMITED_BYTES = 2**60
"""What the first version of control groups says where there is no limit is more."""


def _read(path: Path) -> str:
    """What a file says; empty if it is not there or tells nothing."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


@dataclass(frozen=True, slots=True)
class Cores:
    """How much computing this process may do."""

    present: int
    allowed: int
    """By its affinity."""
    quota: float | None
    """As many cores' time its control group gives it at most; None: no limit."""

    @property
    def note(self) -> str:
        """What limits it; empty if nothing does."""
        limits = []
        if self.allowed < self.present:
            limits.append(f"only {self.allowed} of {self.present} by this process's affinity")
        if self.quota is not None and self.quota < self.allowed:
            limits.append(f"a control group's quota of {self.quota:g} cores' time")
        return "; ".join(limits)


def cores(root: Path = Path("/")) -> Cores:
    """The cores of this machine, and what of them is for us."""
    return Cores(os.cpu_count() or 1, len(os.sched_getaffinity(0)), _quota(root))


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's control groups, inner first: the second version's, then the first's."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, names, path = (*line.split(":", 2), "", "")[:3]
        if names and controller not in names.split(","):
            continue
        top = root / "sys/fs/cgroup" / (names or "")
        folder = top / path.lstrip("/")
        while True:
            yield folder
            if folder in (top, folder.parent):
                break
            folder = folder.parent


def _quota(root: Path) -> float | None:
    """The tightest limit on processor time, in cores."""
    found = []
    for group in _groups(root, "cpu"):
        quota, _, period = _read(group / "cpu.max").partition(" ")
        if not quota:
            quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit():  # "max" and -1 are none
            found.append(int(quota) / int(period))
    return min(found, default=None)


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that a program could still take without anything being swapped out; None where nothing tells."""
    fields = {
        name: value.split() for name, _, value in (x.partition(":") for x in _read(root / "proc/meminfo").splitlines())
    }
    found = [int(fields["MemAvailable"][0]) * 1024] if "MemAvailable" in fields else []
    for group in _groups(root, "memory"):
        for most, now in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            limit, used = _number(_read(group / most)), _number(_read(group / now))
            if limit is not None and used is not None and limit < _UNLIMITED_BYTES:
                found.append(max(0, limit - used))
    return min(found, default=None)


def governors(root: Path = Path("/")) -> dict[str, int]:
    """How many cores have which frequency governor; empty where there is none, as in a virtual machine."""
    files = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    return dict(Counter(name for path in files if (name := _read(path))))


def governor_advice(found: dict[str, int]) -> str:
    """What to do about the governors; empty if they are well."""
    slow = [name for name in found if name not in _STEADY]
    if not slow:
        return ""
    why = "keeps the cores slow" if "powersave" in slow else "is slow to raise the clock"
    command = "echo schedutil | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
    return f"frequency governor {', '.join(slow)}: it {why}; for steady speech performance or schedutil: {command}"


def cpu_flags(root: Path = Path("/")) -> frozenset[str]:
    """The instruction sets of the first core, by the kernel's names."""
    for line in _read(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() in ("flags", "features"):
            return frozenset(value.split())
    return frozenset()


def mlas_kernels(flags: frozenset[str], machine: str | None = None) -> str:
    """The kernels that onnxruntime's MLAS takes on a core of these instruction sets.

    It cannot be asked; this follows the rules of its own choice, for float products and the 8-bit ones of the heads.

    Source: onnxruntime onnxruntime/core/mlas/lib/platform.cpp (revision 0112bef2), ``MLAS_PLATFORM``.
    """
    machine = machine or platform.machine()
    if machine in ("x86_64", "AMD64"):
        return f"float {_mlas_float(flags)}, 8-bit {_mlas_integer(flags)}"
    if machine == "aarch64":
        integer = "i8mm" if "i8mm" in flags else "dotprod" if "asimddp" in flags else "NEON (no dot product: slow)"
        return f"float NEON, 8-bit {integer}"
    return f"not known for {machine}"


def _mlas_float(flags: frozenset[str]) -> str:
    if not {"avx2", "fma"} <= flags:
        return "AVX" if "avx" in flags else "SSE2"
    return "AVX512F" if "avx512f" in flags else "AVX2 and FMA3"


def _mlas_integer(flags: frozenset[str]) -> str:
    if not {"avx2", "fma"} <= flags:
        return "SSE2 (slow)"
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= flags:
        return "AVX512 VNNI" if "avx512_vnni" in flags else "AVX512"
    return "AVX-VNNI" if "avx_vnni" in flags else "AVX2"
