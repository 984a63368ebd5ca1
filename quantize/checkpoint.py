"""Safetensors files of a checkpoint, read tensor by tensor with their shapes checked.

Every read opens and closes its file, so that no mapping stays behind to count as memory.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  # makes bfloat16 known to numpy, and so to safetensors
import numpy as np
from safetensors import SafetensorError, safe_open

from daemon.errors import ModelError
from daemon.values import F32
from quantize.checkpoint_files import Selection, parse_json, select_files
from quantize.progress import Tick, no_tick

_FLOATS = ("F64", "F32", "F16", "BF16")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BLOCK = 2**22
_READ_ERRORS = (SafetensorError, OSError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a tensor is and what its file's header says of it."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


class Checkpoint:
    """All tensors of a checkpoint by name: one file, or a folder's (``select_files`` says which).

    Attributes:
        files: what the tensors are read from, sorted.
        lost: a missing file of the checkpoint that would have been preferred in this folder, if there is one.

    Raises:
        ModelError: there is none, or one is damaged or missing.
    """

    def __init__(self, source: Path) -> None:
        selection = select_files(source)
        self.files, self.lost = selection.files, selection.lost
        self._entries: dict[str, _Entry] = {}
        for file in self.files:
            self._add(file, selection)
        for name, file in selection.file_of.items():
            if name not in self._entries:
                raise ModelError(f"tensor {name}: expected in {file} by the index, found no such tensor")

    def _add(self, file: Path, selection: Selection) -> None:
        try:
            with file.open("rb"):  # safetensors says of every file that it cannot open that there is none
                pass
        except OSError as err:
            raise ModelError(f"{file}: cannot be read: {err.strerror}") from err
        try:
            with safe_open(file, framework="numpy") as tensors:
                for name in tensors.keys():  # noqa: SIM118  # not a dictionary
                    if selection.file_of.get(name, file) != file:
                        continue
                    if name in self._entries:
                        raise ModelError(
                            f"tensor {name}: expected once, found in {self._entries[name].file} and {file}"
                        )
                    part = tensors.get_slice(name)
                    self._entries[name] = _Entry(file, tuple(part.get_shape()), part.get_dtype())
        except _READ_ERRORS as err:
            raise ModelError(f"{file}: not a readable safetensors file: {_one_line(err)}") from err

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    @cached_property
    def config(self) -> dict[str, Any]:
        """What config.json beside the tensors says; empty where there is none.

        Raises:
            ModelError: it cannot be read or is not an object.
        """
        try:
            self.config_file.stat()
        except FileNotFoundError:
            return {}
        except OSError as err:
            raise ModelError(f"{self.config_file}: {err.strerror}") from err
        return parse_json(self.config_file)

    @property
    def config_file(self) -> Path:
        """Where config.json would be."""
        return self.files[0].parent / "config.json"

    def count(self, prefix: str) -> int:
        """How many numbered parts ``prefix.0``, ``prefix.1``, ... the names speak of, gaps included."""
        start = f"{prefix}."
        numbers = [name.removeprefix(start).split(".")[0] for name in self._entries if name.startswith(start)]
        return 1 + max((int(number) for number in numbers if number.isdecimal()), default=-1)

    def check(self, name: str, *shape: int | None) -> tuple[int, ...]:
        """Refuse a tensor of another shape, where None stands for any size; returns the shape. No data is read.

        Raises:
            ModelError: the tensor is missing, has another shape or does not hold floating-point numbers.
        """
        entry = self._entry(name, *shape)
        found = entry.shape
        if len(shape) != len(found) or any(s not in (None, n) for s, n in zip(shape, found, strict=True)):
            raise ModelError(f"tensor {name}: expected {_expected(shape)}, found {list(found)} in {entry.file}")
        if entry.dtype not in _FLOATS:
            raise ModelError(
                f"tensor {name}: expected one of {', '.join(_FLOATS)}, found {entry.dtype} in {entry.file}"
            )
        return found

    def tensor(self, name: str, *shape: int | None) -> F32:
        """Read one tensor as float32; None in ``shape`` stands for any size.

        Raises:
            ModelError: the tensor is missing, has another shape, cannot be read or holds NaN or infinity.
        """
        self.check(name, *shape)
        return self._read(name)

    def rows(self, name: str, rows: int | None, width: int | None) -> "TensorRows":
        """A table whose rows are read when they are asked for.

        Raises:
            ModelError: the tensor is missing or has another shape.
        """
        return TensorRows(self.check(name, rows, width), partial(self._read, name))

    def _entry(self, name: str, *shape: int | None) -> _Entry:
        if name not in self._entries:
            where = ", ".join(str(file) for file in self.files)
            raise ModelError(f"tensor {name}: expected {_expected(shape)}, found no such tensor in {where}")
        return self._entries[name]

    def _read(self, name: str, rows: slice | None = None) -> F32:
        file = self._entries[name].file
        try:
            with safe_open(file, framework="numpy") as tensors:
                value = tensors.get_tensor(name) if rows is None else tensors.get_slice(name)[rows]
        except _READ_ERRORS as err:
            raise ModelError(f"{file}: tensor {name} cannot be read: {_one_line(err)}") from err
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinity, which is refused next
            value = np.ascontiguousarray(value, np.float32)
        if not np.isfinite(value).all():
            raise ModelError(f"tensor {name}: expected finite numbers, found NaN or infinity in {file}")
        return value

    def revision(self, tick: Tick = no_tick) -> str:
        """A hash over the files' content, to tell one checkpoint from another.

        Raises:
            ModelError: a file cannot be read.
        """
        digest, done, total = hashlib.sha256(), 0, 0
        try:
            for file in self.files:
                total += file.stat().st_size
            for file in self.files:
                content = hashlib.sha256()
                with file.open("rb") as stream:
                    while block := stream.read(_BLOCK):
                        content.update(block)
                        done += len(block)
                        tick(done, total)
                digest.update(content.digest())
        except OSError as err:
            raise ModelError(f"{file}: cannot be read: {err.strerror}") from err
        return f"sha256:{digest.hexdigest()[:16]}"

    def hub_revision(self) -> str | None:
        """The commit, where ``hf download`` put the files: in its cache or, with ``--local-dir``, anywhere.

        Source: huggingface_hub 2.4.0, _local_folder.py: a commit is the first line of a file's metadata.
        """
        folder = self.files[0].absolute().parent  # not resolved: the snapshot's files are links into blobs/
        if folder.parent.name == "snapshots":
            commits = {folder.name}
        else:
            metadata = folder / ".cache" / "huggingface" / "download"
            commits = {_first_line(metadata / f"{file.name}.metadata") for file in self.files}
        commit = commits.pop()
        return commit if not commits and _COMMIT.fullmatch(commit) else None


class TensorRows:
    """A table float32 [rows, width] in a checkpoint (``quantize.weights.Rows``)."""

    def __init__(self, shape: tuple[int, ...], read: Callable[[slice], F32]) -> None:
        self.shape = shape
        self._read = read

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice, /) -> F32:
        """Read consecutive rows.

        Raises:
            ModelError: they cannot be read or hold NaN or infinity.
        """
        start, stop, _ = rows.indices(len(self))
        return self._read(slice(start, max(start, stop)))


def _expected(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("any" if size is None else str(size) for size in shape) + "]"


def _first_line(path: Path) -> str:
    """Of a text that need not be there; empty without one."""
    try:
        with path.open(encoding="utf-8") as lines:
            return lines.readline().strip()
    except (OSError, ValueError):
        return ""


def _one_line(err: Exception) -> str:
    return " ".join(str(err).split())
