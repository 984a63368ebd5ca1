"""python -m quantize convert: what it writes, and what it says when it cannot."""

import dataclasses
import json
import re
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from reference_csm import save_hf, save_torchtune, small_model, small_tokenizer
from reference_starter import (
    ALPHABET,
    BOS,
    CONFIG,
    EOT,
    SMALL,
    SPEAKERS,
    random_checkpoint,
    save_checkpoint,
    text_ids,
)

import quantize.convert as conversion
from daemon.engine.bundle import Manifest, load_bundle
from daemon.engine.tokenizer import PromptTokenizer
from daemon.errors import ModelError
from quantize.__main__ import main

STARTER = tomllib.loads((Path(__file__).parents[2] / "models" / "starter" / "manifest.toml").read_text())


@pytest.fixture(scope="module")
def tensors():
    """Random weights."""
    return random_checkpoint(SMALL, seed=6)


@pytest.fixture
def checkpoint(tensors, tmp_path):
    """A small checkpoint that may be damaged."""
    return save_checkpoint(tensors, tmp_path / "checkpoint")


def convert(source, out, quant="f32", *options):
    """The exit code."""
    return main(["convert", str(source), "--out", str(out), "--quant", quant, *map(str, options)])


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


def tokenizer_of(checkpoint, out):
    """The tokenizer of a bundle that is made for it."""
    assert convert(checkpoint, out) == 0
    return PromptTokenizer(load_bundle(out))


def test_tokenizer_knows_the_alphabet_and_nothing_else(checkpoint, tmp_path):
    """A letter is a token between the speaker and EOT, capitals are lowered, all else is dropped."""
    tokenizer = tokenizer_of(checkpoint, tmp_path / "voice")
    for speaker in range(SPEAKERS):
        assert tokenizer.encode(ALPHABET, speaker) == text_ids(ALPHABET, speaker)
    assert tokenizer.encode("It's\n9 \N{EURO SIGN}.", 1) == text_ids("it's .", 1)
    assert tokenizer.encode("<eot>", 0) == text_ids("eot")
    assert tokenizer.encode("a {text} [1] b", 0) == text_ids("a text  b")


@given(text=st.text() | st.text(alphabet=ALPHABET + "[]01<>bosEOT\n\u0130", max_size=30), speaker=st.integers(0, 1))
def test_no_text_changes_who_speaks(tokenizer, text, speaker):
    """Whatever is written, also the marks of speakers: BOS, the speaker that was asked for, characters, EOT."""
    bos, mark, *characters, eot = tokenizer.encode(text, speaker)
    assert (bos, mark, eot) == (BOS, EOT + 1 + speaker, EOT)
    assert all(number < len(ALPHABET) for number in characters)


@pytest.fixture(scope="module")
def tokenizer(tensors, tmp_path_factory):
    """The tokenizer of a checkpoint that is whole."""
    folder = tmp_path_factory.mktemp("tokenizer")
    return tokenizer_of(save_checkpoint(tensors, folder / "checkpoint"), folder / "voice")


def test_voices_are_the_speakers_of_the_configuration(tensors, tmp_path):
    """By name, numbered as in the prompt, with what is said of them; limits, sampling and the alphabet likewise."""
    speakers = [{"name": name, "description": f"a {name}", "language": "fr"} for name in ("one", "two")]
    source = save_checkpoint(tensors, tmp_path / "checkpoint", speakers=speakers, default_voice="two", name="mine")
    assert convert(source, tmp_path / "voice", "q8_0") == 0
    found = load_bundle(tmp_path / "voice").manifest
    voices = {name: (voice.description, voice.language, voice.speaker) for name, voice in found.voices.items()}
    assert voices == {"one": ("a one", "fr", 0), "two": ("a two", "fr", 1)}
    assert (found.name, found.default_voice, found.prompt.bidirectional) == ("mine", "two", True)
    assert (found.limits.model_dump(exclude_defaults=True), found.text.alphabet) == (CONFIG["limits"], ALPHABET)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"default_voice": "nobody"}, "default_voice: expected one of first, second, found nobody"),
        ({"speakers": CONFIG["speakers"] * 2}, "speakers: two have the same name"),
        ({"speakers": []}, "speakers: Tuple should have at least 1 item"),
        ({"alphabet": "abA"}, "alphabet: expected small letters and marks, each once, found 'abA'"),
        ({"alphabet": "aab"}, "alphabet: expected small letters and marks, each once"),
        ({"alphabet": "ab[]"}, "alphabet: expected no square brackets"),
        ({"limits": CONFIG["limits"] | {"context": 1}}, "limits.context: "),
        ({"limits": CONFIG["limits"] | {"contxt": 1}}, "limits.contxt: "),
        ({"name": "../x"}, "name: "),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(capsys, tensors, tmp_path, config, said):
    """The file and the key are named."""
    source = save_checkpoint(tensors, tmp_path / "checkpoint", **config)
    assert f"{source / 'config.json'}: {said}" in refusal(capsys, source, tmp_path / "voice", 66)


