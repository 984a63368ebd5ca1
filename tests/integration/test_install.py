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
    "etc/systemd/system/crier.service",
    "etc/systemd/system/crier.socket",
    "etc/systemd/user/crier.service",
    "etc/sysusers.d/crier.conf",
    "etc/tmpfiles.d/crier.conf",
    "var/lib/crier/models/starter/manifest.toml",
)


def _install(*arguments: str, **environment: str | Path) -> subprocess.CompletedProcess[str]:
    """Run install.sh with nobody to answer a question."""
    return subprocess.run(
        [SCRIPT, *arguments],
        env=os.environ | {"PYTHON": sys.executable, "CI": "true"} | {k: str(v) for k, v in environment.items()},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def _succeed(*arguments: str, **environment: str | Path) -> str:
    done = _install(*arguments, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("shellcheck", path=Path(sys.executable).parent) is None, reason="no shellcheck here")
def test_scripts_pass_shellcheck():
    """The linter for shell scripts has nothing to say."""
    shellcheck = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([shellcheck, SCRIPT, REPOSITORY / ".ci/run"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("arguments", [["--nonsense"], ["--dev"], ["--purge"], ["--local", "--purge"]])
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


def test_dry_run_of_removal_keeps_what_is_the_users(tmp_path: Path):
    """Configuration and state go with --purge only."""
    kept = f"{tmp_path}/etc/crier"
    assert kept not in _succeed("--uninstall", "--dry-run", DESTDIR=tmp_path)
    assert kept in _succeed("--uninstall", "--purge", "--dry-run", DESTDIR=tmp_path)


def test_unusable_python_is_named(tmp_path: Path):
    """An interpreter that will not do is refused in one line."""
    done = _install("--dry-run", DESTDIR=tmp_path, PYTHON="/bin/false")
    assert done.returncode == 1
    assert done.stderr == "crier: PYTHON=/bin/false is not a 64-bit Python 3.11 or newer\n"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(len(Path("/proc/net/route").read_text().splitlines()) < 2, reason="packages need a network")
def test_service_is_installed_updated_and_removed(tmp_path: Path):
    """A real installation works, a second one has nothing to do, the configuration is never lost."""
    config = tmp_path / "etc/crier/config.toml"
    defaults = (REPOSITORY / "config.toml").read_bytes()

    _succeed(DESTDIR=tmp_path)
    assert not [name for name in INSTALLED if not (tmp_path / name).exists()]
    assert (tmp_path / "usr/local/bin/crierd").readlink() == Path("/opt/crier/bin/crierd")
    assert (tmp_path / "opt/crier/bin/crierd").read_text().startswith("#!/opt/crier/bin/python")
    assert config.read_bytes() == defaults
    probe = "from daemon.config import load_config; import llama_cpp, onnxruntime, pyaudio; load_config(None)"
    subprocess.run([tmp_path / "opt/crier/bin/python", "-c", probe], cwd=tmp_path, check=True)

    config.write_text('[mqtt]\nnode = "kitchen"\n')
    assert "config.toml.new" in _succeed(DESTDIR=tmp_path)
    assert config.with_suffix(".toml.new").read_bytes() == defaults
    assert "up to date" in _succeed(DESTDIR=tmp_path)

    _succeed("--uninstall", DESTDIR=tmp_path)
    assert not [name for name in INSTALLED if (tmp_path / name).exists()]
    assert config.read_text() == '[mqtt]\nnode = "kitchen"\n'
    _succeed("--uninstall", "--purge", DESTDIR=tmp_path)
    assert not config.parent.exists()
