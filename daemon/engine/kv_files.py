"""KV caches of voices as files: bounded in bytes, the least recently used leaves first, none trusted unseen."""

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from daemon.engine.llama import LlamaModel
from daemon.errors import EngineError

logger = logging.getLogger(__name__)

_MAGIC = b"crier-kv-1\n"
_SUFFIX, _PART = ".kv", ".part"
_PART_AGE_S = 3600
"""A file still being written is younger."""


class KvFiles:
    """A folder of KV states.

    Args:
        folder: where; None keeps nothing.
        max_bytes: of all files together; a state that alone is larger is not kept.
        identity: of the model and of everything else that a state depends on.
    """

    def __init__(self, folder: Path | None, max_bytes: int, identity: str) -> None:
        self._folder = folder if max_bytes > 0 else None
        self._max_bytes = max_bytes
        self._identity = identity

    def restore(self, model: LlamaModel, key: str, num_positions: int, prefill: Callable[[], object]) -> None:
        """Put the state ``key`` of ``num_positions`` into an empty KV cache: from its file, else by ``prefill``.

        Raises:
            EngineError: the prefill failed.
        """
        if self._folder is None:
            prefill()
            return
        name = hashlib.sha256(f"{self._identity}\0{key}\0{num_positions}".encode()).hexdigest()
        path = self._folder / (name + _SUFFIX)
        state = self._read(path)
        if state is not None:
            try:
                model.restore(state, num_positions)
            except EngineError as err:
                logger.warning("kv cache rebuilt: %s: %s", path, err)
                model.rewind(0)
            else:
                return
        prefill()
        self._write(path, model.state())

    def _read(self, path: Path) -> bytes | None:
        """The state in a file, None if there is none that is whole; marks it as used."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as err:
            logger.warning("kv cache unreadable: %s: %s", path, err.strerror)
            return None
        with contextlib.suppress(OSError):  # it may be another user's
            os.utime(path)
        head = len(_MAGIC) + hashlib.sha256().digest_size
        state = content[head:]
        if content[:head] != _MAGIC + hashlib.sha256(state).digest():
            logger.warning("kv cache rebuilt: %s is damaged", path)
            return None
        return state

    def _write(self, path: Path, state: bytes) -> None:
        """Keep a state; that it cannot be kept is no reason not to speak."""
        if self._folder is None or len(state) > self._max_bytes:
            return
        part = path.with_suffix(f".{os.getpid()}{_PART}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            _hand_over(self._folder)
            part.write_bytes(_MAGIC + hashlib.sha256(state).digest() + state)
            _hand_over(part)
            part.replace(path)
        except OSError as err:
            logger.warning("kv cache not kept: %s: %s", path, err.strerror)
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        self._evict(self._folder)

    def _evict(self, folder: Path) -> None:
        """Remove the files that were used longest ago until the rest is small enough, and what a crash left."""
        files: list[tuple[float, int, Path]] = []
        for path in [*folder.glob(f"*{_SUFFIX}"), *folder.glob(f"*{_PART}")]:
            with contextlib.suppress(OSError):
                status = path.stat()
                if path.suffix == _SUFFIX or time.time() - status.st_mtime > _PART_AGE_S:
                    files.append((0.0 if path.suffix == _PART else status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for used, size, path in sorted(files):
            if used and total <= self._max_bytes:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                total -= size


def _hand_over(path: Path) -> None:
    """Give what root makes to the owner of the folder it is in: the service must be able to use it and remove it."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)
