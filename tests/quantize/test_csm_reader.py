"""Reading CSM: both public layouts are the same model, and whatever is wrong with one is named."""

import json
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import reference_csm
import torch
from reference_csm import save_hf, save_torchtune, small_model, small_tokenizer, torchtune_state
from safetensors.torch import load_file, save_file
from transformers import MimiModel

from daemon.engine.bundle import REQUIRED, Manifest
from daemon.errors import ModelError
from quantize import csm
from quantize.checkpoint import Checkpoint, TensorRows
from quantize.convert import project_depth_embeddings
from quantize.weights import Layer, RopeScaling

HEADS = {"backbone": (4, 2, 64), "depth_decoder": (2, 1, 128)}
CODEBOOKS, CLASSES, WIDTH = 8, 67, 256


@pytest.fixture(scope="module")
def model():
    """Random weights; the depth decoder uses the backbone's table."""
    return small_model(3)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """tokenizer.json as it is published."""
    return small_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def hf(model, tmp_path_factory):
    """A folder in transformers' layout."""
    return save_hf(model, tmp_path_factory.mktemp("hf"))


@pytest.fixture(scope="module")
def original(model, tmp_path_factory):
    """A folder in Sesame's layout with its codec in ``mimi``."""
    return save_torchtune(model, tmp_path_factory.mktemp("original"))


