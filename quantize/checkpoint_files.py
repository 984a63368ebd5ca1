"""Which files of a folder are its checkpoint: sharded by an index, sharded by their names, or simply all.

A folder may hold several. sesame/csm-1b has model.safetensors by Sesame's names and, with an index, the same weights in
shards by transformers' names. The first that is complete is taken, shards before the rest; they are never mixed.
"""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from daemon.errors import ModelError

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})\.safetensors")


@dataclass(frozen=True, slots=True)
class Selection:
    """The files of one checkpoint."""

    files: list[Path]
    """Sorted."""
    file_of: dict[str, Path]
    """By tensor, what the index says; empty without one."""
    lost: Path | None = None
    """The file whose absence is why another selection, which would have been preferred, was not taken."""


def select_files(source: Path) -> Selection:
    """The checkpoint in a folder, or that is a file.

    Raises:
        ModelError: there is none, or a file of it is missing, or an index is damaged.
    """
    try:
        if not source.is_dir():
            source.stat()
            return Selection([source], {})
        names = {path.name for path in source.iterdir()}
    except OSError as err:
        raise ModelError(f"{source}: {err.strerror}") from err
    found = sorted(source / name for name in names if name.endswith(".safetensors"))
    indices = sorted(source / name for name in names if name.endswith(".safetensors.index.json"))
    candidates = [_indexed(index) for index in indices]
    listed = {file for candidate in candidates for file in candidate.files}
    candidates += _named_shards([file for file in found if file not in listed])
    rest = [file for file in found if file not in listed and not _SHARD.fullmatch(file.name)]
    if rest:
        candidates.append(Selection(rest, {}))
    if not candidates:
        raise ModelError(f"{source}: no *.safetensors file")
    lost = [next((file for file in candidate.files if file.name not in names), None) for candidate in candidates]
    if None not in lost:
        raise ModelError(
            f"{lost[0]}: a shard of the checkpoint, expected {len(candidates[0].files)} of them, is missing"
        )
    return replace(candidates[lost.index(None)], lost=lost[0])


def parse_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ModelError: the file cannot be read or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise ModelError(f"{path}: {err.strerror}") from err
    except (ValueError, RecursionError) as err:
        raise ModelError(f"{path}: not JSON: {err}") from err
    if not isinstance(value, dict):
        raise ModelError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def _indexed(index: Path) -> Selection:
    """The files that an index lists.

    Source: huggingface_hub, serialization/_base.py, the layout of ``*.safetensors.index.json``.
    """
    files = parse_json(index).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise ModelError(f"{index}: expected a table weight_map, found {'an empty one' if files == {} else 'none'}")
    for file in files.values():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise ModelError(f"{index}: expected names of *.safetensors files beside it, found {file!r}")
    file_of = {name: index.with_name(file) for name, file in files.items()}
    return Selection(sorted(set(file_of.values())), file_of)


def _named_shards(found: list[Path]) -> list[Selection]:
    """Shards without an index: their names say how many there are."""
    sets = {}
    for file in found:
        if match := _SHARD.fullmatch(file.name):
            stem, total = match["stem"], match["total"]
            names = (f"{stem}-{number:05d}-of-{total}.safetensors" for number in range(1, int(total) + 1))
            sets[stem, total] = Selection([file.with_name(name) for name in names], {})
    return list(sets.values())
