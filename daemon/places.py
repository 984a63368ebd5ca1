"""Where things are, for a service and for a user (PROTOCOL.md, "Unix socket"; DESIGN section 4)."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

SYSTEM_CONFIG = Path("/etc/crier/config.toml")
SYSTEM_SOCKET = Path("/run/crier/control.sock")
SYSTEM_STATE = Path("/var/lib/crier")
SYSTEM_CACHE = Path("/var/cache/crier")


class Places(NamedTuple):  # not a dataclass: those take 5 ms to import, and `crier say` needs no other
    """Folders and files that depend on who runs the program."""

    config: Path | None
    """The config file to use when none is named: the service's, if there is one."""
    serves: bool
    """Whether that is the service's."""
    state: Path
    """Folder of settings that survive."""
    voices: tuple[Path, ...]
    """Folders of recorded voices: the first is written to, the service's is read by everyone."""
    cache: Path
    """Folder of what can be computed again."""
    socket: Path
    """The Unix socket when the configuration names none."""
    credentials: Path | None
    """systemd's credentials, if it gave any."""


def find_places(environ: Mapping[str, str]) -> Places:
    """Read the variables that systemd and the desktop set."""
    config_home = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    candidates = (config_home / "crier" / "config.toml", SYSTEM_CONFIG)
    config = next((path for path in candidates if path.is_file()), None)
    serves = config == SYSTEM_CONFIG
    state = _folder(environ, "STATE", SYSTEM_STATE if serves else None, Path.home() / ".local" / "state")
    cache = _folder(environ, "CACHE", SYSTEM_CACHE if serves else None, Path.home() / ".cache")
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    return Places(
        config=config,
        serves=serves,
        state=state,
        voices=tuple(dict.fromkeys((state / "voices", SYSTEM_STATE / "voices"))),
        cache=cache,
        socket=_socket(environ, state),
        credentials=Path(credentials) if credentials else None,
    )


def _folder(environ: Mapping[str, str], kind: str, system: Path | None, home: Path) -> Path:
    """What systemd made for the service, or the desktop names; else the service's where this program may write there.

    So what ``sudo crier`` keeps is the service's, unless root has a configuration of its own.
    """
    if made := environ.get(f"{kind}_DIRECTORY"):
        return Path(made.split(":")[0])
    if named := environ.get(f"XDG_{kind}_HOME"):
        return Path(named) / "crier"
    return system if system is not None and os.access(system, os.W_OK | os.X_OK) else home / "crier"


def _socket(environ: Mapping[str, str], state: Path) -> Path:
    if "RUNTIME_DIRECTORY" in environ:
        return Path(environ["RUNTIME_DIRECTORY"].split(":")[0]) / "control.sock"
    runtime = environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "crier.sock" if runtime else state / "run" / "crier.sock"
