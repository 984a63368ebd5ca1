"""A bundle that is not whole is refused, with the name of what is wrong."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from daemon.config_sections import EngineConfig
from daemon.engine.bundle import find_bundle, load_bundle
from daemon.engine.engine import Engine
from daemon.errors import ModelError

STARTER = Path(__file__).resolve().parents[2] / "models" / "starter"

pytestmark = pytest.mark.engine


@pytest.fixture
def copy(tmp_path):
    """A copy of the starter bundle to damage."""
    return Path(shutil.copytree(STARTER, tmp_path / "copy"))


def edit_manifest(folder, line, new):
    """Replace what begins a line of the manifest; it must be there."""
    path = folder / "manifest.toml"
    text, count = re.subn(f"(?m)^{line}", lambda _: new, path.read_text())
    assert count
    path.write_text(text)


def test_the_starter_bundle_is_whole():
    """Every hash holds, and it fits in git."""
    bundle = load_bundle(STARTER, verify="full")
    assert sum(path.stat().st_size for path in STARTER.iterdir()) <= 25_000_000
    assert bundle.manifest.audio.samples_per_frame == 1920


def test_a_missing_bundle_says_where_it_was_looked_for(tmp_path):
    """The message lists the folders."""
    with pytest.raises(ModelError, match=f"no bundle named nosuch in {tmp_path}"):
        find_bundle("nosuch", [tmp_path])
    with pytest.raises(ModelError, match=r"manifest\.toml is not there"):
        find_bundle(f"{tmp_path}/nosuch", [])


@pytest.mark.parametrize("name", ["backbone.gguf", "heads.onnx", "codec_decoder.onnx", "text_embeddings.npy"])
def test_a_truncated_file_is_named(copy, name):
    """Half a file is found by its size, whatever the policy."""
    path = copy / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ModelError, match=rf"{name}: \d+ bytes, the manifest says"):
        load_bundle(copy, verify="size")


@pytest.mark.parametrize("name", ["backbone.gguf", "heads.onnx", "tokenizer.json"])
def test_a_flipped_bit_is_found(copy, name):
    """One bit is found by the hash."""
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(ModelError, match=rf"{name}: sha256 is not the manifest's"):
        load_bundle(copy)


def test_a_missing_file_is_named(copy):
    """A role whose file is gone."""
    (copy / "codec_decoder.onnx").unlink()
    with pytest.raises(ModelError, match=r"codec_decoder.onnx: No such file"):
        load_bundle(copy)


@pytest.mark.parametrize(
    ("line", "new", "message"),
    [
        ("family = .*", 'family = "qwen"', "family 'qwen', this program knows: csm"),
        ("format_version = .*", "format_version = 99", "format_version 99, this program reads 1"),
        ("num_codebooks = .*", "num_codebooks = 50", r"expected \[\d+, 256\] or more rows, found \[4096, 256\]"),
        ("num_codebooks = .*", 'num_codebooks = "x"', "audio.num_codebooks"),
        ("codebook_size = .*", "codebook_size = 7000", "expected"),
        ("delay_samples = .*", "delay_samples = 1000", "flush_state 'overlap' does not hold 1000 samples"),
        ("delay_samples = .*", "delay_samples = 36000", "delay_samples is more than a frame"),
        ("max_text_tokens = .*", "max_text_tokens = 4", "limits.max_text_tokens"),
        (r"\[prompt\]", "[surprise]", "surprise"),
        ("default_voice = .*", 'default_voice = "nobody"', "default_voice nobody is not in"),
        ("format_version", "format version", "damaged"),
        ("num_codebooks = .*", f"num_codebooks = {'9' * 5000}", "damaged: Exceeds the limit"),
        ("format_version = .*", f"format_version = 0x{'f' * 5000}", "damaged: Exceeds the limit"),
        ("format_version = .*", f"format_version = {'[' * 100_000}", "damaged"),
        ("num_codebooks = .*", f"num_codebooks = 0x{'f' * 5000}", "audio.num_codebooks"),
        ("codebook_size = .*", f"codebook_size = 0x{'f' * 5000}", "audio.codebook_size"),
        ("speaker = 0", f"speaker = 0x{'f' * 5000}", r"voices\.slt\.speaker"),
        ("frame_rate = .*", "frame_rate = inf", "audio.frame_rate"),
        ("frame_rate = .*", "frame_rate = 1e-300", "audio.frame_rate"),
        ("frame_rate = .*", f"frame_rate = 0x{'f' * 5000}", "audio.frame_rate"),
    ],
)
def test_a_wrong_manifest_is_refused_in_one_line(copy, line, new, message):
    """Wrong family, version, shapes, types and syntax."""
    edit_manifest(copy, line, new)
    with pytest.raises(ModelError, match=message) as caught:
        Engine(EngineConfig(bundle=str(copy), verify="size"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["seconds_per_token", "max_ratio", "slack_s", "max_utterance_s", "context"])
@pytest.mark.parametrize("value", ["inf", "nan", "1e308", f"0x{'f' * 5000}"])
def test_limits_have_limits(copy, key, value):
    """Nothing that is reckoned with them while somebody waits for speech overflows."""
    path = copy / "manifest.toml"
    path.write_text(re.sub(rf"(?m)^{key} = .*$", f"{key} = {value}", path.read_text()))
    with pytest.raises(ModelError, match=rf"limits\.{key}: "):
        load_bundle(copy, verify="size")


def test_a_path_cannot_leave_the_folder(copy):
    """A manifest edited by hand does not make the daemon read elsewhere."""
    edit_manifest(copy, r'path = "heads\.onnx"', 'path = "../heads.onnx"')
    with pytest.raises(ModelError, match=r"files\.heads\.path"):
        load_bundle(copy)


def declare_size(copy, name):
    """Let the manifest say the size that a file now has; its hash is not looked at with verify = "size"."""
    text = (copy / "manifest.toml").read_text()
    start = text.index(f'path = "{name}"')
    end = text.index("\n", text.index("bytes", start))
    size = (copy / name).stat().st_size
    (copy / "manifest.toml").write_text(text[:start] + f'path = "{name}"\nbytes = {size}' + text[end:])


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("codec_decoder.onnx", "heads.onnx"),
        ("heads.onnx", "codec_decoder.onnx"),
        ("depth_decoder.gguf", "backbone.gguf"),
        ("tokenizer.json", "codec_decoder.onnx"),
        ("tokenizer.json", "backbone.gguf"),
        ("heads.onnx", "tokenizer.json"),
        ("tokenizer.json", "audio_embeddings.npy"),
        ("text_embeddings.npy", "audio_embeddings.npy"),
    ],
)
def test_files_swapped_for_others_are_refused(copy, source, target):
    """What is inside a file is checked too: shapes, names, dtypes."""
    shutil.copy(copy / source, copy / target)
    declare_size(copy, target)
    with pytest.raises(ModelError):
        Engine(EngineConfig(bundle=str(copy), verify="size"))


@pytest.mark.parametrize(
    "header", ["((((", "{'descr': '<f2', 'fortran_order': False, 'shape': (99999999999999999999, 8), }"]
)
def test_a_table_with_a_broken_header_is_refused(copy, header):
    """Whatever numpy raises at it."""
    content = b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode() + bytes(99)
    (copy / "text_embeddings.npy").write_bytes(content)
    declare_size(copy, "text_embeddings.npy")
    with pytest.raises(ModelError, match=r"not a \.npy array"):
        Engine(EngineConfig(bundle=str(copy), verify="size"))


def test_a_table_of_another_dtype_is_refused(copy):
    """float64 tables are not silently read."""
    path = copy / "text_embeddings.npy"
    np.save(path, np.load(path).astype(np.float64))
    declare_size(copy, "text_embeddings.npy")
    with pytest.raises(ModelError, match="float64"):
        Engine(EngineConfig(bundle=str(copy), verify="size"))
