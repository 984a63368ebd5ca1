"""Safetensors files of a checkpoint, read tensor by tensor with their shapes checked."""

import hashlib
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from daemon.errors import ModelError
from daemon.values import F32


class Checkpoint:
    """All tensors of the safetensors files of a folder (or of one file), by name."""

    def __init__(self, source: Path) -> None:
        self.files = [source] if source.is_file() else sorted(source.glob("*.safetensors"))
        if not self.files:
            raise ModelError(f"{source}: no *.safetensors file")
        self._file_of: dict[str, Path] = {}
        for file in self.files:
            try:
                with safe_open(file, framework="numpy") as tensors:
                    self._file_of |= dict.fromkeys(tensors.keys(), file)
            except (SafetensorError, OSError) as err:
                raise ModelError(f"{file}: not a readable safetensors file: {err}") from err

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def count(self, prefix: str) -> int:
        """How many numbered parts ``prefix.0``, ``prefix.1``, ... the names speak of, gaps included."""
        numbers = [
            name.removeprefix(f"{prefix}.").split(".")[0] for name in self._file_of if name.startswith(f"{prefix}.")
        ]
        return 1 + max((int(number) for number in numbers if number.isdecimal()), default=-1)

    def tensor(self, name: str, *shape: int | None) -> F32:
        """Read one tensor as float32; None in ``shape`` stands for any size.

        Raises:
            ModelError: the tensor is missing, has another shape, cannot be read or holds NaN or infinity.
        """
        expected = "[" + ", ".join("any" if size is None else str(size) for size in shape) + "]"
        if name not in self._file_of:
            raise ModelError(f"tensor {name}: expected {expected}, found no such tensor in {self._where()}")
        file = self._file_of[name]
        try:
            with safe_open(file, framework="numpy") as tensors:
                value = tensors.get_tensor(name)
        except (SafetensorError, OSError, TypeError) as err:
            raise ModelError(f"{file}: tensor {name} cannot be read: {err}") from err
        if len(shape) != value.ndim or any(s not in (None, n) for s, n in zip(shape, value.shape, strict=True)):
            raise ModelError(f"tensor {name}: expected {expected}, found {list(value.shape)} in {file}")
        if not np.isfinite(value).all():
            raise ModelError(f"tensor {name}: expected finite numbers, found NaN or infinity in {file}")
        return np.ascontiguousarray(value, np.float32)

    def revision(self) -> str:
        """A hash over the files' content, to tell one checkpoint from another.

        Raises:
            ModelError: a file cannot be read.
        """
        digest = hashlib.sha256()
        try:
            for file in self.files:
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as err:
            raise ModelError(f"{file}: cannot be read: {err.strerror}") from err
        return f"sha256:{digest.hexdigest()[:16]}"

    def _where(self) -> str:
        return ", ".join(str(file) for file in self.files)
