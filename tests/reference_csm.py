"""CSM with random weights in transformers' implementation: what conversions are compared with, and its checkpoints.

The small shape keeps the true one's topology: head sizes, groups of heads, RoPE scaling, codec stages and strides.
"""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from transformers import CsmConfig, CsmForConditionalGeneration, MimiConfig, initialization

from quantize.verify_reference import quiet

BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
AUDIO, AUDIO_EOS = "<|AUDIO|>", "<|audio_eos|>"
SMALL_SPECIALS = {BOS: 296, EOS: 297, AUDIO: 298, AUDIO_EOS: 299}
"""The ids of the small tokenizer's special tokens."""
TEXT = "The quick brown fox, 12.5 times a second. [0]Hello there! It's 7 o'clock: tea, bread and cheese? "


def _rope(low: float, high: float, original: int) -> dict[str, float | str]:
    """The real configuration's numbers: the same frequencies as factors 1 and 4 of 8192."""
    return {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 32.0,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }


def true_config(*, tied: bool = True) -> CsmConfig:
    """The configuration of sesame/csm-1b."""
    return CsmConfig(
        rope_parameters=_rope(0.125, 0.5, 1024),
        depth_decoder_config={"rope_parameters": _rope(0.001953125, 0.0078125, 16)},
        tie_codebooks_embeddings=tied,
        codec_config=MimiConfig().to_dict(),
    )


def small_config(*, tied: bool = True) -> CsmConfig:
    """Sizes that a test can afford."""
    return CsmConfig(
        num_codebooks=8,
        vocab_size=67,
        text_vocab_size=300,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        codebook_pad_token_id=66,
        bos_token_id=SMALL_SPECIALS[BOS],
        pad_token_id=SMALL_SPECIALS[AUDIO],
        audio_token_id=SMALL_SPECIALS[AUDIO],
        audio_eos_token_id=SMALL_SPECIALS[AUDIO_EOS],
        rope_parameters=_rope(0.125, 0.5, 1024),
        tie_codebooks_embeddings=tied,
        depth_decoder_config={
            "num_codebooks": 8,
            "backbone_hidden_size": 256,
            "vocab_size": 67,
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 128,
            "max_position_embeddings": 33,
            "rope_parameters": _rope(0.001953125, 0.0078125, 16),
        },
        codec_config=small_codec_config().to_dict(),
    )


def small_codec_config(*, num_quantizers: int = 8, sliding_window: int = 20) -> MimiConfig:
    """Mimi with few channels: the window is passed after ten frames."""
    return MimiConfig(
        hidden_size=64,
        num_filters=4,
        codebook_size=64,
        codebook_dim=32,
        vector_quantization_hidden_dimension=32,
        num_quantizers=num_quantizers,
        upsample_groups=64,
        num_hidden_layers=2,
        intermediate_size=128,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=16,
        sliding_window=sliding_window,
    )


def small_model(seed: int = 0, *, tied: bool = True) -> CsmForConditionalGeneration:
    """A small model in float32 whose signals keep their size; untied, the two tables of audio embeddings differ."""
    with quiet():
        return _random(small_config(tied=tied), seed)


def true_model(seed: int = 0) -> CsmForConditionalGeneration:
    """The true shapes in float32 (1.7 billion numbers, 7 GB), every one a bfloat16 number: saves as such unchanged."""
    with quiet():
        model = _random(true_config(), seed)
    with torch.no_grad():
        for parameter in model.parameters():
            for part in parameter.data.split(1 << 12):
                part.copy_(part.bfloat16())
    return model


