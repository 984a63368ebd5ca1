"""Sesame's own layout as transformers' model, written without the converter's help so that it can judge it.

Source: huggingface/transformers@ca630e6a, src/transformers/models/csm/convert_csm.py; SesameAILabs/csm models.py
(revision 2d72082) for the flavours; torchtune 0.4.0 for the rotary embedding.
"""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import CsmConfig, CsmForConditionalGeneration, MimiModel

from daemon.errors import ModelError

_NAMES = (
    (r"^text_embeddings\.", "embed_text_tokens."),
    (r"^audio_embeddings\.", "backbone_model.embed_tokens.embed_audio_tokens."),
    (r"^codebook0_head\.", "lm_head."),
    (r"^projection\.", "depth_decoder.model.inputs_embeds_projector."),
    (r"^audio_head$", "depth_decoder.codebooks_head.weight"),
    (r"^backbone\.", "backbone_model."),
    (r"^decoder\.", "depth_decoder.model."),
    (r"\.sa_norm\.scale$", ".input_layernorm.weight"),
    (r"\.mlp_norm\.scale$", ".post_attention_layernorm.weight"),
    (r"\.norm\.scale$", ".norm.weight"),
    (r"\.attn\.output_proj\.", ".self_attn.o_proj."),
    (r"\.attn\.([qkv])_proj\.", r".self_attn.\1_proj."),
    (r"\.mlp\.w1\.", ".mlp.gate_proj."),
    (r"\.mlp\.w2\.", ".mlp.down_proj."),
    (r"\.mlp\.w3\.", ".mlp.up_proj."),
)
_HEAD_DIM = {"backbone": 64, "decoder": 128}
"""Of both flavours, llama-1B and llama-100M."""
_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def load(files: list[Path], codec: Path | None) -> CsmForConditionalGeneration:
    """The model of Sesame's safetensors files, with the codec from its own folder (transformers' layout).

    Raises:
        ModelError: the codec is missing.
    """
    folder = _codec_folder(files[0].parent, codec)
    mimi, notes = MimiModel.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
    )
    if notes["missing_keys"]:
        raise ModelError(f"{folder}: not a checkpoint of Mimi: no tensor {min(notes['missing_keys'])}")
    state: dict[str, Tensor] = {}
    for file in files:
        for name, value in load_file(file).items():
            state[_renamed(name)] = _halves(name, value.float())
    state["depth_decoder.model.embed_tokens.weight"] = state["backbone_model.embed_tokens.embed_audio_tokens.weight"]
    state |= {f"codec_model.{name}": value for name, value in mimi.state_dict().items()}
    config = _config(state, mimi.config)
    return CsmForConditionalGeneration.from_pretrained(None, config=config, state_dict=state, dtype=torch.float32)


def _renamed(name: str) -> str:
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _halves(name: str, weight: Tensor) -> Tensor:
    """Rows of q and k from pairs (2i, 2i + 1) to halves (i, i + head_dim / 2); other tensors as they are."""
    part = re.match(r"(backbone|decoder)\..*\.[qk]_proj\.", name)
    if part is None:
        return weight
    half = _HEAD_DIM[part[1]] // 2
    return weight.reshape(-1, half, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def _config(state: dict[str, Tensor], codec: Any) -> CsmConfig:
    heads = state["depth_decoder.codebooks_head.weight"]
    backbone = _sizes(state, "backbone_model", _HEAD_DIM["backbone"])
    depth = _sizes(state, "depth_decoder.model", _HEAD_DIM["decoder"])
    shared = {"num_codebooks": heads.shape[0] + 1, "vocab_size": heads.shape[2], "rope_parameters": _ROPE}
    return CsmConfig(
        **backbone,
        **shared,
        text_vocab_size=len(state["embed_text_tokens.weight"]),
        depth_decoder_config={**depth, **shared, "backbone_hidden_size": backbone["hidden_size"]},
        codec_config=codec.to_dict(),
    )


def _sizes(state: dict[str, Tensor], prefix: str, head_dim: int) -> dict[str, int]:
    layers = {name.split(".layers.")[1].split(".")[0] for name in state if name.startswith(f"{prefix}.layers.")}
    ffn, width = state[f"{prefix}.layers.0.mlp.gate_proj.weight"].shape
    query, key = (len(state[f"{prefix}.layers.0.self_attn.{matrix}_proj.weight"]) for matrix in "qk")
    return {
        "hidden_size": width,
        "intermediate_size": ffn,
        "num_hidden_layers": len(layers),
        "num_attention_heads": query // head_dim,
        "num_key_value_heads": key // head_dim,
        "head_dim": head_dim,
    }


def _codec_folder(beside: Path, codec: Path | None) -> Path:
    """The folder with the codec's config.json: as given, or "mimi" beside the checkpoint."""
    if codec is None and not (beside / "mimi").is_dir():
        raise ModelError(f"{beside}: no codec in it; give --codec, the folder of kyutai/mimi in transformers' layout")
    folder = codec or beside / "mimi"
    folder = folder if folder.is_dir() else folder.parent
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: no config.json; the reference takes the codec in transformers' layout (--codec)")
    return folder