@pytest.fixture
def damaged(hf, tmp_path):
    """Write transformers' layout with other tensors or another configuration."""

    def write(tensors=(), config=()):
        state = load_file(hf / "model.safetensors") | dict(tensors)
        save_file({name: value for name, value in state.items() if value is not None}, tmp_path / "model.safetensors")
        values = {key: value for key, value in (hf_config(hf) | dict(config)).items() if value != "absent"}
        (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
        return tmp_path

    return write


def hf_config(folder: Path) -> dict:
    """What transformers wrote."""
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def read(folder, tokenizer, codec=None, name="voice"):
    """The model in a folder."""
    checkpoint = Checkpoint(folder)
    assert csm.recognises(checkpoint)
    return csm.read(checkpoint, name, codec=codec, tokenizer=tokenizer)


def refusal(folder, tokenizer, codec=None) -> str:
    """The one line that is said when a folder is refused."""
    with pytest.raises(ModelError) as caught:
        read(folder, tokenizer, codec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def halves_to_pairs(weight, num_heads):
    """Rows of a projection by transformers -> by torchtune: dimension i and i + half a head become neighbours."""
    head_dim = len(weight) // num_heads
    order = [
        head * head_dim + half * head_dim // 2 + i
        for head in range(num_heads)
        for i in range(head_dim // 2)
        for half in (0, 1)
    ]
    return weight[order]


def assert_same_model(one, other):
    """Every weight of the first, whose q and k rotate halves, is that of the second, whose rotate pairs."""
    for part, (heads, kv_heads, head_dim) in HEADS.items():
        a, b = getattr(one, part), getattr(other, part)
        assert (a.rotate_half, b.rotate_half) == (True, False)
        assert (a.heads, a.kv_heads, a.head_dim, a.ffn, a.width) == (heads, kv_heads, head_dim, 512, WIDTH)
        for field in ("heads", "kv_heads", "head_dim", "ffn", "width", "norm_eps", "rope_base"):
            assert getattr(a, field) == getattr(b, field), field
        divisors = [stack.rope_scaling.divisors(stack.rope_base, head_dim) for stack in (a, b)]
        np.testing.assert_allclose(divisors[0], divisors[1], rtol=1e-6)
        np.testing.assert_array_equal(a.output_norm, b.output_norm)
        assert len(a.layers) == len(b.layers) == 2
        for left, right in zip(a.layers, b.layers, strict=True):
            for field in Layer.__dataclass_fields__:
                value = getattr(left, field)
                if field in ("attn_q", "attn_k"):
                    value = halves_to_pairs(value, heads if field == "attn_q" else kv_heads)
                np.testing.assert_array_equal(value, getattr(right, field), err_msg=field)
    for field in ("codebook0_head", "depth_heads", "projection"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
    for field in ("text_embeddings", "audio_embeddings"):
        np.testing.assert_array_equal(getattr(one, field)[:], getattr(other, field)[:])


def test_both_layouts_are_the_same_model(hf, original, tokenizer):
    """Read from either, the weights are equal but for the order of q's and k's rows; so are codec and manifest."""
    one, other = read(hf, tokenizer), read(original, tokenizer, original / "mimi")
    assert_same_model(one, other)
    np.testing.assert_array_equal(one.codec.acoustic.codebooks, other.codec.acoustic.codebooks)
    assert one.codec.decoder_transformer.window == other.codec.decoder_transformer.window == 20
    differing = {"source", "revision"}
    assert {key: one.manifest[key] for key in one.manifest.keys() - differing} == {
        key: other.manifest[key] for key in other.manifest.keys() - differing
    }


def test_weights_are_the_model_s(model, hf, tokenizer):
    """Every tensor is where the model has it; heads have one row a class."""
    speech, state = read(hf, tokenizer), model.state_dict()
    np.testing.assert_array_equal(speech.codebook0_head, state["lm_head.weight"])
    np.testing.assert_array_equal(
        speech.depth_heads, state["depth_decoder.codebooks_head.weight"].transpose(1, 2).numpy()
    )
    assert speech.depth_heads.flags.c_contiguous
    np.testing.assert_array_equal(speech.text_embeddings[:], state["embed_text_tokens.weight"])
    table = state["backbone_model.embed_tokens.embed_audio_tokens.weight"]
    np.testing.assert_array_equal(speech.audio_embeddings[:], table)
    assert speech.audio_embeddings.shape == (CODEBOOKS * CLASSES, WIDTH)
    np.testing.assert_array_equal(
        speech.projection, state["depth_decoder.model.inputs_embeds_projector.weight"].numpy()
    )
    layer = speech.depth_decoder.layers[1]
    for field, name in (
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_down", "mlp.down_proj"),
        ("attn_output", "self_attn.o_proj"),
    ):
        np.testing.assert_array_equal(getattr(layer, field), state[f"depth_decoder.model.layers.1.{name}.weight"])


def test_rotary_frequencies_are_the_reference_s(model, hf, tokenizer):
    """Base and scaling give what transformers computes."""
    speech = read(hf, tokenizer)
    for stack, module in ((speech.backbone, model.backbone_model), (speech.depth_decoder, model.depth_decoder.model)):
        plain = stack.rope_base ** (-np.arange(0, stack.head_dim, 2) / stack.head_dim)
        found = plain / stack.rope_scaling.divisors(stack.rope_base, stack.head_dim)
        np.testing.assert_allclose(found, module.rotary_emb.inv_freq.numpy(), rtol=1e-6)


@pytest.mark.parametrize(("shards", "tied"), [(3, True), (1, False), (2, False)])
def test_shards_and_copies_of_the_table_do_not_matter(model, tokenizer, tmp_path, shards, tied):
    """In several files, and with the table of audio embeddings written twice, it is the same model."""
    folder = save_hf(model, tmp_path / "other", shards=shards, tied=tied)
    assert (len(list(folder.glob("*.safetensors"))) > 1) == (shards > 1)
    one, other = read(save_hf(model, tmp_path / "one"), tokenizer), read(folder, tokenizer)
    np.testing.assert_array_equal(one.audio_embeddings[:], other.audio_embeddings[:])
    assert one.depth_audio_embeddings is None
    assert (other.depth_audio_embeddings is None) == tied
    np.testing.assert_array_equal(one.backbone.layers[1].attn_q, other.backbone.layers[1].attn_q)
    np.testing.assert_array_equal(one.depth_decoder.layers[0].ffn_up, other.depth_decoder.layers[0].ffn_up)


@pytest.mark.parametrize("kept", [0, 1])
def test_tied_table_may_have_either_name(model, damaged, tokenizer, kept):
    """Versions of transformers differ in which of the two names they write."""
    names = ("backbone_model.embed_tokens.embed_audio_tokens.weight", "depth_decoder.model.embed_tokens.weight")
    table = model.state_dict()[names[0]]
    speech = read(damaged({names[kept]: table, names[1 - kept]: None}), tokenizer)
    np.testing.assert_array_equal(speech.audio_embeddings[:], table)
    assert speech.depth_audio_embeddings is None


def test_two_tables_are_both_kept(tokenizer, tmp_path):
    """Untied, the backbone and the depth decoder each read their own."""
    model = small_model(4, tied=False)
    speech = read(save_hf(model, tmp_path), tokenizer)
    state = model.state_dict()
    backbone = state["backbone_model.embed_tokens.embed_audio_tokens.weight"].numpy()
    depth = state["depth_decoder.model.embed_tokens.weight"].numpy()
    assert not np.array_equal(backbone, depth)
    np.testing.assert_array_equal(speech.audio_embeddings[:], backbone)
    np.testing.assert_array_equal(speech.depth_audio_embeddings[:], depth)
    projected = project_depth_embeddings(speech)[:]
    np.testing.assert_allclose(
        projected, depth[: (CODEBOOKS - 1) * CLASSES] @ speech.projection.T, rtol=1e-5, atol=1e-5
    )


def test_hub_s_folder_of_both_layouts_is_read_once(model, hf, tokenizer, tmp_path):
    """sesame/csm-1b holds Sesame's file and transformers' shards: the latter are read, and without them the former."""
    save_torchtune(model, tmp_path / "o")
    save_hf(model, tmp_path / "t", shards=2)
    folder = tmp_path / "hub"
    folder.mkdir()
    (tmp_path / "o" / "model.safetensors").rename(folder / "model.safetensors")
    (tmp_path / "t" / "config.json").rename(folder / "config.json")
    index = json.loads((tmp_path / "t" / "model.safetensors.index.json").read_text(encoding="utf-8"))
    for shard in set(index["weight_map"].values()):
        (tmp_path / "t" / shard).rename(folder / shard.replace("model-", "transformers-"))
    index["weight_map"] = {key: file.replace("model-", "transformers-") for key, file in index["weight_map"].items()}
    (folder / "transformers.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    speech = read(folder, tokenizer)
    assert "transformers" in speech.manifest["source"]
    assert speech.backbone.rotate_half
    for shard in set(index["weight_map"].values()):
        (folder / shard).unlink()
    other = read(folder, tokenizer, tmp_path / "o" / "mimi")
    assert "Sesame" in other.manifest["source"]
    assert_same_model(read(hf, tokenizer), other)


def test_bfloat16_is_read(model, tokenizer, tmp_path):
    """A checkpoint in bfloat16 has the model's weights, rounded."""
    speech = read(save_hf(model, tmp_path, dtype=torch.bfloat16), tokenizer)
    expected = model.state_dict()["backbone_model.layers.0.mlp.up_proj.weight"].bfloat16().float()
    np.testing.assert_array_equal(speech.backbone.layers[0].ffn_up, expected)


def test_old_spelling_of_the_rotary_configuration_is_read(hf, damaged, tokenizer):
    """Before version 5 rope_theta and rope_scaling stood beside each other."""
    config = hf_config(hf)

    def old(table):
        rope = table["rope_parameters"]
        scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
        return table | {"rope_theta": 20_000, "rope_scaling": scaling, "rope_parameters": "absent"}

    depth = {key: value for key, value in old(config["depth_decoder_config"]).items() if value != "absent"}
    speech = read(damaged(config=old(config) | {"depth_decoder_config": depth}), tokenizer)
    assert (speech.backbone.rope_base, speech.depth_decoder.rope_base) == (20_000, 20_000)
    assert speech.backbone.rope_scaling == RopeScaling(
        factor=32, low_freq_factor=0.125, high_freq_factor=0.5, original_context=1024
    )
    assert speech.depth_decoder.rope_scaling.original_context == 16


def test_plain_rotation_is_read(damaged, tokenizer):
    """Without a scaling there is none; the base is the usual."""
    speech = read(damaged(config={"rope_parameters": None}), tokenizer)
    assert (speech.backbone.rope_base, speech.backbone.rope_scaling) == (500_000.0, None)


def manifest(speech) -> Manifest:
    """As the daemon reads it from a finished bundle."""
    file = {"path": "file", "bytes": 1, "sha256": 64 * "0"}
    rest = {"format_version": 1, "recipe": "f32", "files": dict.fromkeys(REQUIRED, file)}
    return Manifest.model_validate(speech.manifest | rest)


def test_manifest_is_one(hf, tokenizer):
    """The daemon accepts it; a code is one of the codec's, and the longest segment and speech fit the context."""
    found = manifest(read(hf, tokenizer, name="csm"))
    assert (found.name, found.family, found.default_voice) == ("csm", "csm", "speaker0")
    assert (found.audio.num_codebooks, found.audio.codebook_size, found.audio.samples_per_frame) == (8, 64, 1920)
    assert (found.stop.kind, found.codec.delay_samples, found.prompt.template) == ("zero_frame", 0, "[{speaker}]{text}")
    assert [found.voices[name].speaker for name in ("speaker0", "speaker1")] == [0, 1]
    assert found.revision.startswith("sha256:")
    limits = found.limits
    used = limits.max_text_tokens + (limits.max_utterance_s + limits.context_s) * found.audio.frame_rate
    assert (limits.context, limits.context_s) == (2048, 20.0)
    assert used < limits.context


@pytest.mark.parametrize("context", [64, 300, 1024])
def test_shorter_contexts_shorten_what_fills_them(damaged, tokenizer, context):
    """A model of a shorter context takes shorter texts and speaks shorter."""
    limits = manifest(read(damaged(config={"max_position_embeddings": context}), tokenizer)).limits
    assert limits.context == context
    assert limits.max_text_tokens + (limits.max_utterance_s + limits.context_s) * 12.5 < context


def test_longer_contexts_are_not_believed(damaged, tokenizer):
    """CSM was trained with 2048 positions."""
    assert manifest(read(damaged(config={"max_position_embeddings": 9999}), tokenizer)).limits.context == 2048


def test_revision_tells_codecs_and_commits_apart(original, tokenizer, tmp_path):
    """Commit, where there is one, content and configuration: of the checkpoint, and of a codec that is apart."""
    commits = [40 * "a", 40 * "b"]
    folders = [tmp_path / str(number) / "snapshots" / commit for number, commit in enumerate(commits)]
    for folder, source in zip(folders, (original, original / "mimi"), strict=True):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").symlink_to(source / "model.safetensors")
    (folders[1] / "config.json").symlink_to(original / "mimi" / "config.json")
    revision = read(folders[0], tokenizer, folders[1]).manifest["revision"]
    shas = [Checkpoint(folder).revision() for folder in folders]
    config = revision.rpartition(" config sha256:")[2]
    assert len(config) == 16
    assert revision == f"{commits[0]} {shas[0]}, codec {commits[1]} {shas[1]} config sha256:{config}"
    plain = read(original, tokenizer, original / "mimi").manifest["revision"]
    assert plain.startswith(f"{shas[0]} config sha256:")
    assert plain.endswith(f", codec {shas[1]} config sha256:{config}")
    assert plain.count("config") == 2


def test_nothing_large_is_read_early(hf, tokenizer, monkeypatch):
    """Layers and embeddings are read when they are used, one at a time; all shapes are checked without."""
    seen = []
    whole = Checkpoint._read

    def spy(self, name, rows=None):
        seen.append(name)
        return whole(self, name, rows)

    monkeypatch.setattr(Checkpoint, "_read", spy)
    speech = read(hf, tokenizer)
    assert not [name for name in seen if ".layers." in name and not name.startswith("codec_model.")]
    assert not [
        name for name in seen if "embed" in name and not name.startswith(("codec_model.", "depth_decoder.model.inputs"))
    ]
    assert isinstance(speech.text_embeddings, TensorRows)
    seen.clear()
    assert speech.backbone.layers[1].attn_q.shape == (256, 256)
    assert len(seen) == 9
    assert all(name.startswith("backbone_model.layers.1.") for name in seen)


HEAD = "depth_decoder.codebooks_head.weight"
QUERY = "backbone_model.layers.1.self_attn.q_proj.weight"


ROPE = {
    "rope_type": "llama3",
    "factor": 32,
    "low_freq_factor": 0.125,
    "high_freq_factor": 1,
    "original_max_position_embeddings": 8192,
}
TEXT = "embed_text_tokens.weight"
PROJECTION = "depth_decoder.model.inputs_embeds_projector.weight"
TABLE = "depth_decoder.model.embed_tokens.weight"


@pytest.mark.parametrize(
    "name",
    [QUERY, HEAD, TEXT, PROJECTION, "lm_head.weight", "depth_decoder.model.norm.weight",
     "depth_decoder.model.layers.0.mlp.down_proj.weight", "codec_model.decoder.layers.0.conv.weight"],
)  # fmt: skip
@pytest.mark.parametrize("fault", ["missing", "flat"])
def test_missing_and_flat_tensors_are_named(hf, damaged, tokenizer, name, fault):
    """Tensor, expected and found."""
    value = load_file(hf / "model.safetensors")[name]
    broken = None if fault == "missing" else value.reshape(-1, *[1] * (value.ndim == 1))
    found = "no such tensor" if fault == "missing" else f"{list(broken.shape)}"
    said = refusal(damaged({name: broken}), tokenizer)
    assert said.startswith(f"tensor {name}: expected [")
    assert f"found {found} in " in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (QUERY, f"tensor {QUERY}: expected [256, 256], found [255, 256]"),
        (HEAD, f"tensor {TABLE}: expected [469, 256], found [536, 256]"),
        (TABLE, f"tensor {TABLE}: expected [536, 256], found [535, 256]"),
        (TEXT, f"text_vocab_size: expected 299 by tensor {TEXT}, found 300"),
        (PROJECTION, f"tensor {HEAD}: expected [any, 255, any], found [7, 256, 67]"),
        ("lm_head.weight", "tensor lm_head.weight: expected [67, 256], found [66, 256]"),
        ("backbone_model.norm.weight", "tensor backbone_model.norm.weight: expected [256], found [255]"),
        (QUERY.replace("q_", "k_"), "expected [128, 256], found [127, 256]"),
        ("depth_decoder.model.layers.0.mlp.gate_proj.weight", "mlp.up_proj.weight: expected [511, 256], found [512"),
    ],
)
def test_misshapen_tensors_are_named(hf, damaged, tokenizer, name, said):
    """One row too few: named, or what is then too large is."""
    short = load_file(hf / "model.safetensors")[name][:-1].contiguous()
    assert said in refusal(damaged({name: short}), tokenizer)


def test_missing_table_is_named(damaged, tokenizer):
    """Neither of its names is there."""
    said = refusal(damaged({"depth_decoder.model.embed_tokens.weight": None}), tokenizer)
    assert "tensor backbone_model.embed_tokens.embed_audio_tokens.weight: expected [536, 256], found no such" in said


@pytest.mark.parametrize("name", ["lm_head.weight", HEAD, "depth_decoder.model.norm.weight"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_named(hf, damaged, tokenizer, name, value):
    """What is read at once is noticed at once."""
    broken = load_file(hf / "model.safetensors")[name].clone()
    broken.reshape(-1)[5] = value
    assert f"tensor {name}: expected finite numbers" in refusal(damaged({name: broken}), tokenizer)


def test_layer_of_no_numbers_is_named_when_it_is_read(hf, damaged, tokenizer):
    """What is read later is noticed then."""
    broken = load_file(hf / "model.safetensors")[QUERY].clone()
    broken[3, 3] = torch.nan
    speech = read(damaged({QUERY: broken}), tokenizer)
    assert speech.backbone.layers[0].attn_q.shape == (256, 256)
    with pytest.raises(ModelError, match=f"tensor {QUERY}: expected finite numbers"):
        speech.backbone.layers[1]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"num_attention_heads": 8}, f"num_attention_heads 8 of head_dim 64: expected 512 rows in tensor {QUERY}"),
        ({"head_dim": 32}, "num_attention_heads 4 of head_dim 32: expected 128 rows in tensor"),
        ({"num_key_value_heads": 4}, "num_key_value_heads 4 of head_dim 64: expected 256 rows in tensor"),
        ({"num_hidden_layers": 3}, "num_hidden_layers: expected 2 by the tensors backbone_model.layers.N, found 3"),
        ({"hidden_size": 512}, "hidden_size: expected 256 by tensor backbone_model.norm.weight, found 512"),
        ({"intermediate_size": 9}, "intermediate_size: expected 512 by tensor"),
        ({"num_codebooks": 32}, f"num_codebooks: expected 8 by tensor {HEAD}, found 32"),
        ({"vocab_size": 2051}, f"vocab_size: expected 67 by tensor {HEAD}, found 2051"),
        ({"text_vocab_size": 128256}, "text_vocab_size: expected 300 by tensor embed_text_tokens.weight, found 128256"),
        ({"num_attention_heads": "four"}, "num_attention_heads: expected a positive number, found 'four'"),
        ({"num_attention_heads": True}, "num_attention_heads: expected a positive number, found True"),
        ({"num_attention_heads": 2.5}, "num_attention_heads: expected a whole number, found 2.5"),
        ({"rms_norm_eps": -1}, "rms_norm_eps: expected a positive number, found -1"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps: expected a positive number, found nan"),
        ({"hidden_act": "gelu"}, "hidden_act: expected 'silu', found 'gelu'"),
        ({"attention_bias": True}, "attention_bias: expected False, found True"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type: expected llama3 or default, found 'yarn'"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "factor: expected a positive number, found None"),
        ({"rope_parameters": ROPE | {"low_freq_factor": 4}}, "high_freq_factor: expected more than 4, found 1"),
        ({"rope_parameters": 7}, "rope_parameters: expected a table, found 7"),
        ({"depth_decoder_config": [1]}, "depth_decoder_config: expected a table, found [1]"),
        ({"depth_decoder_config": {"num_codebooks": 9}}, "depth_decoder_config.num_codebooks: expected 8 by tensor"),
        ({"depth_decoder_config": {}}, "depth_decoder_config.num_key_value_heads 2 of head_dim 32: expected 64"),
        ({"max_position_embeddings": 10}, "max_position_embeddings: expected at least 64, found 10"),
        ({"codec_config": "mimi"}, "codec_config: expected a table, found 'mimi'"),
        ({"codec_config": {"num_attention_heads": 5}}, "codec_model."),
    ],
)  # fmt: skip
def test_configuration_that_contradicts_the_tensors_is_refused(damaged, tokenizer, config, said):
    """The file, the key, what the tensors say and what it says."""
    found = refusal(damaged(config=config), tokenizer)
    assert said.replace(QUERY, QUERY.replace("layers.1", "layers.0")) in found
    assert "config.json" in found or "codec_model." in said


def test_head_size_follows_from_width_and_number(damaged, tokenizer):
    """Where config.json does not say it."""
    config = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": None}
    assert read(damaged(config=config), tokenizer).backbone.head_dim == 128


def test_transformers_layout_needs_its_configuration(damaged, tokenizer):
    """Only config.json says how many heads the rows are."""
    folder = damaged()
    (folder / "config.json").unlink()
    assert str(folder / "config.json") in refusal(folder, tokenizer)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"backbone_flavor": "llama-3B"}, "backbone_flavor: expected llama-1B or llama-100M, found 'llama-3B'"),
        ({"decoder_flavor": 5}, "decoder_flavor: expected a word, found 5"),
        ({"audio_num_codebooks": 32}, "audio_num_codebooks: expected 8 by tensor audio_head, found 32"),
        ({"audio_vocab_size": 2051}, "audio_vocab_size: expected 67 by tensor audio_head, found 2051"),
        ({"text_vocab_size": 128256}, "text_vocab_size: expected 300 by tensor text_embeddings.weight, found 128256"),
    ],
)
def test_sesame_s_configuration_is_compared_as_well(model, tokenizer, tmp_path, config, said):
    """A flavour that is not known, and numbers that contradict the tensors."""
    folder = save_torchtune(model, tmp_path)
    (folder / "config.json").write_text(json.dumps(hf_config(folder) | config), encoding="utf-8")
    assert said in refusal(folder, tokenizer, folder / "mimi")