def _random(config: CsmConfig, seed: int) -> CsmForConditionalGeneration:
    with initialization.no_init_weights():
        model = CsmForConditionalGeneration(config)
    model.tie_weights()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        randomize_codec(model.codec_model, generator)
        for name, parameter in model.named_parameters():
            if not name.startswith("codec_model."):
                mean, scale = _spread(name, parameter, config)
                parameter.normal_(mean, scale, generator=generator)
        real = (
            config.codec_config.codebook_size
        )  # the classes beyond are no codes: a trained model does not choose them
        model.lm_head.weight[real:] *= 0.05
        model.depth_decoder.codebooks_head.weight[:, :, real:] *= 0.05
    return model.eval()


def _spread(name: str, parameter: Tensor, config: CsmConfig) -> tuple[float, float]:
    """Mean and standard deviation that keep hidden states near 1 and logits well apart."""
    if "norm" in name:
        return 1.0, 0.1
    if name in ("lm_head.weight", "depth_decoder.codebooks_head.weight"):  # the latter is [Q-1, Dd, V]
        return 0.0, 3 * parameter.shape[1] ** -0.5
    if name == "embed_text_tokens.weight":
        return 0.0, 1.0
    if "embed" in name and "projector" not in name:  # a frame is the sum of Q rows
        return 0.0, config.num_codebooks**-0.5
    if "q_proj" in name or "k_proj" in name:  # attention that prefers some positions
        return 0.0, 1.5 * parameter.shape[1] ** -0.5
    return 0.0, parameter.shape[1] ** -0.5


def randomize_codec(codec: torch.nn.Module, generator: torch.Generator) -> None:
    """Fill a Mimi's parameters and codebooks in place so that sound is near 0.1 and codes vary."""
    for name, parameter in codec.named_parameters():
        mean, scale = _codec_spread(name, parameter)
        parameter.normal_(mean, scale, generator=generator)
    for name, module in codec.named_modules():
        if hasattr(module, "embed_sum"):
            number = int(name.split("layers.")[1].split(".")[0])
            size = module.embed_sum.shape[1] ** -0.5 * 3 * 0.8**number  # each codebook refines the ones before
            module.cluster_usage.uniform_(0.5, 4.0, generator=generator)
            module.embed_sum.normal_(0, size, generator=generator).mul_(module.cluster_usage[:, None])
            module.initialized.fill_(1)
            module._embed = None
    codec.decoder.decoder_seanet.layers[-1].conv.weight.mul_(0.05)
    codec.decoder.decoder_seanet.layers[-1].conv.bias.mul_(0.05)
    codec.encoder.encoder_seanet.layers[0].conv.weight.mul_(8)  # sound is quiet: bring it to 1


def _codec_spread(name: str, parameter: Tensor) -> tuple[float, float]:
    if name.endswith("bias"):
        return 0.0, 0.1
    if "layer_scale" in name:
        return 0.3, 0.05
    if "norm" in name:
        return 1.0, 0.1
    if "upsample" in name:  # depthwise: two taps make one output
        return 0.0, 0.5**0.5
    if "decoder_seanet" in name and parameter.shape[0] == 2 * parameter.shape[1] and parameter.shape[2] > 7:
        return 0.0, (1.5 / (2 * parameter.shape[0])) ** 0.5  # transposed [in, out, 2 * stride]
    gain = 1.5 if "seanet" in name else 1.0  # ELU takes some
    return 0.0, (gain / math.prod(parameter.shape[1:])) ** 0.5