def test_tensors_without_a_configuration_are_refused(capsys, checkpoint, tmp_path):
    """Who speaks and how long cannot be guessed."""
    (checkpoint / "config.json").unlink()
    said = refusal(capsys, checkpoint, tmp_path / "voice", 66)
    assert f"{checkpoint / 'config.json'}: expected the voice's name, speakers and limits" in said


def test_bundle_is_replaced_and_keeps_its_model_card(checkpoint, tmp_path):
    """Converting again replaces every file but README.md."""
    out = tmp_path / "voice"
    assert convert(checkpoint, out, "f32") == 0
    (out / "README.md").write_text("a card", encoding="utf-8")
    assert convert(checkpoint, out, "q8_0") == 0
    assert load_bundle(out).manifest.recipe == "q8_0"
    assert (out / "README.md").read_text(encoding="utf-8") == "a card"
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint", "voice"}


def test_bundle_with_a_stray_file_is_refused(capsys, checkpoint, tmp_path):
    """What the manifest does not name is somebody's: it is named, and nothing is replaced."""
    out = tmp_path / "voice"
    assert convert(checkpoint, out, "f32") == 0
    (out / "stray").touch()
    capsys.readouterr()
    assert "stray is in it" in refusal(capsys, checkpoint, out, 73)
    assert load_bundle(out, verify="full").manifest.recipe == "f32"
    assert (out / "stray").exists()


