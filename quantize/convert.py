"""A checkpoint becomes a bundle, one file after another; large ones stream: one layer at a time is in memory."""

import hashlib
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from daemon.engine.bundle import MAX_NAME, NAME, Manifest, load_bundle
from daemon.errors import ModelError
from daemon.values import F32
from quantize import csm, starter
from quantize.bundle_parts import codec_parts, gguf_part, heads_part, table_part, text_part
from quantize.bundle_place import BundlePlace, BundleWriteError
from quantize.bundle_writer import BundleWriter, Part
from quantize.checkpoint import Checkpoint
from quantize.progress import Progress, no_progress
from quantize.recipes import RECIPES, Recipe
from quantize.weights import Rows, SpeechModel

CONVERTER = 1
"""Grows with every change to what is written for the same checkpoint and recipe: older bundles are then made anew."""
DEPTH_CONTEXT = 64
"""Positions of the depth decoder's cache: at least one a codebook."""


def _is_name(name: str) -> bool:
    """Whether the daemon allows this as a bundle's name."""
    return re.fullmatch(NAME, name) is not None and len(name) <= MAX_NAME


@dataclass(frozen=True, slots=True)
class Sources:
    """What a bundle is made of where the checkpoint alone is not all."""

    codec: Path | None = None
    """Mimi's checkpoint."""
    tokenizer: Path | None = None
    """tokenizer.json."""


def read_checkpoint(source: Path, name: str = "voice", extra: Sources | None = None) -> SpeechModel:
    """Read a checkpoint of any layout that is known; large weights are read when they are used.

    Raises:
        ModelError: it is missing, damaged or of an unknown layout.
        BundleWriteError: ``name`` cannot be a bundle's.
    """
    return _read(Checkpoint(source), source, name, extra, no_progress)


def _read(checkpoint: Checkpoint, source: Path, name: str, extra: Sources | None, progress: Progress) -> SpeechModel:
    if csm.recognises(checkpoint):
        if not _is_name(name):
            raise BundleWriteError(
                f"{name!r} cannot be a bundle's name: 1 to {MAX_NAME} of the letters A to Z and a to z, digits,"
                " and _ . - (not first . or -)"
            )
        extra = extra or Sources()
        return csm.read(checkpoint, name, codec=extra.codec, tokenizer=extra.tokenizer, progress=progress)
    if extra not in (None, Sources()):
        raise ModelError(f"{source}: not a checkpoint of CSM, which alone takes a codec and a tokenizer beside it")
    if starter.recognises(checkpoint):
        return starter.read(checkpoint)
    raise ModelError(
        f"{source}: its tensor names are of no layout that is known (CSM-1B of Sesame or transformers, starter)"
    )


def convert(
    source: Path,
    out: Path,
    quant: str,
    progress: Progress,
    *,
    depth_quant: str | None = None,
    extra: Sources | None = None,
    force: bool = False,
) -> bool:
    """Write the bundle ``out`` from the checkpoint ``source``; the arguments that have names are ``write_bundle``'s.

    Returns:
        False if ``out`` is already what would be written.

    Raises:
        ModelError: the checkpoint is missing, damaged or of an unknown layout.
        BundleWriteError: ``out`` cannot be written.
    """
    checkpoint = Checkpoint(source)
    with BundlePlace(out) as place:
        progress("checkpoint", 0, 1)
        speech = _read(checkpoint, source, place.name, extra, progress)
        progress("checkpoint", 1, 1)
        return _write(speech, place, quant, progress, depth_quant=depth_quant, force=force)


def write_bundle(
    speech: SpeechModel,
    out: Path,
    quant: str,
    progress: Progress,
    *,
    depth_quant: str | None = None,
    force: bool = False,
) -> bool:
    """Write the bundle ``out`` by the recipe ``quant``; what an earlier run had finished is kept.

    Args:
        speech: the model.
        out: the bundle's folder.
        quant: a key of ``RECIPES``.
        progress: where to tell how far it is.
        depth_quant: the depth decoder's type, where it is not the recipe's.
        force: whether to begin anew, also if it is done already or ``out`` holds another model.

    Returns:
        False if ``out`` is already what would be written.

    Raises:
        BundleWriteError: ``out`` cannot be written.
        ModelError: weights turn out to be damaged.
    """
    with BundlePlace(out) as place:
        return _write(speech, place, quant, progress, depth_quant=depth_quant, force=force)


