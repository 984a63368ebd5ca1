"""A bundle: a folder with manifest.toml and the files it names (DESIGN section 4). Everything is checked here."""

import hashlib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from daemon.config import user_path
from daemon.config_sections import EngineConfig
from daemon.errors import ModelError
from daemon.values import SAMPLE_RATE, Array

FORMAT_VERSION = 1
NAME = r"^[A-Za-z0-9_][A-Za-z0-9._-]*$"
"""Of a bundle, and of a file in it: nothing that leaves a folder."""
MAX_NAME = 64
"""Characters of a bundle's name."""
MAX_CODEBOOK_SIZE = 2**16
KV_FOLDER = "kv"
"""Of the cache folder: what was computed from recorded voices."""
AUTO_HASH_BYTES = 64 * 2**20
"""Files up to this size are hashed at every start (tens of milliseconds); larger ones when asked for."""

Role = Literal[
    "backbone",
    "depth_decoder",
    "heads",
    "text_embeddings",
    "audio_embeddings",
    "depth_embeddings",
    "codec_decoder",
    "codec_encoder",
    "codec_description",
    "codec_test",
    "tokenizer",
]
REQUIRED: tuple[Role, ...] = (
    "backbone",
    "depth_decoder",
    "heads",
    "text_embeddings",
    "audio_embeddings",
    "depth_embeddings",
    "codec_decoder",
    "tokenizer",
)


