"""Where things are, for a service and for a user (PROTOCOL.md, "Unix socket"; DESIGN section 4)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SYSTEM_CONFIG = Path("/etc/crier/config.toml")
SYSTEM_SOCKET = Path("/run/crier/control.sock")


@dataclass(frozen=True, slots=True)
class Places:
    """Folders and files that depend on who runs the program."""

    config: Path | None
    """The config file to use when none is named: the service's, if there is one."""
    state: Path
    """Folder of settings that survive."""
    socket: Path
    """The Unix socket when the configuration names none."""
    credentials: Path | None
    """systemd's credentials, if it gave any."""


def find_places(environ: Mapping[str, str]) -> Places:
    """Read the variables that systemd and the desktop set."""
    config_home = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    state_home = Path(environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    state = Path(environ["STATE_DIRECTORY"].split(":")[0]) if "STATE_DIRECTORY" in environ else state_home / "crier"
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    candidates = (config_home / "crier" / "config.toml", SYSTEM_CONFIG)
    return Places(
        config=next((path for path in candidates if path.is_file()), None),
        state=state,
        socket=_socket(environ, state),
        credentials=Path(credentials) if credentials else None,
    )


def _socket(environ: Mapping[str, str], state: Path) -> Path:
    if "RUNTIME_DIRECTORY" in environ:
        return Path(environ["RUNTIME_DIRECTORY"].split(":")[0]) / "control.sock"
    runtime = environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "crier.sock" if runtime else state / "run" / "crier.sock"