def test_heads_that_do_not_divide_are_refused(model, original, tokenizer, tmp_path):
    """In Sesame's layout the number of heads follows from the rows."""
    state = torchtune_state(model)
    for rows, said in (
        (100, "expected 64 rows in tensor"),
        (192, "expected a number of heads that divides 4, found 3"),
    ):
        kv = {f"backbone.layers.{n}.attn.{p}_proj.weight": torch.zeros(rows, 256) for n in (0, 1) for p in "kv"}
        save_file(state | kv, tmp_path / "model.safetensors")
        assert said in refusal(tmp_path, tokenizer, original / "mimi")


def test_the_shard_that_would_have_had_the_codec_is_named(model, original, tokenizer, tmp_path):
    """Half a download of transformers' layout beside Sesame's file: not only that a codec is wanted."""
    folder = save_hf(model, tmp_path, shards=2)
    shards = sorted(folder.glob("model-*.safetensors"))
    shards[0].unlink()
    shutil.copy(original / "model.safetensors", folder)
    shutil.copy(original / "config.json", folder)
    said = refusal(folder, tokenizer)
    assert f"holds no codec ({shards[0]}, of a checkpoint that may have one, is missing)" in said
    assert "with --codec" in said


def test_codec_is_asked_for(model, original, hf, tokenizer, tmp_path):
    """Sesame's layout has none; a wrong one is refused, transformers' CSM and a single file will do."""
    assert "with --codec" in refusal(original, tokenizer)
    assert "no *.safetensors file" in refusal(original, tokenizer, tmp_path)
    assert "its tensor names are not those of Mimi" in refusal(original, tokenizer, original)
    for codec in (hf, original / "mimi" / "model.safetensors"):
        assert read(original, tokenizer, codec).codec.num_codebooks == CODEBOOKS
    with reference_csm.quiet():
        MimiModel(reference_csm.small_codec_config(num_quantizers=6)).save_pretrained(tmp_path)
    said = refusal(original, tokenizer, tmp_path)
    assert "codec: expected 8 codebooks of at most 67 by tensor audio_head, found 6 of 64" in said


