"""Checkpoints: written whole or not at all, read without running what is in them."""

import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from daemon.errors import ModelError, StoreError

_DAMAGE = (
    OSError,
    RuntimeError,
    EOFError,
    KeyError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    pickle.UnpicklingError,
)
"""What zipfile, pickle and torch raise over a file that is not as it was written."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings, lists and dicts of them) so that ``path`` is never half written.

    Raises:
        StoreError: the disk is full or the folder cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as err:  # torch's writer turns some of the first into the second
        raise StoreError(f"{path}: checkpoint cannot be written: {_first_line(err)}") from err


def load(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint; None where there is none.

    Its tensors are on the CPU, wherever they were: what they are loaded into may not have room for them twice, and no
    fault of a device is taken for one of the file.

    Raises:
        ModelError: the file is damaged, no checkpoint, or not for this user to read.
    """
    try:
        _check_sums(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except PermissionError as err:
        raise ModelError(f"{path}: cannot be read: {err.strerror}") from err
    except _DAMAGE as err:
        raise ModelError(
            f"{path}: not a readable checkpoint ({_first_line(err)}); remove it and the stage begins anew"
        ) from err
    if not isinstance(state, dict):
        raise ModelError(f"{path}: expected a dict of tensors, found {type(state).__name__}")
    return state


def _check_sums(path: Path) -> None:
    """Read every part against its CRC-32, which torch writes and does not look at."""
    with zipfile.ZipFile(path) as parts:
        damaged = parts.testzip()
    if damaged is not None:
        raise ValueError(f"checksum of {damaged}")


def _first_line(err: Exception) -> str:
    return (str(err).strip() or type(err).__name__).splitlines()[0][:120]