def save_hf(
    model: CsmForConditionalGeneration,
    folder: Path,
    *,
    shards: int = 1,
    tied: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write transformers' layout with config.json, in about ``shards`` files.

    ``tied=False`` writes both tables of audio embeddings even where they are one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: value.to(dtype) if value.is_floating_point() and "codebook." not in name else value
        for name, value in model.state_dict().items()
    }
    size = sum(value.nbytes for value in state.values())
    with quiet():
        untie = {} if tied else {"tie_codebooks_embeddings": False, "tie_word_embeddings": False}
        saved, keys = dict(vars(model.config)), model.all_tied_weights_keys
        try:
            vars(model.config).update(untie)
            if not tied:
                model.all_tied_weights_keys = {}
                state = {name: value.clone() if "embed" in name else value for name, value in state.items()}
            model.save_pretrained(folder, state_dict=state, max_shard_size=size if shards == 1 else -(-size // shards))
        finally:
            vars(model.config).update({name: saved[name] for name in untie})
            model.all_tied_weights_keys = keys
    return folder


_TORCHTUNE = {
    "input_layernorm.weight": "sa_norm.scale",
    "post_attention_layernorm.weight": "mlp_norm.scale",
    "self_attn.o_proj.": "attn.output_proj.",
    "self_attn.": "attn.",
    "mlp.gate_proj.": "mlp.w1.",
    "mlp.down_proj.": "mlp.w2.",
    "mlp.up_proj.": "mlp.w3.",
    "backbone_model.norm.weight": "backbone.norm.scale",
    "backbone_model.layers": "backbone.layers",
    "backbone_model.embed_tokens.embed_audio_tokens": "audio_embeddings",
    "depth_decoder.model.norm.weight": "decoder.norm.scale",
    "depth_decoder.model.layers": "decoder.layers",
    "depth_decoder.model.inputs_embeds_projector": "projection",
    "depth_decoder.codebooks_head.weight": "audio_head",
    "embed_text_tokens": "text_embeddings",
    "lm_head": "codebook0_head",
}
"""Source: huggingface/transformers@ca630e6a, src/transformers/models/csm/convert_csm.py, the other way round."""


def torchtune_state(model: CsmForConditionalGeneration) -> dict[str, Tensor]:
    """The weights by the names and in the RoPE layout of Sesame's own checkpoint, codec left out."""
    state = {}
    for name, value in model.state_dict().items():
        if name.startswith("codec_model.") or name == "depth_decoder.model.embed_tokens.weight":
            continue
        config = model.config if name.startswith("backbone_model.") else model.config.depth_decoder_config
        renamed = name
        for old, new in _TORCHTUNE.items():
            renamed = renamed.replace(old, new)
        if "q_proj" in name or "k_proj" in name:
            halves = value.reshape(-1, 2, config.head_dim // 2, value.shape[1])
            value = halves.transpose(1, 2).reshape(value.shape)  # noqa: PLW2901  # the same weight, pairs side by side
        state[renamed] = value.contiguous()
    return state


def save_torchtune(model: CsmForConditionalGeneration, folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """Write Sesame's layout: model.safetensors and config.json; the codec as kyutai/mimi in ``folder / "mimi"``."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.to(dtype) for name, value in torchtune_state(model).items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "audio_num_codebooks": model.config.num_codebooks,
        "audio_vocab_size": model.config.vocab_size,
        "backbone_flavor": "llama-1B",
        "decoder_flavor": "llama-100M",
        "text_vocab_size": model.config.text_vocab_size,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    with quiet():
        model.codec_model.save_pretrained(folder / "mimi")
    return folder


def small_tokenizer(folder: Path, *, first_special: int = SMALL_SPECIALS[BOS]) -> Path:
    """Write tokenizer.json in Llama 3's manner: byte-level BPE, special tokens added, only BOS put in front.

    The true model's special tokens begin at 128000; entries that no text gives fill the vocabulary up to there.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    merges = []
    for word in ("\u0120the", "\u0120and", "ello", "\u0120be", "er", "in", "on", "at", "ing", "\u0120to", "ou", "ed"):
        for end in range(2, len(word) + 1):
            merge = (word[: end - 1], word[end - 1])
            if merge not in merges and len(vocabulary) < first_special:
                merges.append(merge)
                vocabulary.setdefault("".join(merge), len(vocabulary))
    while len(vocabulary) < first_special:
        vocabulary[f"\u0120\u0120{len(vocabulary)}"] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SMALL_SPECIALS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A {BOS} $B:1",
        special_tokens=[(BOS, first_special)],
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return path