def test_other_checkpoints_are_not_recognised(original, tmp_path):
    """The codec alone, or one tensor of the same name, is not CSM."""
    assert not csm.recognises(Checkpoint(original / "mimi"))
    save_file({"lm_head.weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    assert not csm.recognises(Checkpoint(tmp_path))


@pytest.mark.slow
def test_true_shapes_are_read_in_little_memory(tmp_path):
    """Reading the 1.6 billion weights of CSM-1B takes no more than its heads do; one layer after another, two."""
    shapes = true_shapes()
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:  # holes: zeros that take no place on the disk
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    with reference_csm.quiet():
        MimiModel(reference_csm.small_codec_config(num_quantizers=32)).save_pretrained(tmp_path / "mimi")
    tokenizer = small_tokenizer(tmp_path, first_special=128_000)
    tracemalloc.start()
    speech = csm.read(Checkpoint(tmp_path), "csm", codec=tmp_path / "mimi", tokenizer=tokenizer)
    read_peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    held = tracemalloc.get_traced_memory()[0]
    for _ in speech.backbone.layers:
        pass
    print(f"read {read_peak / 1e6:.0f} MB, a layer {(tracemalloc.get_traced_memory()[1] - held) / 1e6:.0f} MB")
    layer_peak = tracemalloc.get_traced_memory()[1] - held
    tracemalloc.stop()
    assert (len(speech.backbone.layers), speech.backbone.heads, speech.backbone.kv_heads) == (16, 32, 8)
    assert (speech.depth_decoder.heads, speech.depth_decoder.kv_heads) == (8, 2)
    assert speech.text_embeddings.shape == (128_256, 2048)
    assert read_peak < 800e6
    assert layer_peak < 600e6


def true_shapes() -> dict[str, list[int]]:
    """By Sesame's names. Source: SesameAILabs/csm models.py."""
    shapes = {
        "text_embeddings.weight": [128_256, 2048],
        "audio_embeddings.weight": [32 * 2051, 2048],
        "codebook0_head.weight": [2051, 2048],
        "audio_head": [31, 1024, 2051],
        "projection.weight": [1024, 2048],
        "backbone.norm.scale": [2048],
        "decoder.norm.scale": [1024],
    }
    for prefix, layers, width, kv in (("backbone", 16, 2048, 512), ("decoder", 4, 1024, 256)):
        for number in range(layers):
            shapes |= {
                f"{prefix}.layers.{number}.{name}": shape
                for name, shape in {
                    "sa_norm.scale": [width],
                    "mlp_norm.scale": [width],
                    "attn.q_proj.weight": [width, width],
                    "attn.k_proj.weight": [kv, width],
                    "attn.v_proj.weight": [kv, width],
                    "attn.output_proj.weight": [width, width],
                    "mlp.w1.weight": [8192, width],
                    "mlp.w3.weight": [8192, width],
                    "mlp.w2.weight": [width, 8192],
                }.items()
            }
    return shapes
