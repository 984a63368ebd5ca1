"""A bundle is written beside its place and moved there when it is whole: nothing half-made is ever found."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from daemon.errors import SpeechError

FORMAT_VERSION = 1
Tick = Callable[[int, int], None]
"""Called with how much of a file is done, and how much there is."""
_NOTES = "progress.json"
_KEPT = "README.md"
"""The model card: written by people, so it moves along when a bundle is replaced."""


class BundleWriteError(SpeechError):
    """The bundle cannot be put where it was asked for."""

    exit_code: ClassVar[int] = 73


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a bundle."""

    role: str
    file_name: str
    num_bytes: int
    """About how large it will be."""
    write: Callable[[Path, Tick], None]


class BundleWriter:
    """Collects the files of a bundle in OUT.part; ``finish`` turns that into OUT.

    As a context manager it removes OUT.part if anything goes wrong. If it is interrupted (Ctrl-C, a power cut),
    OUT.part stays, and the next run with the same ``key`` goes on with it.

    Args:
        out: the bundle's folder.
        key: stands for everything the bundle depends on.

    Raises:
        BundleWriteError: OUT is taken by something that is not a bundle, or cannot be written.
    """

    def __init__(self, out: Path, key: str) -> None:
        self._out = out
        self._part = out.with_name(out.name + ".part")
        self._key = key
        self._files: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        try:
            if self._out.exists() and not _replaceable(self._out):
                raise BundleWriteError(f"{self._out}: exists and is not a bundle; it is left alone")
            self._files = self._finished()
            if not self._files:
                shutil.rmtree(self._part, ignore_errors=True)
                self._part.mkdir(parents=True)
        except OSError as err:
            raise BundleWriteError(f"{self._part}: cannot be written: {err.strerror}") from err
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or issubclass(kind, Exception):
            shutil.rmtree(self._part, ignore_errors=True)  # gone already after ``finish``

    def _finished(self) -> dict[str, dict[str, Any]]:
        """What an interrupted run left that is whole and of the same key."""
        try:
            notes = json.loads((self._part / _NOTES).read_text(encoding="utf-8"))
            if notes["key"] != self._key:
                return {}
            return {role: entry for role, entry in notes["files"].items() if self._entry(entry["path"]) == entry}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def reserve(self, num_bytes: int) -> None:
        """See that the disk has room for a bundle of this size.

        Raises:
            BundleWriteError: it has not.
        """
        needed = num_bytes - sum(entry["bytes"] for entry in self._files.values())
        free = shutil.disk_usage(self._part).free
        if needed > free:
            raise BundleWriteError(f"{self._out}: needs {needed / 1e9:.2f} GB, the disk has {free / 1e9:.2f} GB free")

    def add(self, part: Part, tick: Tick) -> None:
        """Write one file, unless an interrupted run had finished it, and note its size and hash.

        Raises:
            BundleWriteError: it cannot be written.
        """
        if part.role in self._files:
            tick(1, 1)
            return
        path = self._part / part.file_name
        try:
            tick(0, 1)
            part.write(path, tick)
            self._files[part.role] = self._entry(part.file_name)
            notes = path.with_name(_NOTES + ".new")
            notes.write_text(json.dumps({"key": self._key, "files": self._files}), encoding="utf-8")
            notes.replace(path.with_name(_NOTES))
            tick(1, 1)
        except OSError as err:
            raise BundleWriteError(f"{path}: cannot be written: {err.strerror or err}") from err

    def _entry(self, file_name: str) -> dict[str, Any]:
        path = self._part / file_name
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return {"path": file_name, "bytes": path.stat().st_size, "sha256": digest}

    def finish(self, manifest: dict[str, Any]) -> None:
        """Write manifest.toml and put the bundle in its place.

        Raises:
            BundleWriteError: it cannot be written.
        """
        try:
            content = {"format_version": FORMAT_VERSION, **manifest, "files": self._files}
            (self._part / "manifest.toml").write_text(to_toml(content), encoding="utf-8")
            (self._part / _NOTES).unlink()
            self._replace()
        except OSError as err:
            raise BundleWriteError(f"{self._out}: cannot be written: {err.strerror or err}") from err

    def _replace(self) -> None:
        if not self._out.exists():
            self._part.replace(self._out)
            return
        if (self._out / _KEPT).is_file():
            shutil.copy2(self._out / _KEPT, self._part / _KEPT)
        old = self._out.with_name(self._out.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        self._out.replace(old)
        self._part.replace(self._out)
        shutil.rmtree(old)


def _replaceable(out: Path) -> bool:
    """Whether ``out`` is a bundle or a folder with at most a model card."""
    return out.is_dir() and ((out / "manifest.toml").is_file() or {path.name for path in out.iterdir()} <= {_KEPT})


def to_toml(table: dict[str, Any], prefix: str = "") -> str:
    """Nested dictionaries of strings, numbers and booleans as TOML: a table's own keys first, then its tables."""
    lines = [f"{key} = {_value(value)}" for key, value in table.items() if not isinstance(value, dict)]
    text = "".join(f"{line}\n" for line in lines)
    for key, value in table.items():
        if isinstance(value, dict):
            name = f"{prefix}{key}"
            only_tables = value and all(isinstance(entry, dict) for entry in value.values())
            text += ("" if only_tables else f"\n[{name}]\n") + to_toml(value, f"{name}.")
    return text


def _value(value: object) -> str:
    """JSON's strings, numbers and booleans are TOML's, but for DEL."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")
