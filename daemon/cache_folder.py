"""A folder of files that can be made again: bounded in bytes, the least recently used leaves first, none trusted."""

import contextlib
import hashlib
import logging
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

logger = logging.getLogger(__name__)

_PART = ".part"
_PART_AGE_S = 3600
"""A file still being written is younger."""
_COMPLAIN_S = 60.0
"""A folder that cannot be written to is told of once in so long."""
_DIGEST_BYTES = hashlib.sha256().digest_size

Part = bytes | bytearray | memoryview


class CacheFolder:
    """Files behind a magic line and a sha256 of their content, for this user alone.

    Beside other processes; one thread reads and writes, ``head`` may be called from any.

    Args:
        folder: where; made with the first file.
        max_bytes: of all files together; one that alone is larger is not kept.
        suffix: of the files' names; others in the folder are left alone.
        magic: first bytes of each file.
        complain: log what cannot be read or kept.

    Attributes:
        num_bytes: of all files, when the folder was looked through last.
        error: why the last file could not be kept; empty where it could.
    """

    def __init__(self, folder: Path, max_bytes: int, *, suffix: str, magic: bytes, complain: bool = True) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self.error = ""
        self._suffix = suffix
        self._magic = magic
        self._quiet_until = 0.0 if complain else math.inf

    def read(self, name: str) -> memoryview | None:
        """The content of a file, None if there is none that is whole; marks it as used, removes it if it is damaged."""
        path = self._path(name)
        try:
            with path.open("rb") as file:
                whole = os.fstat(file.fileno()).st_size <= self.max_bytes
                content = memoryview(file.read() if whole else b"")
        except FileNotFoundError:
            return None
        except OSError as err:
            self._complain(f"unreadable: {path}: {err.strerror}")
            return None
        start = len(self._magic) + _DIGEST_BYTES
        if content[:start] != self._magic + hashlib.sha256(content[start:]).digest():
            logger.warning("cache: %s is damaged; removed", path)
            self.remove(name)
            return None
        with contextlib.suppress(OSError):  # it may be another user's
            os.utime(path)
        return content[start:]

    def head(self, name: str, num_bytes: int) -> tuple[bytes, int] | None:
        """The first bytes of a file's content, unchecked, and the size that its content has; None if there is none."""
        start = len(self._magic) + _DIGEST_BYTES
        try:
            with self._path(name).open("rb") as file:
                content = file.read(start + num_bytes)
                size = os.fstat(file.fileno()).st_size
        except OSError:
            return None
        return (content[start:], size - start) if content.startswith(self._magic) else None

    def write(self, name: str, parts: Sequence[Part]) -> bool:
        """Keep a file, which appears whole or not at all; whether it could be kept. Others leave to make room."""
        num_bytes = sum(map(len, parts)) + len(self._magic) + _DIGEST_BYTES
        if num_bytes > self.max_bytes:
            return False
        self.error = ""
        path = self._path(name)
        part = path.with_suffix(f".{os.getpid()}{_PART}")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _hand_over(self.folder)
            part.unlink(missing_ok=True)
            self._write(part, parts)
            part.replace(path)
        except OSError as err:
            self.error = f"{err.filename or path}: {err.strerror}"
            self._complain(f"not kept: {self.error}")
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        self.evict()
        # os.path's exists also says no where it may not look; Path's raises.
        return os.path.exists(path)  # noqa: PTH110

    def _write(self, part: Path, parts: Sequence[Part]) -> None:
        digest = hashlib.sha256()
        for content in parts:
            digest.update(content)
        with open(part, "wb", opener=_private) as file:
            file.write(self._magic + digest.digest())
            for content in parts:
                file.write(content)
            _hand_over(part, file.fileno())

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with contextlib.suppress(OSError):
            self._path(name).unlink(missing_ok=True)

    def evict(self) -> None:
        """Remove the files that were used longest ago until the rest is small enough, and what a crash left."""
        files: list[tuple[float, int, Path]] = []
        for path in self._list():
            with contextlib.suppress(OSError):
                status = path.stat()
                if path.suffix == self._suffix or time.time() - status.st_mtime > _PART_AGE_S:
                    files.append((0.0 if path.suffix == _PART else status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for used, size, path in sorted(files):
            if used and total <= self.max_bytes:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                total -= size
        self.num_bytes = total

    def _list(self) -> list[Path]:
        """The files, and those still being written; none where the folder cannot be read."""
        try:
            return [path for path in self.folder.iterdir() if path.suffix in (self._suffix, _PART)]
        except OSError:
            return []

    def _path(self, name: str) -> Path:
        return self.folder / (name + self._suffix)

    def _complain(self, what: str) -> None:
        if time.monotonic() >= self._quiet_until:
            self._quiet_until = time.monotonic() + _COMPLAIN_S
            logger.warning("cache %s", what)


def _private(path: str, flags: int) -> int:
    """Opens a new file; where root makes one for the service, the service must not have put a link there."""
    return os.open(path, flags | os.O_EXCL | os.O_NOFOLLOW, 0o600)


def _hand_over(path: Path, descriptor: int | None = None) -> None:
    """Give what root makes to the owner of the folder it is in: the service must be able to use it and remove it."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path if descriptor is None else descriptor, owner.st_uid, owner.st_gid)
