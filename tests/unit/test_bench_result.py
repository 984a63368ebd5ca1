"""crier bench around its figures: earlier results, pictures, and the environment of what it starts."""

import copy
import importlib.util
import io
import json
import tomllib
from pathlib import Path

import pytest
from rich.console import Console

from daemon.bench import compare, plot
from daemon.bench.child import Child, child_config
from daemon.bench.environment import child_environment, peer_environment
from daemon.bench.peers import measure_peers
from daemon.bench.result import FORMAT, ROWS, shown
from daemon.bench.table import print_table
from daemon.client import main
from daemon.config import Config
from daemon.engine.bundle import load_bundle
from daemon.engine.toml_text import to_toml
from daemon.errors import EngineError

ROOT = Path(__file__).resolve().parents[2]
MACHINE = {
    "cpu": "a processor",
    "cores": 2,
    "memory_bytes": 2**30,
    "load_1min": 0.1,
    "system": "Linux x86_64",
    "python": "3.11.7",
    "llama_cpp_python": "0.3.36",
    "onnxruntime": "1.31.1",
}


def result(**figures):
    """A whole result with all figures 1, but those that are given."""
    return {
        **{key: 1.0 for key, _, _ in ROWS},
        "format": FORMAT,
        "machine": dict(MACHINE),
        "bundle": "starter",
        "recipe": "q8_0",
        "depth_recipe": "q8_0",
        "revision": "1",
        "threads": 1,
        "measured_at": "2026-01-01T00:00:00+00:00",
        "frame_ms": {"backbone": 1.0, "codec": 2.0},
        "by_length": [
            {"chars": 9, "audio_s": 1, "first_audio_ms": 5, "synthesis_ms": 50, "cut": False, "ttfa_ms": 6},
            {"chars": 90, "audio_s": 9, "first_audio_ms": 5, "synthesis_ms": 500, "cut": True, "ttfa_ms": None},
        ],
        **figures,
    }


def test_comparison_divides_new_by_old():
    """Figures and stages; where one has nothing, or the old was nothing, there is no ratio."""
    old = result(rtf=2.0, underruns=0, told_wait_s_max=None)
    new = result(rtf=1.0, underruns=3, frame_ms={"backbone": 0.5, "wait": 1.0})
    found = {name: (before, now, ratio) for name, before, now, ratio in compare.rows(old, new)}
    assert found["real-time factor (below 1 keeps up)"] == ("2.000", "1.000", "0.500")
    assert found["underruns"] == ("0", "3", "-")
    assert found["longest wait told beforehand"] == ("-", "1.0 s", "-")
    assert found["backbone, a frame"] == ("1.00 ms", "0.50 ms", "0.500")
    assert found["codec, a frame"] == ("2.00 ms", "-", "-")
    assert found["wait, a frame"] == ("-", "1.00 ms", "-")


def test_comparison_says_what_else_is_different():
    """Machine, bundle, recipe and threads; nothing where they are the same."""
    old, new = result(), result(recipe="q4_0", threads=2)
    new["machine"]["cpu"] = "another"
    assert compare.differences(old, copy.deepcopy(old)) == []
    assert compare.differences(old, new) == [
        "recipe: q8_0 then, q4_0 now",
        "threads: 1 then, 2 now",
        "cpu: a processor then, another now",
    ]
    stream = io.StringIO()
    compare.print_comparison(Console(file=stream, width=120), old, new)
    assert "not the same: threads: 1 then, 2 now" in stream.getvalue()


def test_an_earlier_result_is_the_last_line_of_its_file(tmp_path):
    """As a shell's redirection leaves it, also with other lines before it."""
    path = tmp_path / "old.json"
    path.write_text("something else\n" + json.dumps(result(rtf=0.5)) + "\n")
    assert compare.load_result(path)["rtf"] == 0.5


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"not json",
        b"[1]",
        b'{"rtf": 0.5}',
        json.dumps({"format": FORMAT}).encode(),
        json.dumps(result(rtf="fast")).encode(),
        json.dumps(result(machine=None)).encode(),
        json.dumps(result(frame_ms={"codec": []})).encode(),
    ],
)
def test_what_is_no_result_is_refused_before_anything_is_measured(tmp_path, capsys, content):
    """With one line that names the file."""
    path = tmp_path / "old.json"
    path.write_bytes(content)
    assert main(["bench", "--compare", str(path)]) == 65
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines == [f"crier: --compare {path}: no result of this program's `crier bench --json`"]


def test_a_result_that_is_not_there_is_named(tmp_path, capsys):
    """Likewise before anything is measured."""
    assert main(["bench", "--compare", str(tmp_path / "none.json")]) == 65
    assert "No such file" in capsys.readouterr().err


