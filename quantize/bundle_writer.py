"""A bundle is written beside its place and moved there when it is whole: nothing half-made is ever found."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

from daemon.errors import SpeechError

FORMAT_VERSION = 1
_KEPT = "README.md"
"""The model card: written by people, so it moves along when a bundle is replaced."""


class BundleWriteError(SpeechError):
    """The bundle cannot be put where it was asked for."""

    exit_code: ClassVar[int] = 73


class BundleWriter:
    """Collects the files of a bundle in OUT.part; ``finish`` turns that into OUT.

    As a context manager it removes OUT.part if anything goes wrong.

    Raises:
        BundleWriteError: OUT is taken by something that is not a bundle, or cannot be written.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._part = out.with_name(out.name + ".part")
        self._files: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        try:
            if self._out.exists() and not _replaceable(self._out):
                raise BundleWriteError(f"{self._out}: exists and is not a bundle; it is left alone")
            shutil.rmtree(self._part, ignore_errors=True)
            self._part.mkdir(parents=True)
        except OSError as err:
            raise BundleWriteError(f"{self._part}: cannot be written: {err.strerror}") from err
        return self

    def __exit__(self, *_exception: object) -> None:
        shutil.rmtree(self._part, ignore_errors=True)  # gone already after ``finish``

    def add(self, role: str, file_name: str, write: Callable[[Path], None]) -> None:
        """Write one file with ``write`` and note its size and hash under ``role``.

        Raises:
            BundleWriteError: it cannot be written.
        """
        path = self._part / file_name
        try:
            write(path)
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            self._files[role] = {"path": file_name, "bytes": path.stat().st_size, "sha256": digest}
        except OSError as err:
            raise BundleWriteError(f"{path}: cannot be written: {err.strerror or err}") from err

    def finish(self, manifest: dict[str, Any]) -> None:
        """Write manifest.toml and put the bundle in its place.

        Raises:
            BundleWriteError: it cannot be written.
        """
        try:
            content = {"format_version": FORMAT_VERSION, **manifest, "files": self._files}
            (self._part / "manifest.toml").write_text(to_toml(content), encoding="utf-8")
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
