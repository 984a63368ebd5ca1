"""The environments of the processes that the bench starts."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import daemon

_PLACES = re.compile(
    "XDG_.*|(STATE|CACHE|RUNTIME|CREDENTIALS)_DIRECTORY|NOTIFY_SOCKET|WATCHDOG_.*|LISTEN_.*|JOURNAL_STREAM"
)
"""What systemd and the desktop tell a daemon of its folders and sockets."""
_OUR_SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OPENBLAS_NUM_THREADS")
"""What this program sets for itself, of which its peers are to know nothing."""


def child_environment(environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """For a daemon of ours: every folder that it may write to is in ``folder``."""
    kept = {name: value for name, value in environ.items() if not _PLACES.fullmatch(name)}
    folders = {f"XDG_{kind}_HOME": str(folder / kind.lower()) for kind in ("STATE", "CACHE", "CONFIG")}
    return {**kept, **folders, "HOME": str(folder), **_python_path(environ)}


def peer_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """For another program: as it would be without us."""
    kept = {name: value for name, value in environ.items() if name not in _OUR_SETTINGS}
    return kept | _python_path(environ)


def _python_path(environ: Mapping[str, str]) -> dict[str, str]:
    """So that ``python -m`` finds the packages that this process was started from, wherever it was started."""
    package = str(Path(daemon.__file__).parents[1])
    return {"PYTHONPATH": os.pathsep.join(filter(None, (package, environ.get("PYTHONPATH"))))}
