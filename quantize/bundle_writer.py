"""A bundle is written beside its place and moved there when it is whole: nothing half-made is ever found."""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from daemon.engine.bundle import FORMAT_VERSION, load_bundle
from daemon.engine.toml_text import to_toml
from daemon.errors import EngineError, ModelError
from quantize.bundle_place import MANIFEST, BundlePlace, BundleWriteError, reason, sync
from quantize.progress import Tick


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a bundle."""

    role: str
    file_name: str
    num_bytes: int
    """About how large it will be."""
    write: Callable[[Path, Tick], None]


class BundleWriter:
    """Collects the files of a bundle; ``finish`` puts it in its place.

    As a context manager it keeps what was finished, however it is left, if that is anything: the next run with the
    same ``key`` goes on with it.

    Args:
        place: where the bundle goes.
        key: stands for everything the bundle depends on.
        fresh: whether to begin anew.

    Raises:
        BundleWriteError: the place cannot be written.
    """

    def __init__(self, place: BundlePlace, key: str, *, fresh: bool = False) -> None:
        self._place = place
        self._key = key
        self._fresh = fresh
        self._files: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        try:
            self._files = {} if self._fresh else self._finished()
            if not self._files:
                self._place.discard()
            self._note()
            self._place.new.mkdir(exist_ok=True)
            for path in self._place.new.iterdir():  # what was half done is in nobody's way
                if path.name not in {entry["path"] for entry in self._files.values()}:
                    path.unlink()
        except OSError as err:
            raise BundleWriteError(f"{self._place.new}: cannot be written: {reason(err)}") from err
        return self

    def __exit__(self, _kind: object, err: BaseException | None, _trace: object) -> None:
        if not self._files:
            self._place.discard()
        elif isinstance(err, KeyboardInterrupt):
            err.add_note(self._kept())

    def _finished(self) -> dict[str, dict[str, Any]]:
        """What an earlier run left that is whole and of the same key."""
        notes = self._place.notes()
        if notes is None or notes["key"] != self._key:
            return {}
        files = {}
        for role, entry in notes["files"].items():
            try:
                if self._entry(entry["path"]) == entry:
                    files[role] = entry
            except (OSError, KeyError, TypeError):
                continue
        return files

    def _note(self) -> None:
        self._place.note({"key": self._key, "files": self._files})

    def _kept(self) -> str:
        """What to say behind an error; with --force the same command would begin anew again."""
        if not self._files or self._fresh:
            return ""
        return f"; {len(self._files)} finished files are kept: the same command goes on from there"

    def reserve(self, num_bytes: int) -> None:
        """See that the disk has room for a bundle of this size.

        Raises:
            BundleWriteError: it has not.
        """
        needed = num_bytes - sum(entry["bytes"] for entry in self._files.values())
        free = shutil.disk_usage(self._place.new).free
        if needed > free:
            more = " more" if self._files else ""
            raise BundleWriteError(
                f"{self._place.out}: needs {_size(needed)}{more}, the disk has {_size(free)} free{self._kept()}"
            )

    def add(self, part: Part, tick: Tick) -> None:
        """Write one file, unless an earlier run had finished it, and note its size and hash.

        Raises:
            BundleWriteError: it cannot be written.
            ModelError: what it is made of is damaged, or does not fit its storage type.
            EngineError: the codec does not run.
        """
        if part.role in self._files:
            tick(1, 1)
            return
        path = self._place.new / part.file_name
        try:
            tick(0, 1)
            part.write(path, tick)
            sync(path)
            self._files[part.role] = self._entry(part.file_name)
            self._note()
            tick(1, 1)
        except OSError as err:
            path.unlink(missing_ok=True)  # a full disk has a use for the room
            raise BundleWriteError(f"{path}: cannot be written: {reason(err)}{self._kept()}") from err
        except (ModelError, EngineError) as err:
            raise type(err)(f"{err}{self._kept()}") from err

    def _entry(self, file_name: str) -> dict[str, Any]:
        path = self._place.new / file_name
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return {"path": file_name, "bytes": path.stat().st_size, "sha256": digest}

    def finish(self, manifest: dict[str, Any]) -> None:
        """Write manifest.toml and put the bundle in its place.

        Raises:
            BundleWriteError: it cannot be written.
            ModelError: the daemon would not load it.
        """
        new = self._place.new
        try:
            content = {"format_version": FORMAT_VERSION, **manifest, "files": self._files}
            (new / MANIFEST).write_text(to_toml(content), encoding="utf-8")
            sync(new / MANIFEST)
            load_bundle(new, verify="size")
            self._place.install()
        except BundleWriteError as err:
            raise BundleWriteError(f"{err}{self._kept()}") from err
        except OSError as err:
            raise BundleWriteError(f"{self._place.out}: cannot be written: {reason(err)}{self._kept()}") from err


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"
