"""The two files of a recorded voice: voice.toml and codes.npy. What is read is never trusted."""

import hashlib
import io
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from daemon.engine.bundle import MAX_CODEBOOK_SIZE, AudioTable
from daemon.engine.toml_text import to_toml
from daemon.engine.voices import Voice, VoicePrompt
from daemon.errors import BadRequestError
from daemon.values import I32

TABLE = "voice.toml"
CODES = "codes.npy"
MAX_FILE_BYTES = 2**20
"""30 s of 64 codebooks are 96 kB. Larger files are not read."""
LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{1,8})*")


class VoiceTable(BaseModel):
    """voice.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    name: str
    description: Annotated[str, Field(max_length=200)]
    language: Annotated[str, Field(pattern=f"^{LANGUAGE.pattern}$")]
    speaker: Annotated[int, Field(ge=0, le=99)]
    transcript: Annotated[str, Field(min_length=1)]
    """What is said in the recording, as the model reads it."""
    created: str
    """UTC."""
    source: str
    """Name of the recording's file."""
    seconds: float
    num_codebooks: Annotated[int, Field(ge=2, le=64)]
    codebook_size: Annotated[int, Field(ge=2, le=MAX_CODEBOOK_SIZE)]
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
    for name, content in ((CODES, codes), (TABLE, to_toml(table.model_dump()).encode())):
        with (folder / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), mode & 0o666)
    folder.chmod(mode)


def read_voice(folder: Path, name: str, audio: AudioTable) -> Voice:
    """The voice in a folder, for a codec of the shape ``audio``.

    Raises:
        BadRequestError: unknown_voice; which file is wrong, and what with it.
        OSError: a file is not there, or cannot be read now.
    """
    table = _read_table(folder / TABLE, name)
    path = folder / CODES
    content = _read_file(path)
    if hashlib.sha256(content).hexdigest() != table.sha256:
        raise _unusable(path, f"its sha256 is not the one in {TABLE}: damaged or replaced")
    shape = (table.num_codebooks, table.codebook_size)
    if shape != (audio.num_codebooks, audio.codebook_size):
        expected = f"{audio.num_codebooks} of {audio.codebook_size}"
        raise _unusable(folder / TABLE, f"{shape[0]} codebooks of {shape[1]} codes, the bundle has {expected}")
    codes = _read_codes(path, content, audio.num_codebooks)
    if codes.min() < 0 or codes.max() >= audio.codebook_size:
        raise _unusable(path, f"codes {codes.min()}..{codes.max()}, expected 0..{audio.codebook_size - 1}")
    return Voice(name, table.description, table.language, table.speaker, VoicePrompt(table.transcript, codes))


def _read_table(path: Path, name: str) -> VoiceTable:
    content = _read_file(path)
    try:
        table = check_table(tomllib.loads(content.decode()))
    except (ValueError, RecursionError) as err:  # beside TOML's own and UTF-8's: numbers of thousands of digits
        raise _unusable(path, f"damaged: {err}") from err
    except BadRequestError as err:
        raise _unusable(path, str(err)) from err
    if table.name != name:
        raise _unusable(path, f"name is {table.name!r}, the folder's is {name!r}")
    return table


def _read_codes(path: Path, content: bytes, num_codebooks: int) -> I32:
    """The array in a .npy file as ``npy_bytes`` makes it, int32 [T >= 1, num_codebooks]; nobody can write to it.

    A view of ``content``: a header that lies allocates nothing.
    """
    file = io.BytesIO(content)
    try:
        np.lib.format.read_magic(file)
        shape, by_column, dtype = np.lib.format.read_array_header_1_0(file)
        found = f"{dtype} {list(shape)}"  # not of numbers of thousands of digits
    except Exception as err:  # it parses Python, and says nowhere what may come of it
        raise _unusable(path, f"not a .npy array ({type(err).__name__})") from err
    if dtype != np.int32 or by_column or len(shape) != 2 or shape[1] != num_codebooks or shape[0] < 1:
        raise _unusable(path, f"{found}, expected int32 [frames, {num_codebooks}]")
    if len(content) - file.tell() != shape[0] * num_codebooks * dtype.itemsize:
        raise _unusable(path, f"not a .npy array: its length is not that of {found}")
    return np.frombuffer(content, np.int32, offset=file.tell()).reshape(shape)


def _read_file(path: Path) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
        raise _unusable(path, f"not a file of at most {MAX_FILE_BYTES} bytes")
    return path.read_bytes()


def _unusable(path: Path, reason: str) -> BadRequestError:
    return BadRequestError("unknown_voice", f"{path}: {reason}")
