"""Bundles of CSM against transformers' implementation with random weights: they agree, and planted faults are found."""

import dataclasses
import gc
import json
import shutil

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from reference_csm import save_hf, save_torchtune, small_model, small_tokenizer, true_model

from daemon.engine.backbone import Backbone
from daemon.errors import BadRequestError, ModelError
from quantize import convert as conversion
from quantize import ggml
from quantize.convert import Sources, convert, read_checkpoint, write_bundle
from quantize.verify import print_report, verify
from quantize.verify_noise import ROUNDING

pytestmark = pytest.mark.engine

FAULT_FRAMES = 6
NUM_CLASSES = 67
"""Rows of one codebook in the small model's table."""


def ignore_progress(*_step: object) -> None:
    """No bar."""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Torch beside llama.cpp on few cores is slowest with every core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    """The same weights in both layouts; the codec's checkpoint is beside the second."""
    folder = tmp_path_factory.mktemp("csm")
    model = small_model()
    save_hf(model, folder / "transformers")
    save_torchtune(model, folder / "torchtune")
    for layout in ("transformers", "torchtune"):
        small_tokenizer(folder / layout)
    return folder


def sources(folder, layout):
    """What a layout's checkpoint does not hold."""
    return Sources(codec=folder / "torchtune" / "mimi") if layout == "torchtune" else None


def check(bundle, folder, layout, frames):
    """The report of a bundle against a layout."""
    extra = sources(folder, layout)
    return verify(bundle, folder / layout, codec=extra and extra.codec, frames=frames, progress=ignore_progress)


def failures(report):
    """Names of the stages that are off."""
    return {row.stage for row in report.rows if not row.passed}


@pytest.mark.parametrize("layout", ["transformers", "torchtune"])
def test_a_float32_bundle_is_the_reference(layouts, tmp_path, layout):
    """Every stage within 1e-4, every code of a greedy generation of 50 frames the same, from both layouts."""
    convert(layouts / layout, tmp_path / "bundle", "f32", ignore_progress, extra=sources(layouts, layout))
    report = check(tmp_path / "bundle", layouts, layout, 50)
    assert report.passed, failures(report)
    greedy = next(row for row in report.rows if row.stage == "greedy codes")
    assert (greedy.error, greedy.threshold, greedy.note) == (0.0, 0.0, "all 400 codes")
    assert all(row.worst <= 1e-5 for row in report.rows if row.worst is not None)


def test_folder_with_both_layouts_is_read_the_same_by_both_sides(layouts, tmp_path):
    """As the hub has it: transformers' shards with an index of their own name, and Sesame's file beside them."""
    both = tmp_path / "both"
    shutil.copytree(layouts / "transformers", both)
    (both / "model.safetensors").rename(both / "transformers-00001-of-00001.safetensors")
    shutil.copy(layouts / "torchtune" / "model.safetensors", both)
    convert(both, tmp_path / "bundle", "f32", ignore_progress)
    report = verify(tmp_path / "bundle", both, frames=FAULT_FRAMES, progress=ignore_progress)
    assert report.passed, failures(report)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({}, ModelError, "no codec in it; give --codec"),
        ({"codec": "transformers"}, ModelError, "not a checkpoint of Mimi: no tensor"),
        ({"codec": "torchtune/mimi", "frames": 3000}, BadRequestError, "frames must be 1 to "),
    ],
)
def test_what_cannot_be_compared_is_refused(layouts, tmp_path, options, error, said):
    """One line that names what is missing, or out of range."""
    convert(layouts / "torchtune", tmp_path / "bundle", "f32", ignore_progress, extra=sources(layouts, "torchtune"))
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        shutil.copy(layouts / "torchtune" / name, alone)
    if "codec" in options:
        options = options | {"codec": layouts / options["codec"]}
    with pytest.raises(error, match=said):
        verify(tmp_path / "bundle", alone, progress=ignore_progress, **options)


@pytest.mark.parametrize(
    ("quant", "depth_quant"), [("f16", None), ("q8_0", None), ("q4_0", "q4_0"), ("q4_k", "q4_k"), ("q4_k", None)]
)
def test_other_recipes_stay_within_their_bounds(layouts, tmp_path, quant, depth_quant):
    """As close as rounding noise lets the reference itself be; the bounds are no wider than that asks for."""
    convert(layouts / "transformers", tmp_path / "bundle", quant, ignore_progress, depth_quant=depth_quant)
    report = check(tmp_path / "bundle", layouts, "transformers", 24)
    assert report.passed, failures(report)
    for row in report.rows:
        if row.stage in {"backbone hidden", "depth hidden"}:
            assert row.error > 0.5 * row.threshold


@pytest.mark.parametrize("kind", ["f16", "q8_0", "q4_0", "q4_k"])
def test_rounding_noise_is_as_large_as_derived(kind):
    """ggml's own quantizers err as much on normally distributed weights as the derivation says."""
    weight = np.random.default_rng(0).standard_normal((256, 1024)).astype(np.float32)
    stored = GGMLQuantizationType[kind.upper()]
    found = gguf.dequantize(ggml.quantize(weight, stored), stored)
    error = np.linalg.norm(found - weight) / np.linalg.norm(weight)
    assert 0.85 * ROUNDING[kind].weights < error < 1.02 * ROUNDING[kind].weights


def faulty(layouts, out, layout, quant, **fault):
    """A bundle of a model some of whose parts are replaced: a function makes the new one of the old one."""
    speech = read_checkpoint(layouts / layout, "small", sources(layouts, layout))
    changed = {name: change(getattr(speech, name)) for name, change in fault.items()}
    write_bundle(dataclasses.replace(speech, **changed), out, quant, ignore_progress)
    return out


