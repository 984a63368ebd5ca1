"""The arithmetic of crier bench: percentiles, stages, fractions of the bandwidth, memory and other programs' output."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.bandwidth import BandwidthMeter, bytes_per_frame, step_bytes_per_frame
from daemon.bench import figures, machine, speaking
from daemon.bench.announcing import Heard, by_chars, first_sound
from daemon.bench.arithmetic import percentile, percentiles
from daemon.bench.child import parse_smaps
from daemon.bench.command import measure_engine
from daemon.bench.peer_llama import parse_llama_bench
from daemon.bench.speaking import STAGES, Frames, Speech, Spoken
from daemon.config_sections import EngineConfig
from daemon.engine.bundle import load_bundle

STARTER = Path(__file__).resolve().parents[2] / "models" / "starter"


def stages(**seconds):
    """Seconds of all stages, those that are named."""
    return dict.fromkeys(STAGES, 0.0) | seconds


def spoken(text="abc", *, synthesis_s=0.5, audio_s=1.0, first_audio_s=0.1, frames=10, cut=False, **seconds):
    """A text with the seconds of some stages."""
    return Spoken(text, synthesis_s, audio_s, first_audio_s, frames, stages(**seconds), cut)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(1, 100))
def test_a_percentile_is_one_of_the_values(values, percent):
    """At least that share of them are no larger, and no smaller value would do."""
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert sum(value < found for value in values) * 100 < percent * len(values)


def test_percentiles_have_names_with_units():
    """Median and 95 % unless told; without a value they are there, and None."""
    assert percentiles("x_ms", [3.0, 1.0, 2.0]) == {"x_ms_p50": 2.0, "x_ms_p95": 3.0}
    assert percentiles("x_ms", [], 99) == {"x_ms_p99": None}


def test_stages_and_the_rest_are_the_frame():
    """Milliseconds a frame over all texts; what no stage accounts for is other."""
    texts = [
        spoken(synthesis_s=0.5, frames=10, backbone=0.2, codec=0.1),
        spoken(synthesis_s=0.3, frames=10, backbone=0.2, first_audio_s=0.3),
    ]
    found = figures.engine_figures(Speech(texts))
    assert found["frame_ms"] == stages(backbone=20.0, codec=5.0) | {"other": 15.0}
    assert (found["frames"], found["frames_per_s"], found["utterances"], found["cut"]) == (20, 25.0, 2, 0)
    assert (found["rtf"], found["first_audio_ms_p50"], found["first_audio_ms_p95"]) == (0.3, 100.0, 300.0)


def test_stages_beside_each_other_leave_no_negative_rest():
    """A codec that runs while the next frame is made may bring their sum above the frame."""
    found = figures.engine_figures(Speech([spoken(synthesis_s=0.5, frames=10, backbone=0.4, codec=0.2)]))
    assert found["frame_ms"]["other"] == 0.0


def test_outside_is_what_the_libraries_did_not_take():
    """Sampling and Python's own time, also within a stage; of an empty measurement there is no share."""
    steady = Frames([0.1, 0.1], stages(backbone=0.2), native_s=0.19)
    assert figures.outside_share(steady) == pytest.approx(0.05)
    empty = figures.steady_figures(Frames())
    assert empty == dict.fromkeys(
        ("frame_time_ms_p50", "frame_time_ms_p99", "frame_time_p99_to_p50", "outside_native_share")
    )


def test_frames_are_as_even_as_their_slowest():
    """The 99th percentile over the median, from whole frames."""
    steady = Frames([0.1] * 98 + [0.3] * 2, stages())
    found = figures.steady_figures(steady)
    assert (found["frame_time_ms_p50"], found["frame_time_ms_p99"], found["frame_time_p99_to_p50"]) == (100, 300, 3)


def test_fraction_of_the_bandwidth():
    """Bytes a second over those that the memory gives; None where no time was measured."""
    assert figures.fraction(10, 3, 2.0, 20.0) == 0.75
    assert figures.fraction(10, 0, 0.0, 20.0) is None


