"""crier doctor beyond the starter voice: bytes a frame, and what memory allows."""

import argparse
import json
import shutil
import tomllib
from pathlib import Path

import pytest

from daemon import bandwidth, doctor, expectation
from daemon.bandwidth import bandwidth_rtf
from daemon.config_sections import EngineConfig
from daemon.engine.bundle import load_bundle
from daemon.errors import EngineError
from daemon.expectation import Expectation, expect
from daemon.places import find_places

STARTER = Path(__file__).resolve().parents[2] / "models" / "starter"

pytestmark = pytest.mark.engine


@pytest.fixture
def report(tmp_path, capsys):
    """Runs doctor over a folder with the starter and whatever was put beside it; returns (exit code, report)."""
    shutil.copytree(STARTER, tmp_path / "starter")
    config = tmp_path / "config.toml"
    config.write_text(f'[audio]\nsink = "null"\n[engine]\nthreads = 0\nbundle_path = ["{tmp_path}"]\n')

    def run():
        code = doctor.run(argparse.Namespace(config=str(config), json=True), find_places({}))
        return code, json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


def test_a_frame_reads_the_depth_decoder_once_a_further_codebook():
    """And everything else once; the real-time factor follows from that and the bandwidth."""
    manifest = load_bundle(STARTER).manifest
    files = tomllib.loads((STARTER / "manifest.toml").read_text())["files"]
    once = sum(files[role]["bytes"] for role in ("backbone", "heads", "codec_decoder"))
    total = once + manifest.audio.num_codebooks * files["depth_decoder"]["bytes"]
    assert bandwidth.bytes_per_frame(manifest) == total
    assert bandwidth.bandwidth_rtf(manifest, 2 * 12.5 * total) == pytest.approx(0.5)


def test_doctor_judges_every_intact_bundle(report, tmp_path):
    """Not only the configured one: bytes a frame, real-time factor at best, cloning; a damaged one has its error."""
    other = tmp_path / "other"
    shutil.copytree(STARTER, other)
    text = (other / "manifest.toml").read_text().replace('name = "starter"', 'name = "other"')
    codec = text[text.index("[files.codec_decoder]") :].split("\n\n")[0]
    (other / "manifest.toml").write_text(f"{text}\n{codec.replace('codec_decoder]', 'codec_encoder]')}\n")
    shutil.copytree(STARTER, tmp_path / "damaged")
    with (tmp_path / "damaged" / "heads.onnx").open("r+b") as file:
        file.write(b"x")
    code, found = report()
    assert code == 0
    bundles = {Path(bundle["path"]).name: bundle for bundle in found["bundles"]}
    assert "sha256" in bundles["damaged"]["error"]
    for name in ("starter", "other"):
        bundle = bundles[name]
        assert bundle["name"] == name
        assert bundle["bytes_per_frame"] == found["configured"]["bytes_per_frame"]
        speed = found["bandwidth_by_threads"][str(bundle["threads"])]
        assert bundle["bandwidth_rtf"] == pytest.approx(bundle["bytes_per_frame"] * 12.5 / speed, rel=0.01)
    assert (bundles["starter"]["can_clone"], bundles["other"]["can_clone"]) == (False, True)
    assert found["bandwidth_bytes_per_s"] == found["bandwidth_by_threads"]["1"]


def test_doctor_measures_memory_with_the_threads_that_the_engine_would_run(report, monkeypatch):
    """A backbone too large for one thread is judged with the bandwidth of several."""
    monkeypatch.setattr("daemon.engine.engine.SMALL_BYTES", 0)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: range(3))
    monkeypatch.setattr(doctor, "memory_bandwidth", lambda num_threads: num_threads * 1e9)
    found = report()[1]
    assert found["bundles"][0]["threads"] == found["configured"]["threads"] == 3
    assert found["bandwidth_by_threads"] == {"1": 1_000_000_000, "3": 3_000_000_000}
    assert found["bundles"][0]["bandwidth_rtf"] == pytest.approx(
        found["bundles"][0]["bytes_per_frame"] * 12.5 / 3e9, 0.01
    )


def test_the_exit_code_tells_whether_the_configured_voice_keeps_up(report, monkeypatch):
    """71 where it does not, with a note; a problem's own code comes first; other bundles do not matter."""
    code, found = report()
    assert (code, found["configured"]["keeps_up"]) == (0, True)
    assert "x faster than real time here (measured)" in found["configured"]["verdict"]
    monkeypatch.setattr(doctor, "measured", lambda _engine: Expectation(1.7, "measured"))
    code, found = report()
    assert (code, found["problems"]) == (71, [])
    assert found["configured"]["verdict"] == "about 1.7 x slower than real time here (measured)"
    assert "does not keep up" in found["notes"][-1]
    monkeypatch.setattr(doctor, "measured", failing)
    code, found = report()
    assert (code, found["problems"]) == (70, ["llama_decode returned -1"])


def failing(_engine):
    raise EngineError("llama_decode returned -1")


def test_a_large_bundle_is_reckoned_from_what_it_reads(monkeypatch):
    """Its codec and sampling are run, its steps reckoned; with twice the bandwidth the steps take half as long."""
    bundle, config = load_bundle(STARTER), EngineConfig()
    assert expect(bundle, config, 1e9).how == "measured"
    monkeypatch.setattr(expectation, "SMALL_BYTES", 0)
    monkeypatch.setattr(expectation, "_codec_frame_s", lambda _bundle: 0.010)
    monkeypatch.setattr(expectation, "_sampling_frame_s", lambda _manifest: 0.002)
    fast, slow = (expect(bundle, config, speed) for speed in (2e9, 1e9))
    assert (fast.how, slow.how) == ("estimated", "estimated")
    assert slow.rtf - 0.012 * 12.5 == pytest.approx(2 * (fast.rtf - 0.012 * 12.5))
    assert slow.rtf > bandwidth_rtf(bundle.manifest, 1e9) - bundle.manifest.files["codec_decoder"].bytes * 12.5 / 1e9


def test_the_reckoning_runs_a_real_codec(monkeypatch):
    """And its sampler: both take time, and less than a frame lasts."""
    bundle = load_bundle(STARTER)
    for took_s in (expectation._codec_frame_s(bundle), expectation._sampling_frame_s(bundle.manifest)):
        assert 0 < took_s < 0.08


def test_what_memory_a_bundle_needs_is_told_when_it_is_not_there(report, monkeypatch):
    """About; more than what every frame reads."""
    found = report()[1]
    need = found["configured"]["needed_bytes"]
    files = load_bundle(STARTER).manifest.files
    assert need > sum(files[role].bytes for role in ("backbone", "depth_decoder", "heads", "codec_decoder"))
    monkeypatch.setattr("daemon.machine.available_memory", lambda: need - 1)
    notes = report()[1]["notes"]
    assert any("of memory, " in note for note in notes)
