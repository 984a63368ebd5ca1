"""The systemd files, judged by systemd's own tools."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from daemon.errors import ConfigError, ModelError

UNITS = Path(__file__).parents[2] / "systemd"


def needs(tool):
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")


def run(*command, **environ):
    return subprocess.run(
        command, env={**os.environ, **environ}, capture_output=True, text=True, check=False, timeout=60
    )


def settings(unit):
    """A unit's settings, the last value of each."""
    lines = (UNITS / unit).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


@needs("systemd-analyze")
def test_system_unit_is_hardened():
    """The exposure that systemd computes is at most 2.5."""
    done = run("systemd-analyze", "security", "--offline=true", "--threshold=25", str(UNITS / "crier.service"))
    assert done.returncode == 0, done.stdout + done.stderr


@needs("systemd-analyze")
@pytest.mark.parametrize("units", [["crier.service", "crier.socket"], ["user/crier.service"]])
def test_units_are_understood(tmp_path, units):
    """systemd finds nothing wrong, given that the program is installed."""
    copies = []
    for unit in units:
        text = (UNITS / unit).read_text()
        assert unit.endswith(".socket") or "ExecStart=/opt/crier/bin/crierd --config " in text
        copies.append(tmp_path / Path(unit).name)
        copies[-1].write_text(text.replace("/opt/crier/bin/crierd", shutil.which("true")))
    scope = "--user" if units[0].startswith("user/") else "--system"
    done = run("systemd-analyze", scope, "verify", *map(str, copies), XDG_RUNTIME_DIR=str(tmp_path))
    said = (done.stdout + done.stderr).splitlines()  # of the machine's own units too
    assert not [line for line in said if "crier" in line]


@pytest.mark.parametrize("unit", ["crier.service", "user/crier.service"])
def test_errors_that_stay_are_not_retried(unit):
    """systemd does not start again what a restart cannot heal: usage, model, configuration."""
    codes = settings(unit)["RestartPreventExitStatus"].split()
    assert codes == ["2", str(ModelError.exit_code), str(ConfigError.exit_code)]


def test_socket_lies_in_the_services_folder():
    """The passed socket is the default path, for the group's members only, and outlives the service."""
    socket, service = settings("crier.socket"), settings("crier.service")
    assert socket["ListenStream"] == f"/run/{service['RuntimeDirectory']}/control.sock"
    assert (socket["SocketMode"], socket["SocketGroup"]) == ("0660", service["Group"])
    assert service["RuntimeDirectoryPreserve"] == "yes"


@needs("systemd-sysusers")
def test_user_has_no_shell_and_may_use_the_sound_card(tmp_path):
    """The system user is made, in group audio."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/group").write_text("audio:x:29:\n")
    done = run("systemd-sysusers", f"--root={tmp_path}", str(UNITS / "sysusers.d/crier.conf"))
    assert done.returncode == 0, done.stderr
    (user,) = (tmp_path / "etc/passwd").read_text().splitlines()
    assert user.startswith("crier:x:")
    assert user.endswith(":/var/lib/crier:/usr/sbin/nologin")
    assert "audio:x:29:crier" in (tmp_path / "etc/group").read_text().splitlines()


@needs("systemd-tmpfiles")
@pytest.mark.skipif(
    os.geteuid() != 0 or Path("/proc/self/uid_map").read_text().split() != ["0", "0", str(2**32 - 1)],
    reason="only root outside of user namespaces can give folders to any user",
)
def test_folders_belong_to_the_user(tmp_path):
    """Every folder of the service is made, readable for all and writable for the service."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("crier:x:4321:4321::/var/lib/crier:/usr/sbin/nologin\n")
    (tmp_path / "etc/group").write_text("crier:x:4321:\n")
    done = run("systemd-tmpfiles", f"--root={tmp_path}", "--create", str(UNITS / "tmpfiles.d/crier.conf"))
    assert done.returncode == 0, done.stderr
    for folder in ("run/crier", "var/lib/crier", "var/lib/crier/models", "var/cache/crier"):
        stat = (tmp_path / folder).stat()
        assert (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777) == (4321, 4321, 0o755)