def _write(
    speech: SpeechModel, place: BundlePlace, quant: str, progress: Progress, *, depth_quant: str | None, force: bool
) -> bool:
    recipe = RECIPES[quant]
    depth = depth_quant or recipe.depth_decoder
    manifest = speech.manifest | {"recipe": quant} | ({"depth_recipe": depth} if depth != quant else {})
    if CONVERTER > 1:  # where nothing is said it is the first, as in the starter voice's
        manifest["converter"] = CONVERTER
    parts = _parts(speech, recipe, depth)
    wanted = _validated(manifest, parts)
    tokenizer = hashlib.sha256(_tokenizer_text(speech).encode()).hexdigest()
    if not force:
        place.check_model(manifest)
        if _is_done(place.out, wanted, tokenizer, progress):
            return False
    key = hashlib.sha256(repr((CONVERTER, manifest, tokenizer)).encode()).hexdigest()
    with BundleWriter(place, key, fresh=force) as bundle:
        bundle.reserve(sum(part.num_bytes for part in parts))
        for part in parts:
            bundle.add(part, partial(progress, part.role))
        bundle.finish(manifest)
    return True


def _validated(manifest: dict[str, Any], parts: list[Part]) -> Manifest:
    """The manifest that will be written but for the files' sizes and hashes, checked before the work is done."""
    files = {part.role: {"path": part.file_name, "bytes": 0, "sha256": 64 * "0"} for part in parts}
    try:
        return Manifest.model_validate({"format_version": 1, **manifest, "files": files})
    except ValidationError as err:
        first = err.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"the bundle's manifest: {key}: {first['msg'].removeprefix('Value error, ')}") from err


def _is_done(out: Path, wanted: Manifest, tokenizer: str, progress: Progress) -> bool:
    """Whether ``out`` is an intact bundle of the same checkpoint and recipe."""
    try:
        found = load_bundle(out, verify="size").manifest
        names = [{role: entry.path for role, entry in manifest.files.items()} for manifest in (found, wanted)]
        if names[0] != names[1] or found.files["tokenizer"].sha256 != tokenizer:
            return False
        if found.model_copy(update={"files": wanted.files}) != wanted:
            return False
        progress("check", 0, 1)
        load_bundle(out, verify="full")
        progress("check", 1, 1)
    except ModelError:
        return False
    return True


class _Projected:
    """The audio embeddings of codebooks 0 to Q - 2 as the depth decoder takes them, [(Q-1) * C, Dd]."""

    def __init__(self, speech: SpeechModel) -> None:
        num_codebooks = len(speech.depth_heads) + 1
        own = speech.depth_audio_embeddings
        self._table = speech.audio_embeddings if own is None else own
        self._projection = speech.projection.T
        self.shape = (len(self._table) // num_codebooks * (num_codebooks - 1), len(speech.projection))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> F32:
        start, end, _ = rows.indices(len(self))
        with np.errstate(over="ignore"):  # infinity is refused when it is stored
            projected: F32 = self._table[start:end] @ self._projection
        return projected


def project_depth_embeddings(speech: SpeechModel) -> Rows:
    """Rows of codebooks 0 to Q - 2 as the depth decoder takes them, float32 [(Q-1) * C, Dd]."""
    return _Projected(speech)


def _parts(speech: SpeechModel, recipe: Recipe, depth: str) -> list[Part]:
    """Every file; each is computed when it is written.

    Raises:
        ModelError: rows do not fit the recipe.
    """
    name, context = speech.manifest["name"], speech.manifest["limits"]["context"]
    return [
        gguf_part("backbone", speech.backbone, name, quant=recipe.backbone, context=context),
        gguf_part("depth_decoder", speech.depth_decoder, name, quant=depth, context=DEPTH_CONTEXT),
        heads_part(speech, bits=recipe.head_bits),
        table_part("text_embeddings", speech.text_embeddings, half=recipe.half),
        table_part("audio_embeddings", speech.audio_embeddings, half=recipe.half),
        table_part("depth_embeddings", project_depth_embeddings(speech), half=recipe.half),
        *codec_parts(speech.codec, half=recipe.half),
        text_part("tokenizer", "tokenizer.json", _tokenizer_text(speech)),
    ]


def _tokenizer_text(speech: SpeechModel) -> str:
    return speech.tokenizer + "\n"
