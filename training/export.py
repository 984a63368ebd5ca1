"""The stage export: the trained models -> a checkpoint for ``quantize`` -> bundles that the daemon speaks with."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from daemon.engine.bundle import SamplingTable
from daemon.errors import ModelError, StoreError
from quantize.convert import convert
from quantize.progress import no_progress
from quantize.starter_config import Speaker, StarterConfig
from training import limits
from training.checkpoint import load
from training.codec_model import Codec
from training.codec_store import latest, load_codec, print_of
from training.golden import agreement, choose, write_golden
from training.lm_model import load_lm
from training.speech import Speech, Utterance
from training.text import ALPHABET
from training.workspace import Workspace, reason

if TYPE_CHECKING:
    from training.config import Config

_TOP_K = 50
"""Where a temperature is asked for."""
_TRAINING_ONLY = "aux."
"""Heads that the model is trained with and does not speak with."""


def run(config: "Config", *, device: str, processes: int, minutes: float | None) -> None:
    """Write the checkpoint and a bundle for every recipe.

    Raises:
        ModelError: a stage before has not been run, what it left is damaged, or codec and language model are no pair.
        StoreError: something cannot be written.
    """
    del device, processes, minutes  # seconds on any machine
    work, export = Workspace(config.paths.work), config.export
    golden = write_checkpoint(config, work)
    for recipe in export.recipes:
        _convert(work.export, work.bundles / f"{export.name}-{recipe}", recipe, golden)
    if export.install:
        _convert(work.export, Path(config.paths.bundle), export.install, golden)


def write_checkpoint(config: "Config", work: Workspace) -> Path:
    """Write lm.safetensors, codec.safetensors and config.json, and golden.npz; returns the last.

    Raises:
        ModelError: a stage before has not been run, what it left is damaged, or codec and language model are no pair.
        StoreError: something cannot be written.
    """
    speech = Speech(work)
    described = _describe(config, [speech.utterances[number] for number in speech.split("train")])
    model = load_lm(work.lm / "last.pt", "cpu")
    codec = load_codec(work, "cpu")
    _check_pair(work, codec)
    language = {name: value for name, value in model.state_dict().items() if not name.startswith(_TRAINING_ONLY)}
    try:
        work.export.mkdir(parents=True, exist_ok=True)
        _save(work.export / "lm.safetensors", language)
        _save(work.export / "codec.safetensors", codec.exported(model.shape.num_codebooks))
        (work.export / "config.json").write_text(described.model_dump_json(indent=1) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as err:  # the second is its writer's for the first
        raise StoreError(f"{work.export}: cannot be written: {reason(err)}") from err
    golden = work.export / "golden.npz"
    held = speech.split("held") or speech.split("train")
    write_golden(golden, model, codec, choose([speech.utterances[number] for number in held]), described.limits)
    return golden


def _check_pair(work: Workspace, codec: Codec) -> None:
    """Refuse a language model that speaks another codec's codes; say of what is unfinished how far it is."""
    trained = {"language model": load(work.lm / "last.pt") or {}, "codec": latest(work)}
    if trained["language model"].get("codec") != print_of(codec):
        raise ModelError(
            f"{work.lm / 'last.pt'}: expected a model of the codes of {work.codec}, found one of other codes; run the"
            " stages codec and lm"
        )
    for name, state in trained.items():
        if state.get("step", 0) < state.get("steps", 0):
            print(f"training: {name}: step {state['step']} of {state['steps']}", file=sys.stderr)


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file({name: value.float().contiguous() for name, value in tensors.items()}, path)


def _describe(config: "Config", spoken: Sequence[Utterance]) -> StarterConfig:
    export, speakers = config.export, config.speech.speakers
    return StarterConfig(
        name=export.name,
        description=export.description,
        licence=export.licence,
        source=export.source,
        alphabet=ALPHABET,
        bidirectional=True,
        default_voice=export.default_voice or speakers[0].name,
        speakers=tuple(
            Speaker(name=item.name, description=item.description, language=item.language) for item in speakers
        ),
        sampling=SamplingTable(
            temperature=export.temperature,
            top_k=_TOP_K,
            depth_temperature=export.depth_temperature,
            depth_top_k=_TOP_K,
        ),
        limits=limits.measure(spoken),
    )


def _convert(checkpoint: Path, out: Path, recipe: str, golden: Path) -> None:
    convert(checkpoint, out, recipe, no_progress, force=True)  # also in place of another voice: it was asked for
    megabytes = sum(path.stat().st_size for path in out.iterdir()) / 1e6
    said = ""
    if recipe == "f32":
        same, total = agreement(golden, out)
        said = f"; {same} of {total} codes of golden.npz come out as in PyTorch"
    print(f"training: {out}: {megabytes:.1f} MB{said}", file=sys.stderr)