def failures_of(layouts, out, layout="transformers", quant="f32", **fault):
    """The stages that notice a fault."""
    return failures(check(faulty(layouts, out / "faulty", layout, quant, **fault), layouts, layout, FAULT_FRAMES))


@pytest.mark.parametrize("layout", ["transformers", "torchtune"])
@pytest.mark.parametrize(("part", "stage"), [("backbone", "backbone hidden"), ("depth_decoder", "depth hidden")])
def test_wrong_permutation_of_q_and_k_is_found(layouts, tmp_path, layout, part, stage):
    """Rotate-half weights left as they are; neighbouring pairs permuted as if they were halves."""
    found = failures_of(
        layouts, tmp_path, layout, **{part: lambda old: dataclasses.replace(old, rotate_half=not old.rotate_half)}
    )
    assert {stage, "greedy codes"} <= found


@pytest.mark.parametrize("quant", ["f16", "q8_0", "q4_0", "q4_k"])
def test_wrong_permutation_is_found_in_other_recipes(layouts, tmp_path, quant):
    """The bounds of rounding are not so wide that a fault hides in them."""
    found = failures_of(
        layouts, tmp_path, quant=quant, backbone=lambda old: dataclasses.replace(old, rotate_half=False)
    )
    assert "backbone hidden" in found


@pytest.mark.parametrize(("part", "stage"), [("backbone", "backbone hidden"), ("depth_decoder", "depth hidden")])
def test_missing_rope_scaling_is_found(layouts, tmp_path, part, stage):
    """Without rope_freqs the positions turn too fast."""
    found = failures_of(layouts, tmp_path, **{part: lambda old: dataclasses.replace(old, rope_scaling=None)})
    assert stage in found


@pytest.mark.parametrize("rows", [NUM_CLASSES, 1])
def test_wrong_codebook_offset_is_found(layouts, tmp_path, rows):
    """Tables off by one codebook, or by one code."""
    found = failures_of(layouts, tmp_path, audio_embeddings=lambda old: np.roll(old[:], rows, axis=0))
    assert {"frame embeddings", "depth embeddings", "greedy codes"} <= found
    assert "backbone hidden" not in found


@pytest.mark.parametrize(
    "fault",
    [lambda table: np.roll(table, NUM_CLASSES, axis=0), lambda table: np.roll(table, 1, axis=1)],
    ids=["offset", "projection"],
)
def test_wrong_depth_embeddings_are_found(layouts, tmp_path, monkeypatch, fault):
    """The depth decoder's own table, where only that one is wrong."""
    right = conversion.project_depth_embeddings
    monkeypatch.setattr(conversion, "project_depth_embeddings", lambda speech: fault(right(speech)[:]))
    assert failures_of(layouts, tmp_path) == {"depth embeddings", "greedy codes"}


def test_wrong_head_index_is_found(layouts, tmp_path):
    """Depth heads off by one."""
    found = failures_of(layouts, tmp_path, depth_heads=lambda old: np.roll(old, 1, axis=0))
    assert found == {"depth logits", "greedy codes"}


@pytest.mark.parametrize("missing", ["begin", "end"])
def test_missing_special_tokens_are_found(layouts, tmp_path, missing):
    """A tokenizer that leaves out what a segment begins or ends with."""

    def change(old):
        tokenizer = json.loads(old)
        single = tokenizer["post_processor"]["single"]
        tokenizer["post_processor"]["single"] = single[1:] if missing == "begin" else single[:-1]
        return json.dumps(tokenizer)

    found = failures_of(layouts, tmp_path, tokenizer=change)
    assert "prompt tokens" in found


def test_swapped_codebooks_of_the_codec_are_found(layouts, tmp_path):
    """Two acoustic codebooks in each other's place."""

    def change(old):
        books = old.acoustic.codebooks[[1, 0, *range(2, len(old.acoustic.codebooks))]]
        return dataclasses.replace(old, acoustic=dataclasses.replace(old.acoustic, codebooks=books))

    assert failures_of(layouts, tmp_path, codec=change) == {"codec PCM", "codec codes"}


def test_an_engine_that_forgets_the_end_of_a_recording_is_found(layouts, tmp_path, monkeypatch):
    """Without the frame of zeros after a context segment the greedy codes are others, and nothing else."""

    def prefill(self, segment):
        self.prefill_text(segment.tokens)
        for codes in segment.codes:
            self._embed(codes, 0)
            self.model.decode(1)

    monkeypatch.setattr(Backbone, "prefill", prefill)
    assert failures_of(layouts, tmp_path) == {"greedy codes"}


@pytest.fixture(scope="module")
def true_shapes(tmp_path_factory):
    """CSM-1B's true shapes with random weights, bfloat16 in transformers' layout, 3.4 GB; removed afterwards."""
    folder = tmp_path_factory.mktemp("true")
    model = true_model()
    save_hf(model, folder / "checkpoint", shards=2, dtype=torch.bfloat16)
    del model
    gc.collect()
    small_tokenizer(folder / "checkpoint", first_special=128_000)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("quant", ["f32", "f16", "q8_0", "q4_0", "q4_k"])
def test_true_shapes(true_shapes, quant, capsys):
    """float32: every stage within 1e-4 and 50 greedy frames the same; the others within their bounds, told."""
    bundle = true_shapes / quant
    convert(true_shapes / "checkpoint", bundle, quant, ignore_progress)
    try:
        frames = 50 if quant == "f32" else 16
        report = verify(bundle, true_shapes / "checkpoint", frames=frames, progress=ignore_progress)
    finally:
        shutil.rmtree(bundle)
    with capsys.disabled():
        print()
        print_report(report, as_json=False)
    assert report.passed, failures(report)