def refusal(capsys, source, out, code, *options, quant="f32"):
    """Converting fails with this exit code; returns the one line it says."""
    assert convert(source, out, quant, *options) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("quantize: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_no_such_checkpoint_is_said(capsys, tmp_path):
    """Not that it lacks files; nothing is made for it."""
    said = refusal(capsys, tmp_path / "nope", tmp_path / "models" / "voice", 66)
    assert f"{tmp_path / 'nope'}: No such file or directory" in said
    assert list(tmp_path.iterdir()) == []


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


def test_a_bundle_of_another_model_is_replaced_only_by_force(capsys, checkpoint, csm, tmp_path):
    """Not by mistake: it is named and nothing is touched, also where CSM's bundle would have the same name."""
    out = tmp_path / "starter"
    assert convert(checkpoint, out, "q8_0") == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    capsys.readouterr()
    said = refusal(capsys, csm / "hf", out, 73)
    assert said == f"quantize: {out}: holds another model (starter: {CONFIG['source']}); --force replaces it\n"
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint", "starter"}
    assert convert(csm / "hf", out, "f32", "--force") == 0
    assert convert(csm / "hf", out, "q8_0") == 0
    found = load_bundle(out).manifest
    assert (found.name, found.recipe) == ("starter", "q8_0")
    assert found.source != CONFIG["source"]
    (out / "stray").touch()
    assert convert(checkpoint, out, "f32", "--force") == 73


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


@pytest.mark.parametrize("line", ['description = "x"', 'licence = "x"', "context = 100", "top_k = 7"])
def test_what_is_done_is_what_would_be_written(checkpoint, tmp_path, line):
    """A bundle whose manifest differs in anything is made anew."""
    out = tmp_path / "voice"
    assert convert(checkpoint, out) == 0
    manifest = out / "manifest.toml"
    right = manifest.read_text(encoding="utf-8")
    other = re.sub(f"^{line.split('=')[0]}=.*", line, right, flags=re.MULTILINE)
    manifest.write_text(other, encoding="utf-8")
    assert load_bundle(out)
    assert convert(checkpoint, out) == 0
    assert manifest.read_text(encoding="utf-8") == right != other


def test_what_an_older_converter_made_is_made_anew(capsys, checkpoint, tmp_path, monkeypatch):
    """Once; also what it had only begun."""
    out = tmp_path / "voice"
    assert convert(checkpoint, out) == 0
    monkeypatch.setattr(conversion, "CONVERTER", 2)
    for said in ("written", "already done"):
        capsys.readouterr()
        assert convert(checkpoint, out) == 0
        assert said in capsys.readouterr().err
    assert load_bundle(out).manifest.converter == 2


def test_a_file_of_the_right_size_is_not_taken_for_whole(checkpoint, tmp_path):
    """What is done is hashed, so that the command repairs what it made."""
    out = tmp_path / "voice"
    assert convert(checkpoint, out) == 0
    heads = out / "heads.onnx"
    right = heads.read_bytes()
    heads.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    assert convert(checkpoint, out) == 0
    assert heads.read_bytes() == right


@pytest.fixture(scope="module")
def csm(tmp_path_factory):
    """A folder with both layouts of a small CSM, its tokenizer, and names for a codec apart."""
    folder = tmp_path_factory.mktemp("csm")
    model = small_model(3)
    small_tokenizer(save_hf(model, folder / "hf"))
    small_tokenizer(save_torchtune(model, folder / "original"))
    return folder


def copy(folder, to):
    """A checkpoint that may be changed."""
    shutil.copytree(folder, to)
    return to


def edit(file, **values):
    """Change some of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | values), encoding="utf-8")


def test_configuration_is_part_of_what_is_done(capsys, csm, tmp_path):
    """Another config.json, of the checkpoint or of the codec, gives another bundle; the spelling does not."""
    source = copy(csm / "original", tmp_path / "csm")
    options = ["--codec", source / "mimi"]
    assert convert(source, tmp_path / "voice", "f32", *options) == 0
    revision = load_bundle(tmp_path / "voice").manifest.revision
    (source / "config.json").write_text((source / "config.json").read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert convert(source, tmp_path / "voice", "f32", *options) == 0
    assert "already done" in capsys.readouterr().err
    for file, values in ((source / "config.json", {"note": 1}), (source / "mimi" / "config.json", {"norm_eps": 1e-6})):
        edit(file, **values)
        assert convert(source, tmp_path / "voice", "f32", *options) == 0
        assert "already done" not in capsys.readouterr().err
        found = load_bundle(tmp_path / "voice").manifest.revision
        assert found != revision
        revision = found


def test_content_of_a_codec_in_the_hub_s_cache_counts(capsys, csm, tmp_path):
    """A commit's name is no proof of what is in its folder."""
    snapshot = copy(csm / "original" / "mimi", tmp_path / "snapshots" / (40 * "c"))
    source, other = csm / "original", csm / "hf"
    assert convert(source, tmp_path / "voice", "f32", "--codec", snapshot) == 0
    revision = load_bundle(tmp_path / "voice").manifest.revision
    assert f", codec {40 * 'c'} sha256:" in revision
    shutil.copy(other / "model.safetensors", snapshot)
    shutil.copy(other / "config.json", snapshot)
    capsys.readouterr()
    assert convert(source, tmp_path / "voice", "f32", "--codec", snapshot) == 0
    assert "already done" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["my voice", "grüße", ".hidden", "-x", 65 * "x", "a,b", "voice\n"])
def test_names_that_no_bundle_may_have_are_refused(capsys, csm, tmp_path, name):
    """Before anything is read: the daemon would refuse the bundle. What is allowed is said."""
    said = refusal(capsys, csm / "hf", tmp_path / name, 73)
    assert f"{name!r} cannot be a bundle's name: 1 to 64 of the letters" in said
    assert list(tmp_path.iterdir()) == []


