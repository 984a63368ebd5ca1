"""python -m quantize convert: what it writes, and what it says when it cannot."""

import contextlib
import errno
import os
import tomllib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference_starter import ALPHABET, SMALL, random_checkpoint, save_checkpoint, text_ids
from tokenizers import Tokenizer

from daemon.engine.bundle import load_bundle
from quantize.__main__ import main
from quantize.bundle_writer import BundleWriteError, BundleWriter, Part, to_toml


@pytest.fixture(scope="module")
def tensors():
    """Random weights."""
    return random_checkpoint(SMALL, seed=6)


@pytest.fixture
def checkpoint(tensors, tmp_path):
    """A small checkpoint that may be damaged."""
    return save_checkpoint(tensors, tmp_path / "checkpoint")


def convert(source, out, quant="f32"):
    """The exit code."""
    return main(["convert", str(source), "--out", str(out), "--quant", quant])


@pytest.mark.parametrize("quant", ["f32", "f16", "q8_0", "q4_0"])
def test_bundle_is_whole_and_described(checkpoint, tmp_path, quant):
    """Every recipe gives a bundle that the daemon's reader accepts, with tables of the right type."""
    assert convert(checkpoint, tmp_path / "voice", quant) == 0
    bundle = load_bundle(tmp_path / "voice", verify="full")
    assert bundle.manifest.recipe == quant
    assert bundle.manifest.audio.num_codebooks == SMALL.codebooks
    assert bundle.manifest.stop.code == SMALL.codebook_size
    table = bundle.table("depth_embeddings", rows=(SMALL.codebooks - 1) * SMALL.codebook_size, width=SMALL.depth_width)
    assert table.dtype == (np.float32 if quant == "f32" else np.float16)
    assert not (tmp_path / "voice.part").exists()


def test_same_checkpoint_gives_the_same_bytes(checkpoint, tmp_path):
    """Nothing of the time or place gets into a bundle."""
    for name in ("one", "two"):
        assert convert(checkpoint, tmp_path / name, "q8_0") == 0
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_tokenizer_knows_the_alphabet_and_nothing_else(checkpoint, tmp_path):
    """A letter is a token between BOS and EOT, capitals are lowered, all else is dropped, names of specials too."""
    assert convert(checkpoint, tmp_path / "voice") == 0
    tokenizer = Tokenizer.from_file(str(tmp_path / "voice" / "tokenizer.json"))
    assert tokenizer.encode(ALPHABET).ids == text_ids(ALPHABET)
    assert tokenizer.encode("It's\n9 \N{EURO SIGN}.").ids == text_ids("it's .")
    assert tokenizer.encode("<eot>").ids == text_ids("eot")


def test_bundle_is_replaced_and_keeps_its_model_card(checkpoint, tmp_path):
    """Converting again replaces every file but README.md."""
    out = tmp_path / "voice"
    assert convert(checkpoint, out, "f32") == 0
    (out / "README.md").write_text("a card", encoding="utf-8")
    (out / "stray").touch()
    assert convert(checkpoint, out, "q8_0") == 0
    assert load_bundle(out).manifest.recipe == "q8_0"
    assert (out / "README.md").read_text(encoding="utf-8") == "a card"
    assert not (out / "stray").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint", "voice"}


