"""What /proc and /sys are taken to say, from folders that look like those of other machines."""

import os

import pytest

from daemon import machine
from daemon.machine import Cores


def written(root, **files):
    """Files below ``root``; __ in a name is a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def groups(root, lines):
    """The control groups of this process."""
    written(root, proc__self__cgroup=lines)
    return root / "sys/fs/cgroup"


def test_this_machine_tells_of_itself():
    """Whatever it is: cores that are there, memory, instruction sets."""
    found = machine.cores()
    assert 1 <= found.allowed <= found.present
    assert found.allowed == len(os.sched_getaffinity(0))
    assert machine.available_memory() > 10**7
    assert machine.cpu_flags()
    assert "not known" not in machine.mlas_kernels(machine.cpu_flags())


@pytest.mark.parametrize(
    ("line", "files", "quota"),
    [
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, 1.5),
        ("0::/a", {"a/cpu.max": "50000 100000", "cpu.max": "max 100000"}, 0.5),
        ("0::/", {"cpu.max": "max 100000"}, None),
        (
            "3:cpu,cpuacct:/c\n0::/",
            {"cpu,cpuacct/c/cpu.cfs_quota_us": "200000", "cpu,cpuacct/c/cpu.cfs_period_us": "100000"},
            2.0,
        ),
        ("3:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("", {}, None),
    ],
)
def test_the_tightest_quota_of_the_control_groups_counts(tmp_path, line, files, quota):
    """Of both versions, and of the groups further out."""
    top = groups(tmp_path, line)
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(f"{text}\n")
    assert machine.cores(tmp_path).quota == quota


def test_limits_are_told_in_words():
    """None, affinity, quota, both."""
    assert Cores(4, 4, None).note == ""
    assert Cores(4, 4, 4.0).note == ""
    assert "2 of 4" in Cores(4, 2, None).note
    assert "1.5 cores" in Cores(4, 4, 1.5).note
    assert ";" in Cores(4, 2, 0.5).note


def test_memory_that_is_available_is_the_least_of_machine_and_group(tmp_path):
    """A limit of a group that is far above what any machine has is none."""
    written(tmp_path, proc__meminfo="MemTotal: 900 kB\nMemAvailable:  800 kB\nHugePages_Total: 0")
    assert machine.available_memory(tmp_path) == 800 * 1024
    top = groups(tmp_path, "4:memory:/x\n0::/y")
    written(top / "memory/x", **{"memory.limit_in_bytes": 500_000, "memory.usage_in_bytes": 100_000})
    written(top / "memory", **{"memory.limit_in_bytes": 2**63 - 4096, "memory.usage_in_bytes": 100_000})
    assert machine.available_memory(tmp_path) == 400_000
    written(top / "y", **{"memory.max": 300_000, "memory.current": 400_000})
    assert machine.available_memory(tmp_path) == 0
    assert machine.available_memory(tmp_path / "none") is None


def test_governors_are_counted_and_slow_ones_get_advice(tmp_path):
    """A Raspberry Pi with powersave is told the command that helps; performance and schedutil are well."""
    assert machine.governors(tmp_path) == {}
    assert machine.governor_advice({}) == ""
    for core in range(4):
        written(tmp_path / f"sys/devices/system/cpu/cpu{core}/cpufreq", scaling_governor="powersave")
    found = machine.governors(tmp_path)
    assert found == {"powersave": 4}
    assert "keeps the cores slow" in machine.governor_advice(found)
    assert "scaling_governor" in machine.governor_advice({"ondemand": 4})
    assert machine.governor_advice({"schedutil": 2, "performance": 2}) == ""


AVX512 = {"avx", "avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"}


@pytest.mark.parametrize(
    ("name", "flags", "kernels"),
    [
        ("x86_64", {"sse2"}, "float SSE2, 8-bit SSE2 (slow)"),
        ("x86_64", {"avx"}, "float AVX, 8-bit SSE2 (slow)"),
        ("x86_64", {"avx", "avx2", "fma"}, "float AVX2 and FMA3, 8-bit AVX2"),
        ("x86_64", {"avx", "avx2", "fma", "avx_vnni"}, "float AVX2 and FMA3, 8-bit AVX-VNNI"),
        ("x86_64", AVX512, "float AVX512F, 8-bit AVX512"),
        ("x86_64", AVX512 | {"avx512_vnni", "avx_vnni"}, "float AVX512F, 8-bit AVX512 VNNI"),
        ("aarch64", {"asimd"}, "float NEON, 8-bit NEON (no dot product: slow)"),
        ("aarch64", {"asimd", "asimddp"}, "float NEON, 8-bit dotprod"),
        ("aarch64", {"asimd", "asimddp", "i8mm"}, "float NEON, 8-bit i8mm"),
        ("riscv64", set(), "not known for riscv64"),
    ],
)
def test_the_kernels_follow_from_the_instruction_sets(name, flags, kernels):
    """As onnxruntime's own rules have it."""
    assert machine.mlas_kernels(frozenset(flags), name) == kernels


def test_flags_are_read_as_both_kernels_write_them(tmp_path):
    """x86 has flags, ARM has Features."""
    written(tmp_path, proc__cpuinfo="processor : 0\nflags\t\t: fpu avx2\n\nflags : none")
    assert machine.cpu_flags(tmp_path) == {"fpu", "avx2"}
    written(tmp_path, proc__cpuinfo="processor : 0\nFeatures\t: fp asimd asimddp")
    assert machine.cpu_flags(tmp_path) == {"fp", "asimd", "asimddp"}