def test_both_fractions_come_from_the_same_frames():
    """Over the whole frame all bytes and all time, over llama.cpp's steps theirs."""
    manifest, meter = load_bundle(STARTER).manifest, BandwidthMeter(1)
    meter.measure()
    steady = Frames([0.002, 0.002], stages(backbone=0.001, depth=0.001, codec=0.001))
    found = figures.memory_figures(manifest, steady, meter)
    whole, steps = bytes_per_frame(manifest), step_bytes_per_frame(manifest)
    assert (found["bytes_per_frame"], found["step_bytes_per_frame"]) == (whole, steps)
    assert found["bandwidth_fraction"] == pytest.approx(whole / 0.002 / meter.best, rel=0.01)
    assert found["step_bandwidth_fraction"] == pytest.approx(steps / 0.001 / meter.best, rel=0.01)


def test_the_meter_keeps_its_best_pass():
    """Whatever the threads, it reads the same buffer, and the best is no less than the median."""
    for num_threads in (1, 2, 3):
        meter = BandwidthMeter(num_threads)
        passes = [meter.measure() for _ in range(3)]
        assert (meter.best, meter.median) == (max(passes), sorted(passes)[1])
        assert meter.best > 1e8


def test_by_length_has_a_row_for_every_text():
    """Shortest first, medians of its rounds; one that was cut is marked."""
    texts = [spoken("aaaa", synthesis_s=1.0, cut=True), spoken("aa", synthesis_s=0.4), spoken("aa", synthesis_s=0.6)]
    rows = figures.by_length(texts)
    assert [(row["chars"], row["synthesis_ms"], row["cut"]) for row in rows] == [(2, 400.0, False), (4, 1000.0, True)]


def test_audible_is_later_by_the_device():
    """The device's latency is added to what is audible, not to the first sample in the ring."""
    heard = [Heard("ab", 5.0, 120.0, None), Heard("abc", 9.0, 130.0, 1.5), Heard("ab", 7.0, 110.0, 0.5)]
    found = first_sound(heard, 80)
    assert (found["ttfa_ms_first"], found["ttfa_ms_p50"], found["ttfa_ms_p95"]) == (5.0, 7.0, 9.0)
    assert (found["onset_ms_p50"], found["onset_ms_p95"], found["told_wait_s_max"]) == (200.0, 210.0, 1.5)
    assert by_chars(heard) == {2: 5.0, 3: 9.0}


def test_memory_is_read_from_smaps():
    """Kilobytes become bytes; the process's own are its private pages; what is not told is None."""
    lines = ("55-7f ---p 0 [rollup]", "Rss:   100 kB", "Pss:  50 kB", "Private_Clean: 10 kB", "Private_Dirty: 20 kB")
    text = "\n".join([*lines, "THPeligible:    0", ""])
    assert parse_smaps(text) == {"rss_bytes": 102_400, "pss_bytes": 51_200, "uss_bytes": 30_720}
    assert parse_smaps("") == {"rss_bytes": None, "pss_bytes": None, "uss_bytes": None}


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("processor\t: 0\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\nmodel name\t: AMD EPYC\n", "AMD EPYC"),
        ("processor\t: 0\nHardware\t: BCM2835\nModel\t\t: Raspberry Pi 4 Model B\n", "Raspberry Pi 4 Model B"),
        ("processor\t: 0\n", ""),
    ],
)
def test_the_processor_has_its_name(cpuinfo, name):
    """On PCs and on boards; empty where the kernel does not tell."""
    assert machine.cpu_name(cpuinfo) == name


def test_llama_bench_is_understood():
    """Nanoseconds of each repetition's tokens become milliseconds of a step."""
    text = json.dumps([{"n_gen": 64, "samples_ns": [640_000_000, 1_280_000_000]}])
    assert parse_llama_bench(text) == [10.0, 20.0]


@pytest.mark.engine
def test_bench_ends_though_the_speech_does_not(monkeypatch):
    """A text is cut, and no other begun, when the time is up; what was spoken until then is measured."""
    monkeypatch.setattr(speaking, "TEXT_S", 0.0)
    monkeypatch.setattr(speaking, "TOTAL_S", 0.0)
    began = time.monotonic()
    found = measure_engine(EngineConfig(), load_bundle(STARTER), rounds=1000)
    assert time.monotonic() - began < 60
    assert (found["utterances"], found["cut"]) == (1, 1)
    assert found["rtf"] > 0
    assert found["outside_native_share"] is None
    assert found["bandwidth_rtf"] == pytest.approx(
        found["bytes_per_frame"] * 12.5 / found["bandwidth_bytes_per_s"], rel=0.01
    )
