"""install.sh: what it says it would do, and a real installation into a folder of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "install.sh"
INSTALLED = (
    "opt/crier/bin/crierd",
    "usr/local/lib/systemd/system/crier.service",
    "usr/local/lib/systemd/system/crier.socket",
    "usr/local/lib/systemd/user/crier.service",
    "usr/local/lib/sysusers.d/crier.conf",
    "usr/local/lib/tmpfiles.d/crier.conf",
    "var/lib/crier/models/starter/manifest.toml",
)


def _install(*arguments: str, script: Path = SCRIPT, **environment: str | Path) -> subprocess.CompletedProcess[str]:
    """Run install.sh with nobody to answer a question."""
    return subprocess.run(
        [script, *arguments],
        env=os.environ | {"PYTHON": sys.executable, "CI": "true"} | {k: str(v) for k, v in environment.items()},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def _succeed(*arguments: str, script: Path = SCRIPT, **environment: str | Path) -> str:
    done = _install(*arguments, script=script, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("shellcheck", path=Path(sys.executable).parent) is None, reason="no shellcheck here")
def test_scripts_pass_shellcheck():
    """The linter for shell scripts has nothing to say."""
    shellcheck = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([shellcheck, SCRIPT, REPOSITORY / ".ci/run"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "arguments", [["--nonsense"], ["--dev"], ["--purge"], ["--local", "--purge"], ["--uninstall", "--wyoming"]]
)
def test_wrong_arguments_are_usage_errors(arguments: list[str]):
    """What makes no sense ends with 2 and the usage, and does nothing."""
    done = _install(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")


def test_dry_run_changes_nothing(tmp_path: Path):
    """Every action of a fresh installation is named, none is done."""
    said = _succeed("--dry-run", DESTDIR=tmp_path / "root", XDG_CACHE_HOME=tmp_path / "cache")
    assert not [*tmp_path.iterdir()]
    assert "building for this CPU" in said
    for name in (*INSTALLED[1:-1], "etc/crier/config.toml", "usr/local/bin/crier", "var/lib/crier/models/starter"):
        assert f"{tmp_path}/root/{name}\n" in said


def test_wyoming_is_installed_when_asked_for_and_kept(tmp_path: Path):
    """--wyoming adds its packages; an update without it does not take them away."""
    stamp = tmp_path / "opt/crier/.crier-stamp"
    assert "[wyoming]" not in _succeed("--dry-run", DESTDIR=tmp_path)
    assert "[wyoming]" in _succeed("--dry-run", "--wyoming", DESTDIR=tmp_path)
    stamp.parent.mkdir(parents=True)
    stamp.write_text("extras wyoming\n")
    assert "[wyoming]" in _succeed("--dry-run", DESTDIR=tmp_path)


def test_dry_run_of_removal_keeps_what_is_the_users(tmp_path: Path):
    """Configuration and state go with --purge only."""
    kept = f"{tmp_path}/etc/crier"
    assert kept not in _succeed("--uninstall", "--dry-run", DESTDIR=tmp_path)
    assert kept in _succeed("--uninstall", "--purge", "--dry-run", DESTDIR=tmp_path)


def test_folder_may_be_named_from_here(tmp_path: Path):
    """A relative DESTDIR is a folder of the caller's."""
    said = _succeed("--uninstall", "--dry-run", DESTDIR=os.path.relpath(tmp_path / "root"))
    assert f"would: rm -f {tmp_path}/root/{INSTALLED[1]}\n" in said


def test_unusable_python_is_named(tmp_path: Path):
    """An interpreter that will not do is refused in one line."""
    done = _install("--dry-run", DESTDIR=tmp_path, PYTHON="/bin/false")
    assert done.returncode == 1
    assert done.stderr == "crier: PYTHON=/bin/false is not a 64-bit Python 3.11 or newer\n"


def _private_checkout(folder: Path) -> Path:
    """Copy what install.sh needs, as a clone under umask 077 has it, and return the copy's install.sh."""
    script = folder / SCRIPT.name
    for part in ("daemon", "quantize", "training", "systemd", "models/starter"):
        shutil.copytree(REPOSITORY / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "config.toml", script.name):
        shutil.copyfile(REPOSITORY / part, folder / part)
    for path in folder.rglob("*"):
        path.chmod(0o700 if path.is_dir() or path == script else 0o600)
    return script


def _closed_to_others(folder: Path) -> list[Path]:
    """The files and folders that not everybody can read."""
    wanted = {True: 0o555, False: 0o444}
    return [p for p in folder.rglob("*") if not p.is_symlink() and ~p.stat().st_mode & wanted[p.is_dir()]]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(len(Path("/proc/net/route").read_text().splitlines()) < 2, reason="packages need a network")
def test_service_is_installed_updated_and_removed(tmp_path: Path):
    """A real installation works for every user, a second one has nothing to do, the configuration is never lost."""
    root, script = tmp_path / "root", _private_checkout(tmp_path / "checkout")
    environment = root / "opt/crier"
    config = root / "etc/crier/config.toml"
    defaults = (REPOSITORY / "config.toml").read_bytes()
    probe = "from daemon.config import load_config; import llama_cpp, onnxruntime, pyaudio; load_config(None)"

    assert "installed" in _succeed(script=script, DESTDIR=root)
    assert not [name for name in INSTALLED if not (root / name).exists()]
    assert not _closed_to_others(root)
    assert (root / "usr/local/bin/crierd").readlink() == Path("/opt/crier/bin/crierd")
    assert (environment / "bin/crierd").read_text().startswith("#!/opt/crier/bin/python")
    assert config.read_bytes() == defaults
    subprocess.run([environment / "bin/python", "-c", probe], cwd=tmp_path, check=True)

    config.write_text('[mqtt]\nnode = "kitchen"\n')
    said = _succeed(script=script, DESTDIR=root)
    assert "config.toml.new" in said
    assert "up to date" in said
    assert config.with_suffix(".toml.new").read_bytes() == defaults

    broken = {
        "PIP_INDEX_URL": "http://127.0.0.1:1/",
        "PIP_RETRIES": "0",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_CONFIG_FILE": os.devnull,
    }
    with (script.parent / "constraints.txt").open("a") as constraints:
        constraints.write("# other dependencies\n")
    assert _install(script=script, DESTDIR=root, **broken).returncode != 0
    subprocess.run([environment / "bin/python", "-c", probe], cwd=tmp_path, check=True)
    assert "installed" in _succeed(script=script, DESTDIR=root)
    assert "up to date" in _succeed(script=script, DESTDIR=root)

    edited = root / "etc/systemd/system/crier.service"
    edited.parent.mkdir(parents=True)
    edited.touch()
    _succeed("--uninstall", DESTDIR=root)
    assert not [name for name in INSTALLED if (root / name).exists()]
    assert edited.exists()
    assert config.read_text() == '[mqtt]\nnode = "kitchen"\n'
    _succeed("--uninstall", "--purge", DESTDIR=root)
    assert not config.parent.exists()
