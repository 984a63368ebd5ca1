"""The two files of a recorded voice: voice.toml and codes.npy. What is read is never trusted."""

import hashlib
import io
import json
import os
import stat
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from daemon.engine.bundle import AudioTable
from daemon.engine.voices import Voice, VoicePrompt
from daemon.errors import BadRequestError
from daemon.values import I32

TABLE = "voice.toml"
CODES = "codes.npy"
MAX_FILE_BYTES = 2**20
"""30 s of 64 codebooks are 96 kB. Larger files are not read."""


class VoiceTable(BaseModel):
    """voice.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    name: str
    description: Annotated[str, Field(max_length=200)]
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{1,8})*$")]
    speaker: Annotated[int, Field(ge=0, le=99)]
    transcript: Annotated[str, Field(min_length=1)]
    """What is said in the recording, as the model reads it."""
    created: str
    """UTC."""
    source: str
    """Name of the recording's file."""
    seconds: float
    num_codebooks: int
    codebook_size: int
    sha256: str
    """Of codes.npy."""


def check_table(values: dict[str, Any]) -> VoiceTable:
    """A valid voice.toml.

    Raises:
        BadRequestError: bad_request; the first key that is wrong.
    """
    try:
        return VoiceTable.model_validate(values)
    except ValidationError as err:
        first = err.errors()[0]
        raise BadRequestError("bad_request", f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from err


def npy_bytes(codes: I32) -> bytes:
    """``codes`` int32 [T, Q] as a .npy file."""
    file = io.BytesIO()
    np.save(file, codes)
    return file.getvalue()


def write_voice(folder: Path, table: VoiceTable, codes: bytes, mode: int) -> None:
    """Put both files into a new folder, on the disk itself when this returns.

    Args:
        folder: must not exist.
        table: what becomes voice.toml.
        codes: what becomes codes.npy.
        mode: permissions of the folder; the files get the same but for execution.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir()
    lines = (f"{key} = {_toml(value)}\n" for key, value in table.model_dump().items())
    for name, content in ((CODES, codes), (TABLE, "".join(lines).encode())):
        with (folder / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), mode & 0o666)
    folder.chmod(mode)


def _toml(value: object) -> str:
    """JSON's strings and numbers are TOML's, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def read_voice(folder: Path, audio: AudioTable) -> Voice:
    """The voice in a folder, for a codec of the shape ``audio``.

    Raises:
        BadRequestError: unknown_voice; which file is wrong, and what with it.
    """
    table = _read_table(folder)
    content = _read_file(folder / CODES)
    if hashlib.sha256(content).hexdigest() != table.sha256:
        raise _unusable(folder / CODES, f"its sha256 is not the one in {TABLE}: damaged or replaced")
    shape = (table.num_codebooks, table.codebook_size)
    if shape != (audio.num_codebooks, audio.codebook_size):
        expected = f"{audio.num_codebooks} of {audio.codebook_size}"
        raise _unusable(folder / TABLE, f"{shape[0]} codebooks of {shape[1]} codes, the bundle has {expected}")
    codes = _read_codes(folder / CODES, content)
    if codes.dtype != np.int32 or codes.ndim != 2 or codes.shape[1] != audio.num_codebooks or len(codes) == 0:
        found = f"{codes.dtype} {list(codes.shape)}"
        raise _unusable(folder / CODES, f"{found}, expected int32 [frames, {audio.num_codebooks}]")
    if codes.min() < 0 or codes.max() >= audio.codebook_size:
        raise _unusable(folder / CODES, f"codes {codes.min()}..{codes.max()}, expected 0..{audio.codebook_size - 1}")
    codes.flags.writeable = False  # shared by every request
    prompt = VoicePrompt(table.transcript, codes)
    return Voice(folder.name, table.description, table.language, table.speaker, prompt)


def _read_table(folder: Path) -> VoiceTable:
    path = folder / TABLE
    try:
        table = check_table(tomllib.loads(_read_file(path).decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as err:
        raise _unusable(path, f"damaged: {err}") from err
    except BadRequestError as err:
        raise err if err.code == "unknown_voice" else _unusable(path, str(err)) from err
    if table.name != folder.name:
        raise _unusable(path, f"name is {table.name!r}, the folder's is {folder.name!r}")
    return table


def _read_codes(path: Path, content: bytes) -> Any:
    try:
        return np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, MemoryError) as err:  # the last from a header that lies
        raise _unusable(path, f"not a .npy array: {err}") from err


def _read_file(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
            raise _unusable(path, f"not a file of at most {MAX_FILE_BYTES} bytes")
        return path.read_bytes()
    except OSError as err:
        raise _unusable(path, str(err.strerror)) from err


def _unusable(path: Path, reason: str) -> BadRequestError:
    return BadRequestError("unknown_voice", f"{path}: {reason}")