def test_without_matplotlib_the_way_to_get_it_is_said(tmp_path, monkeypatch, capsys):
    """In one line, before anything is measured."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert main(["bench", "--plot", str(tmp_path / "a.png")]) == 69
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "pip install" in lines[0]


@pytest.mark.parametrize("name", ["a.txt", "a", "none/a.png"])
def test_a_picture_that_cannot_be_written_is_refused_first(tmp_path, capsys, name):
    """An unknown kind of file, or a folder that is not there."""
    pytest.importorskip("matplotlib")
    assert main(["bench", "--plot", str(tmp_path / name)]) == 65
    assert "--plot" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_picture_of_any_result(tmp_path, suffix):
    """Also of one in which texts were cut or not announced."""
    pytest.importorskip("matplotlib")
    path = tmp_path / f"a{suffix}"
    plot.draw(result(), path)
    assert path.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")


def test_the_table_shows_every_figure_and_peer():
    """Those that are there, with their units; for a peer that is not there, why."""
    step = {
        "our_step_ms": 3.0,
        "llama_bench_step_ms": 2.0,
        "ours_to_llama_bench": 1.5,
        "frame_stage_to_llama_bench": 1.6,
    }
    peers = {
        "flite": {"process_ms_p50": 10.0, "process_ms_p95": 11.0, "rtf": 0.004},
        "espeak-ng": {"absent": "espeak-ng is not installed"},
        "llama-bench": {"backbone": step},
        "transformers": {"frame_s": 0.6, "best": "bfloat16 static", "frame_to_ours": 4.0},
    }
    stream = io.StringIO()
    print_table(Console(file=stream, width=140), result(peers=peers, rss_bytes=150e6))
    text = stream.getvalue()
    for wanted in ("150 MB", "espeak-ng is not installed", "1.500", "1.600", "bfloat16 static", "600.00 ms", "66.7 %"):
        assert wanted in text


def test_figures_are_shown_with_their_units():
    """A dash where there is none."""
    assert shown(0.876, ("%", 100.0, 1)) == "87.6 %"
    assert shown(None, ("ms", 1.0, 2)) == "-"


def test_the_bench_daemon_is_configured_like_the_one_under_test(tmp_path):
    """But with no other door, a null sink, and no phrases from disk; it is a valid configuration."""
    config = Config.model_validate(
        {
            "engine": {"threads": 3, "bundle": "other", "bundle_path": ["/a", "/b"]},
            "mqtt": {"enabled": True, "host": "far.example"},
            "audio": {"sink": "wav", "path": "/out.wav", "lead_ms": 1000},
            "quiet": {"start": "22:00", "end": "06:00"},
        }
    )
    text = to_toml(child_config(config, Path("/bundle"), tmp_path / "s"))
    child = Config.model_validate(tomllib.loads(text))
    assert child.engine == config.engine.model_copy(update={"bundle": "/bundle"})
    assert child.audio == config.audio.model_copy(update={"sink": "null", "path": ""})
    assert child.text == config.text
    assert (child.mqtt, child.quiet, child.socket.path) == (Config().mqtt, Config().quiet, str(tmp_path / "s"))
    assert not child.phrases.cache


def test_the_bench_daemon_writes_to_no_folder_of_the_user(tmp_path):
    """Neither the desktop's variables nor systemd's reach it; the rest does."""
    environ = {
        "XDG_CACHE_HOME": "/home/u/.cache",
        "CACHE_DIRECTORY": "/var/cache/crier",
        "NOTIFY_SOCKET": "/run/notify",
        "HOME": "/home/u",
        "GOMP_SPINCOUNT": "5",
        "PYTHONPATH": "/lib/mine",
    }
    found = child_environment(environ, tmp_path)
    assert found["GOMP_SPINCOUNT"] == "5"
    assert found["PYTHONPATH"] == f"{ROOT}:/lib/mine"
    assert not {"CACHE_DIRECTORY", "NOTIFY_SOCKET"} & found.keys()
    assert {found[name] for name in ("HOME", "XDG_CACHE_HOME")} == {str(tmp_path), str(tmp_path / "cache")}


@pytest.mark.engine
def test_a_bench_daemon_that_does_not_start_says_why(tmp_path):
    """Its exit code and its last words, at once."""
    with pytest.raises(EngineError, match=r"ended with 66: .*/none"):
        Child(Config(), tmp_path / "none", tmp_path)


def test_peers_run_as_they_come():
    """Without what this program sets for itself."""
    found = peer_environment({"GOMP_SPINCOUNT": "10000", "PATH": "/bin"})
    assert found == {"PATH": "/bin", "PYTHONPATH": str(ROOT)}


def test_a_peer_that_is_absent_or_fails_says_so(tmp_path, monkeypatch):
    """And the others are measured all the same; transformers' CSM is no peer of a model of another shape."""
    monkeypatch.setenv("PATH", str(tmp_path))
    broken = tmp_path / "flite"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    figures = {"threads": 1, "frame_ms": {}, "frames_per_s": 100.0}
    bundle = load_bundle(ROOT / "models" / "starter")
    found = measure_peers(bundle, figures, tmp_path, rounds=1, llama_bench=None)
    assert found["espeak-ng"] == {"absent": "espeak-ng is not installed"}
    assert "3" in found["flite"]["absent"]
    assert "performance.md" in found["llama-bench"]["absent"]
    assert "shape" in found["transformers"]["absent"]