@given(st.text(max_size=70) | st.from_regex(r"[A-Za-z0-9._ -]{0,70}"))
def test_names_are_those_that_the_daemon_allows(name):
    """To the letter."""
    try:
        allowed = bool(Manifest.model_validate(STARTER | {"name": name}))
    except ValidationError:
        allowed = False
    assert conversion._is_name(name) == allowed


def test_a_manifest_that_cannot_be_is_refused_before_the_work(csm, tmp_path):
    """The key is named, and nothing is there."""
    speech = conversion.read_checkpoint(csm / "hf")
    broken = dataclasses.replace(speech, manifest=speech.manifest | {"default_voice": "nobody"})
    with pytest.raises(ModelError, match=r"the bundle's manifest: .*default_voice nobody is not in"):
        conversion.write_bundle(broken, tmp_path / "voice", "f32", lambda *_: None)
    assert list(tmp_path.iterdir()) == []


def test_hashing_moves_the_bar(csm, tmp_path):
    """Of the checkpoint and of the codec, in bytes."""
    ticks = []
    extra = conversion.Sources(codec=csm / "original" / "mimi")
    out = tmp_path / "voice"
    conversion.convert(csm / "original", out, "f32", lambda *tick: ticks.append(tick), extra=extra)
    for part, folder in (("checkpoint", csm / "original"), ("codec", csm / "original" / "mimi")):
        size = (folder / "model.safetensors").stat().st_size
        assert (part, size, size) in ticks


def test_tokenizer_and_codec_that_cannot_be_looked_at_are_named(capsys, csm, tmp_path):
    """A name that no file can have is an error of one line."""
    long = tmp_path / (300 * "x")
    for options in (
        ["--tokenizer", long],
        ["--tokenizer", tmp_path / "no"],
        ["--codec", long, "--tokenizer", csm / "hf"],
    ):
        said = refusal(capsys, csm / "original", tmp_path / "voice", 66, *options)
        assert "File name too long" in said or f"{tmp_path / 'no'}: no such file: the tokenizer.json" in said


@pytest.mark.parametrize(
    ("name", "quant", "said"),
    [
        ("dec.up.weight", "f16", "codec: a weight [256, 32]"),
        ("q.e", "q4_0", "codec: a weight [96, 16]"),
        ("te.weight", "q8_0", "text_embeddings, rows from 0 on"),
        ("bl.1.o.weight", "f16", "backbone.gguf, tensor blk.1.attn_output.weight: F16"),
        ("db.0.dn.weight", "f16", "depth_decoder.gguf, tensor blk.0.ffn_down.weight: F16"),
        ("bl.1.o.weight", "q8_0", "backbone.gguf, tensor blk.1.attn_output.weight: Q8_0"),
        ("bl.1.o.weight", "q4_0", "backbone.gguf, tensor blk.1.attn_output.weight: Q4_0"),
        ("bl.1.o.weight", "q4_k", "backbone.gguf, tensor blk.1.attn_output.weight: Q8_0"),
    ],
)
def test_numbers_too_large_for_float16_are_refused(capsys, tensors, tmp_path, name, *, quant, said):
    """Wherever float16 is stored, scales included: no bundle of NaN, no warning of numpy's; float32 takes them."""
    value = tensors[name].clone()
    value.view(-1)[3] = 1e8
    source = save_checkpoint(tensors | {name: value}, tmp_path / "checkpoint")
    found = refusal(capsys, source, tmp_path / "voice", 66, quant=quant)
    assert f"{said}: has numbers too large for float16 (65504): convert with --quant f32" in found
    assert not (tmp_path / "voice").exists()
    assert convert(source, tmp_path / "voice", "f32") == 0
    assert not (tmp_path / "voice.part").exists()


def test_heads_that_blocks_do_not_divide_are_refused(csm, tmp_path):
    """8 bits are stored in blocks of 32: said before anything is written."""
    speech = conversion.read_checkpoint(csm / "hf")
    odd = dataclasses.replace(speech, depth_heads=speech.depth_heads[..., :40])
    with pytest.raises(ModelError, match=r"depth heads: expected a width that 32 divides, .* found 40"):
        conversion.write_bundle(odd, tmp_path / "voice", "q8_0", lambda *_: None)
    assert list(tmp_path.iterdir()) == []