class _Table(BaseModel):
    """Numbers have upper limits, far from what a model has, so that nothing reckoned with them overflows."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AudioTable(_Table):
    """[audio]: what a frame is."""

    sample_rate: Literal[24000]
    frame_rate: Annotated[float, Field(ge=1, le=1000)]
    num_codebooks: Annotated[int, Field(ge=2, le=64)]
    codebook_size: Annotated[int, Field(ge=2, le=MAX_CODEBOOK_SIZE)]

    @property
    def samples_per_frame(self) -> int:
        """1920 at 12.5 frames a second."""
        return round(SAMPLE_RATE / self.frame_rate)


class FileEntry(_Table):
    """[files.ROLE]."""

    path: Annotated[str, Field(pattern=NAME)]
    bytes: Annotated[int, Field(ge=0, lt=2**63)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SamplingTable(_Table):
    """[sampling]: the defaults, backbone and depth decoder apart; temperature 0 is greedy."""

    temperature: Annotated[float, Field(ge=0, le=2)]
    top_k: Annotated[int, Field(ge=1, le=1000)]
    depth_temperature: Annotated[float, Field(ge=0, le=2)]
    depth_top_k: Annotated[int, Field(ge=1, le=1000)]


class LimitsTable(_Table):
    """[limits]: context, and how long a text may take to say.

    A segment of n tokens is expected to last n x seconds_per_token. Speech may not end before min_ratio of that, and
    is cut after max_ratio of it + slack_s.
    """

    context: Annotated[int, Field(ge=16, le=2**20)]
    max_text_tokens: Annotated[int, Field(ge=8, le=2**20)]
    """Longest segment, BOS and EOT included."""
    seconds_per_token: Annotated[float, Field(gt=0, le=60)]
    min_ratio: Annotated[float, Field(ge=0, le=1)]
    max_ratio: Annotated[float, Field(ge=1, le=1000)]
    slack_s: Annotated[float, Field(ge=0, le=3600)]
    max_utterance_s: Annotated[float, Field(gt=0, le=86_400)]
    context_s: Annotated[float, Field(ge=0, le=86_400)] = 0.0
    """Seconds of earlier speech that are kept before a segment; 0 where the model was not trained for it."""


class StopTable(_Table):
    """[stop]: what ends speech: a code of codebook 0, or a frame of zeros (CSM-1B)."""

    kind: Literal["code", "zero_frame"]
    code: Annotated[int, Field(ge=0, lt=2**31)] | None = None

    @model_validator(mode="after")
    def _code_where_needed(self) -> "StopTable":
        if (self.kind == "code") != (self.code is not None):
            raise ValueError('code is needed with kind = "code", and only then')
        return self


class CodecTable(_Table):
    """[codec]: what the streaming decoder holds back."""

    delay_samples: Annotated[int, Field(ge=0)]
    flush_state: str | None = None
    """The state whose first delay_samples values are the rest of the speech."""


class PromptTable(_Table):
    """[prompt]: the text of a segment as the tokenizer gets it; {speaker} and {text} are filled in."""

    template: str = "{text}"
    bidirectional: bool = False
    """Whether every token of a text was trained to see all others of it, those after it too (a prefix LM)."""


class TextTable(_Table):
    """[text]: what the model can read; without an alphabet, any text."""

    alphabet: str | None = None


class VoiceTable(_Table):
    """[voices.NAME]."""

    description: str
    language: str
    speaker: Annotated[int, Field(ge=0, le=99)] = 0


class Manifest(_Table):
    """manifest.toml."""

    format_version: Literal[1]
    name: Annotated[str, Field(pattern=NAME, max_length=MAX_NAME)]
    """Also the name of the folder that its recorded voices are kept in."""
    family: str
    description: str = ""
    licence: str
    source: str
    revision: str = ""
    recipe: str
    """How the backbone is stored, and all else unless said otherwise."""
    depth_recipe: str = ""
    """How the depth decoder is stored, where that differs."""
    converter: Annotated[int, Field(ge=1)] = 1
    """Which state of the program that writes bundles this is of."""
    default_voice: str
    audio: AudioTable
    files: dict[Role, FileEntry]
    sampling: SamplingTable
    limits: LimitsTable
    stop: StopTable
    codec: CodecTable
    prompt: PromptTable = PromptTable()
    text: TextTable = TextTable()
    voices: Annotated[dict[str, VoiceTable], Field(min_length=1)]

    @property
    def depth_storage(self) -> str:
        """How the depth decoder is stored."""
        return self.depth_recipe or self.recipe

    @model_validator(mode="after")
    def _complete(self) -> "Manifest":
        missing = [role for role in REQUIRED if role not in self.files]
        if missing:
            raise ValueError(f"no entry for {', '.join(missing)} in [files]")
        if self.codec.delay_samples > self.audio.samples_per_frame:
            raise ValueError(f"codec.delay_samples is more than a frame, {self.audio.samples_per_frame}")
        if self.default_voice not in self.voices:
            raise ValueError(f"default_voice {self.default_voice} is not in [voices]")
        return self


@dataclass(frozen=True, slots=True)
class Bundle:
    """A folder whose manifest is valid and whose files are present and of the right size (and hash)."""

    folder: Path
    manifest: Manifest

    def path(self, role: Role) -> Path:
        """The file of a role."""
        return self.folder / self.manifest.files[role].path

    def table(self, role: Role, *, rows: int, width: int) -> Array:
        """An embedding table, memory-mapped: float16 (or float32) [>= rows, width].

        Raises:
            ModelError: not such an array.
        """
        path = self.path(role)
        try:
            array = np.lib.format.open_memmap(path, mode="r")
        except Exception as err:  # it parses Python, and says nowhere what may come of it
            raise ModelError(f"{path}: not a .npy array ({type(err).__name__})") from err
        if array.dtype not in (np.float16, np.float32) or array.ndim != 2:
            raise ModelError(f"{path}: expected float16 [rows, {width}], found {array.dtype} {list(array.shape)}")
        if array.shape[0] < rows or array.shape[1] != width:
            raise ModelError(f"{path}: expected [{rows}, {width}] or more rows, found {list(array.shape)}")
        return np.asarray(array)


def bundle_search(config: EngineConfig) -> list[Path]:
    """Where bundles are looked for: as configured, else the repository's models/, then the service's folder."""
    if config.bundle_path:
        return [user_path(path) for path in config.bundle_path]
    return [Path(__file__).resolve().parents[2] / "models", Path("/var/lib/crier/models")]


def find_bundle(name: str, search: Sequence[Path]) -> Path:
    """The folder of a bundle given by path, or by name below one of ``search``.

    Raises:
        ModelError: there is none; the message lists where it was looked for.
    """
    if "/" in name:
        if _is_bundle(folder := user_path(name)):
            return folder
        named = next((parent / folder.name for parent in search if _is_bundle(parent / folder.name)), None)
        hint = f"; the bundle named {folder.name} is {named}" if named else ""
        raise ModelError(f"no bundle at {folder}: manifest.toml is not there{hint}")
    for parent in search:
        if _is_bundle(parent / name):
            return parent / name
    raise ModelError(f"no bundle named {name} in {', '.join(str(parent) for parent in search)}")


def _is_bundle(folder: Path) -> bool:
    try:
        return (folder / "manifest.toml").is_file()
    except OSError as err:  # is_file hides most, but not that it may not look
        raise ModelError(f"{folder}: {err.strerror}") from err


def load_bundle(folder: Path, *, verify: Literal["auto", "full", "size"] = "auto") -> Bundle:
    """Read the manifest and check every file it names.

    Raises:
        ModelError: what is wrong, with the file's name.
    """
    path = folder / "manifest.toml"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        version = repr(data.get("format_version"))
    except OSError as err:
        raise ModelError(f"{path}: {err.strerror}") from err
    except (ValueError, RecursionError) as err:  # beside TOML's own and UTF-8's: numbers of thousands of digits
        raise ModelError(f"{path}: damaged: {err}") from err
    if version != repr(FORMAT_VERSION):
        raise ModelError(f"{path}: format_version {version}, this program reads {FORMAT_VERSION}")
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as err:
        first = err.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"{path}: {key}: {first['msg'].removeprefix('Value error, ')}") from err
    for entry in manifest.files.values():
        _check_file(folder / entry.path, entry, verify)
    return Bundle(folder, manifest)


def _check_file(path: Path, entry: FileEntry, verify: str) -> None:
    try:
        size = path.stat().st_size
    except OSError as err:
        raise ModelError(f"{path}: {err.strerror}") from err
    if size != entry.bytes:
        raise ModelError(f"{path}: {size} bytes, the manifest says {entry.bytes}: truncated or replaced")
    if verify == "full" or (verify == "auto" and size <= AUTO_HASH_BYTES):
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as err:
            raise ModelError(f"{path}: {err.strerror}") from err
        if digest != entry.sha256:
            raise ModelError(f"{path}: sha256 is not the manifest's: damaged or replaced")