def refusal(capsys, source, out, code):
    """Converting fails with this exit code; returns the one line it says."""
    assert convert(source, out) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("quantize: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_folder_without_a_checkpoint_is_refused(capsys, tmp_path):
    """No safetensors file: the folder is named."""
    assert str(tmp_path) in refusal(capsys, tmp_path, tmp_path / "voice", 66)


@pytest.mark.parametrize("size", [0, 5, 1000, -100])
def test_truncated_checkpoint_is_refused(capsys, checkpoint, tmp_path, size):
    """A file that ends early, anywhere, is named; nothing is written."""
    file = checkpoint / "lm.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: size % len(content)])
    assert "lm.safetensors" in refusal(capsys, checkpoint, tmp_path / "voice", 66)
    assert not (tmp_path / "voice").exists()


@pytest.mark.parametrize("name", ["h0.weight", "bl.0.qkv.weight", "bl.1.n2.w", "db.1.qkv.weight", "dec.bl.0.dw.bias"])
def test_missing_tensor_is_named(capsys, tensors, tmp_path, name):
    """A tensor that is not there is named with the shape it should have."""
    source = save_checkpoint({key: value for key, value in tensors.items() if key != name}, tmp_path / "checkpoint")
    said = refusal(capsys, source, tmp_path / "voice", 66)
    assert f"tensor {name}: expected [" in said
    assert "found no such tensor" in said


@pytest.mark.parametrize("name", ["pj.weight", "bl.0.o.weight", "db.0.gu.weight", "dec.up.bias", "q.e", "te.weight"])
def test_misshapen_tensor_is_named(capsys, tensors, tmp_path, name):
    """A tensor with one row too few is named with what was expected and what was found."""
    short = tensors[name][: 20 if name == "te.weight" else -1].contiguous()
    said = refusal(capsys, save_checkpoint(tensors | {name: short}, tmp_path / "checkpoint"), tmp_path / "voice", 66)
    assert f"tensor {name}: expected" in said
    assert str(len(short)) in said


def test_weights_that_are_not_numbers_are_refused(capsys, tensors, tmp_path):
    """NaN in a tensor is noticed before anything is written."""
    broken = tensors | {"n.w": torch.full_like(tensors["n.w"], torch.nan)}
    said = refusal(capsys, save_checkpoint(broken, tmp_path / "checkpoint"), tmp_path / "voice", 66)
    assert "tensor n.w: expected finite numbers" in said


def test_unknown_layout_is_refused(capsys, tmp_path):
    """A checkpoint of something else is not guessed at."""
    source = save_checkpoint({"some.weight": torch.zeros(2), "q.e": torch.zeros(2)}, tmp_path / "checkpoint")
    assert "no layout that is known" in refusal(capsys, source, tmp_path / "voice", 66)


def test_unwritable_place_is_refused(capsys, checkpoint, tmp_path):
    """A parent that is a file cannot hold a bundle."""
    (tmp_path / "file").touch()
    assert "cannot be written" in refusal(capsys, checkpoint, tmp_path / "file" / "voice", 73)


def test_other_people_s_folder_is_left_alone(capsys, checkpoint, tmp_path):
    """A folder that is not a bundle is not replaced."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").touch()
    assert "not a bundle" in refusal(capsys, checkpoint, other, 73)
    assert (other / "thesis.txt").exists()


def written(content=b"content", log=None):
    """A part that notes when it is written."""

    def write(path, tick):
        if log is not None:
            log.append(path.name)
        path.write_bytes(content)
        tick(1, 2)

    return write


def ignore_tick(_done, _total):
    """No bar."""


def test_full_disk_leaves_nothing_behind(tmp_path):
    """When a file cannot be written, the old bundle stays and the new one is gone."""

    def fail(_path, _tick):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with (
        pytest.raises(BundleWriteError, match="No space left"),
        BundleWriter(tmp_path / "voice", "key") as bundle,
    ):
        bundle.add(Part("backbone", "backbone.gguf", 10, fail), ignore_tick)
    assert list(tmp_path.iterdir()) == []


def test_too_small_a_disk_is_noticed_before_anything_is_written(tmp_path):
    """What is needed and what there is are both said."""
    with pytest.raises(BundleWriteError, match=r"needs 1000000\.00 GB, the disk has \d+"):  # noqa: SIM117
        with BundleWriter(tmp_path / "voice", "key") as bundle:
            bundle.reserve(10**15)
    assert list(tmp_path.iterdir()) == []


def interrupted(tmp_path, key):
    """A run that wrote one part of two and was interrupted in the second."""

    def stop(path, _tick):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt), BundleWriter(tmp_path / "voice", key) as bundle:
        bundle.add(Part("one", "one", 7, written()), ignore_tick)
        bundle.add(Part("two", "two", 7, stop), ignore_tick)
    assert not (tmp_path / "voice").exists()


@pytest.mark.parametrize(
    ("key", "damage", "again"),
    [("same", False, ["two"]), ("other", False, ["one", "two"]), ("same", True, ["one", "two"])],
)
def test_interrupted_run_is_gone_on_with(tmp_path, key, damage, again):
    """What was finished is kept if it is whole and of the same checkpoint and recipe; nothing half-made is."""
    interrupted(tmp_path, "same")
    if damage:
        (tmp_path / "voice.part" / "one").write_bytes(b"damaged")
    log = []
    with BundleWriter(tmp_path / "voice", key) as bundle:
        for name in ("one", "two"):
            bundle.add(Part(name, name, 7, written(log=log)), ignore_tick)
        bundle.finish({"name": "voice"})
    assert log == again
    assert {path.name for path in (tmp_path / "voice").iterdir()} == {"manifest.toml", "one", "two"}
    assert {path.read_bytes() for path in (tmp_path / "voice").iterdir() if path.suffix != ".toml"} == {b"content"}
    assert [path.name for path in tmp_path.iterdir()] == ["voice"]


def test_what_is_done_is_not_done_again(capsys, checkpoint, tmp_path):
    """The same command says that it is done; a damaged bundle, another recipe or --force make it anew."""
    out = tmp_path / "voice"
    assert convert(checkpoint, out) == 0
    before = (out / "manifest.toml").stat().st_mtime_ns
    capsys.readouterr()
    assert convert(checkpoint, out) == 0
    assert "already done" in capsys.readouterr().err
    assert (out / "manifest.toml").stat().st_mtime_ns == before
    (out / "heads.onnx").write_bytes(b"damaged")
    assert convert(checkpoint, out) == 0
    load_bundle(out, verify="full")
    assert main(["convert", str(checkpoint), "--out", str(out), "--quant", "f32", "--force"]) == 0
    assert (out / "manifest.toml").stat().st_mtime_ns > before


def test_depth_decoder_keeps_at_least_eight_bits_unless_asked(checkpoint, tmp_path):
    """Four bits are for the backbone; --depth-quant says otherwise, and the manifest tells."""
    for name, options, depth in [
        ("a", [], "q8_0"),
        ("b", ["--depth-quant", "q4_0"], ""),
        ("c", ["--depth-quant", "f16"], "f16"),
    ]:
        out = tmp_path / name
        assert main(["convert", str(checkpoint), "--out", str(out), "--quant", "q4_0", *options]) == 0
        manifest = load_bundle(out).manifest
        assert (manifest.recipe, manifest.depth_recipe) == ("q4_0", depth)
    sizes = [load_bundle(tmp_path / name).manifest.files["depth_decoder"].bytes for name in "bac"]
    assert sizes == sorted(sizes)


def test_codec_beside_a_starter_checkpoint_is_refused(capsys, checkpoint, tmp_path):
    """--codec and --tokenizer are CSM's."""
    assert main(["convert", str(checkpoint), "--out", str(tmp_path / "x"), "--quant", "f32", "--codec", "m"]) == 66
    assert "not a checkpoint of CSM" in capsys.readouterr().err


def test_wrong_arguments_are_usage_errors(capsys):
    """An unknown recipe ends with 2."""
    with pytest.raises(SystemExit, match="2"):
        convert("x", "y", "q99")
    assert "invalid choice" in capsys.readouterr().err


SCALARS = st.text(max_size=8) | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.floats(-1e300, 1e300)
KEYS = st.sampled_from(["name", "a_b", "x1", "7"])
TABLES = st.dictionaries(KEYS, SCALARS)


@given(content=st.dictionaries(KEYS, SCALARS | st.dictionaries(KEYS, SCALARS | TABLES)))
def test_manifests_are_toml(content):
    """What is written is read back the same by Python's TOML reader."""
    assert tomllib.loads(to_toml(content)) == content
