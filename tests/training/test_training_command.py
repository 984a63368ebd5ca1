"""python -m training: what is run, with what, and how it ends."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from daemon.errors import ModelError, StoreError
from training import __main__ as command
from training.stopping import Stopped

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """The stages, replaced by ones that note how they were called: [(stage, config, keywords)]."""
    seen = []

    def stage(name):
        module = ModuleType(f"training.{name}")
        module.run = lambda config, **given: seen.append((name, config, given))
        monkeypatch.setitem(sys.modules, f"training.{name}", module)

    for name in (*command.TEXT_STAGES, *command.TRAINING_STAGES):
        stage(name)
    (tmp_path / "voice.toml").write_text(f'[paths]\nwork = "{tmp_path}/work"\n[corpus]\nnames = 7\n')
    return seen


def run(tmp_path, *arguments):
    """The command's exit code."""
    return command.main([*arguments, "--config", str(tmp_path / "voice.toml")])


def test_all_runs_the_stages_in_order(calls, tmp_path):
    """Every stage gets the configuration; those with torch get device, processes and the minutes that are left."""
    assert run(tmp_path, "all", "--device", "cuda", "--minutes", "30") == 0
    assert [name for name, _, _ in calls] == ["corpus", "speak", "codec", "encode", "lm", "export", "evaluate"]
    assert all(config.corpus.names == 7 for _, config, _ in calls)
    assert calls[0][2] == {}
    assert calls[1][2].keys() == {"minutes", "processes"}
    given = calls[-1][2]
    assert given["device"] == "cuda"
    assert 0 < given["minutes"] < 30


def test_work_of_the_cpu_is_for_all_cores(calls, tmp_path, monkeypatch):
    """Whatever is trained on: who speaks and who judges gets every core, and the number that was asked for."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(7)))
    for options, counts in (
        ((), (7, 2, 2, 2, 2, 7)),
        (("--device", "cuda"), (7, 1, 1, 1, 1, 7)),
        (("--processes", "3"), (3, 3, 3, 3, 3, 3)),
    ):
        calls.clear()
        run(tmp_path, "all", *options)
        assert tuple(given["processes"] for _, _, given in calls[1:]) == counts


def test_a_stage_that_stopped_ends_the_command(calls, tmp_path, monkeypatch, capsys):
    """What comes after it is not begun; the line says how to go on, and nothing has failed."""

    def stop(_config, **_given):
        raise Stopped

    monkeypatch.setattr(sys.modules["training.codec"], "run", stop)
    assert run(tmp_path, "all") == 0
    assert [name for name, _, _ in calls] == ["corpus", "speak"]
    assert (
        f"codec stopped before its end; to go on: python -m training all --config {tmp_path}" in capsys.readouterr().err
    )


def test_values_of_the_configuration_can_be_set(calls, tmp_path, capsys):
    """--set wins over the file, typed as in TOML; an unknown key and a wrong type are refused in one line."""
    assert run(tmp_path, "corpus", "--set", "corpus.names=9", "--set", "paths.bundle=models/mine") == 0
    assert calls[0][1].corpus.names == 9
    assert calls[0][1].paths.bundle == "models/mine"
    assert run(tmp_path, "corpus", "--set", "corpus.nmaes=9") == 78
    assert run(tmp_path, "corpus", "--set", "corpus.names=many") == 78
    assert capsys.readouterr().err.count("\n") == 2


def test_a_phase_of_the_codec_is_passed_on(calls, tmp_path):
    """--phase reaches the codec, and is absent where it was not given."""
    run(tmp_path, "codec", "--phase", "adversary", "--processes", "3")
    run(tmp_path, "codec")
    assert calls[0][2] == {"device": "cpu", "processes": 3, "minutes": None, "phase": "adversary"}
    assert "phase" not in calls[1][2]


def test_errors_are_one_line_with_their_exit_code(calls, tmp_path, monkeypatch, capsys):
    """What a stage refuses is said without a traceback."""

    def refuse(_config, **_given):
        raise ModelError("codec/last.pt: damaged")

    monkeypatch.setattr(sys.modules["training.lm"], "run", refuse)
    assert run(tmp_path, "lm") == 66
    assert capsys.readouterr().err == "training: codec/last.pt: damaged\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["sing"],
        ["lm", "--phase", "recon"],
        ["lm", "--processes", "0"],
        ["lm", "--processes", "two"],
        ["lm", "--minutes", "-1"],
        ["lm", "--set", "steps=3"],
        ["lm", "--set", "lm.steps"],
    ],
)
def test_wrong_usage_is_refused(arguments, capsys):
    """Exit code 2, with the usage."""
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m training" in capsys.readouterr().err


def test_a_drawn_log_is_one_that_was_written_to(calls, tmp_path, monkeypatch):
    """Curves are drawn when a stage has ended, also when it stopped early, of the logs it wrote."""

    def stop(config, **_given):
        log = Path(config.paths.work) / "log" / "lm.jsonl"
        log.parent.mkdir(parents=True)
        log.write_text('{"time_s": 1.0, "step": 1, "loss": 2.0}\n')
        raise Stopped

    monkeypatch.setattr(sys.modules["training.lm"], "run", stop)
    assert run(tmp_path, "lm") == 0
    picture = tmp_path / "work" / "plots" / "lm.png"
    assert picture.exists()
    picture.unlink()
    run(tmp_path, "export")
    assert not picture.exists()


@pytest.mark.parametrize("missing", ["torch", "matplotlib"])
def test_what_is_not_installed_is_named(missing, tmp_path):
    """Without the extra: exit code 69 and what to install; --help works."""
    (tmp_path / "voice.toml").touch()
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from training.__main__ import main\n"
        f"sys.exit(main(['lm', '--config', {str(tmp_path / 'voice.toml')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 69
    assert done.stderr == f"training: {missing} is not installed: pip install -e '.[training]'\n"


def test_help_loads_nothing_heavy():
    """--help needs neither the extra nor pydantic."""
    code = (
        "import sys; sys.modules.update(torch=None, matplotlib=None, pydantic=None)\n"
        "from training.__main__ import main; main(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "evaluate" in done.stdout


def test_what_went_wrong_first_is_said(calls, tmp_path, monkeypatch, capsys):
    """A full disk that ends a stage also ends the drawing of its curves."""

    def full(*_args, **_given):
        raise StoreError("the checkpoint cannot be written")

    def no_picture(*_args):
        raise StoreError("the picture cannot be written")

    monkeypatch.setattr(sys.modules["training.lm"], "run", full)
    monkeypatch.setattr(command, "_draw_logs", no_picture)
    assert run(tmp_path, "lm") == 73
    assert "the checkpoint cannot be written" in capsys.readouterr().err
