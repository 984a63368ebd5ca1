"""Mimi with random weights in transformers' implementation, saved by either publisher's names; and its exports run."""

import math
import re
from pathlib import Path

import numpy as np
import torch
from reference_csm import randomize_codec, small_codec_config
from safetensors.torch import load_file, save_file
from transformers import MimiConfig, MimiModel, initialization

from daemon.values import F32, Array
from quantize.verify_reference import quiet

FRAME = 1920


def mimi_model(config: MimiConfig, seed: int = 0) -> MimiModel:
    """A model of this shape in float32."""
    with quiet():
        with initialization.no_init_weights():
            model = MimiModel(config)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            randomize_codec(model, generator)
            latents = model.encoder(torch.from_numpy(random_sound(4))[:, None]).latents
            for quantizer in quantizers(model):
                _fit(quantizer, latents, generator)
    return model.eval()


def quantizers(model: MimiModel) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Semantic and acoustic."""
    both = model.quantizer
    return both.semantic_residual_vector_quantizer, both.acoustic_residual_vector_quantizer


def _fit(quantizer: torch.nn.Module, latents: torch.Tensor, generator: torch.Generator) -> None:
    """Codebooks of the size of what is left for each, as training makes them; one vector of each was never used.

    Without it the later codebooks are tiny beside what they refine, and the nearest vector is a matter of rounding.
    """
    quantizer.input_proj.weight /= quantizer.input_proj(latents).norm(dim=1).mean()
    num_codes, width = quantizer.layers[0].codebook.embed_sum.shape
    explained = 2 * math.log(num_codes) / width  # of the square, by the best of random vectors
    for number, layer in enumerate(quantizer.layers):
        book = layer.codebook
        size = (explained / width) ** 0.5 * max(1 - explained, 0.5) ** (number / 2)
        book.embed_sum.normal_(0, size, generator=generator).mul_(book.cluster_usage[:, None])
        book.embed_sum[3], book.cluster_usage[3] = 1e-6 * size, 1e-7


def small_mimi(seed: int = 0, *, window: int = 20) -> MimiModel:
    """All of Mimi's topology and strides with few channels."""
    return mimi_model(small_codec_config(sliding_window=window), seed)


def save_transformers(model: MimiModel, folder: Path) -> Path:
    """kyutai/mimi's layout: model.safetensors and config.json."""
    with quiet():
        model.save_pretrained(folder)
    return folder


_MOSHI_NAMES = (
    (r"^(encoder|decoder)\.layers\.", r"\1.model."),
    (r"^(encoder\.model\..*)conv\.(weight|bias)$", r"\1conv.conv.\2"),
    (r"^(decoder\.model\.(?:0|14)\.)conv\.", r"\1conv.conv."),
    (r"^(decoder\.model\.\d+\.block\.\d\.)conv\.", r"\1conv.conv."),
    (r"^(decoder\.model\.\d+\.)conv\.(weight|bias)$", r"\1convtr.convtr.\2"),
    (r"^downsample\.conv\.", "downsample.conv.conv.conv."),
    (r"^upsample\.conv\.", "upsample.convtr.convtr.convtr."),
    (r"^(\w+_transformer)\.layers", r"\1.transformer.layers"),
    (r"mlp\.fc(\d)", r"linear\1"),
    (r"self_attn\.o_proj", "self_attn.out_proj"),
    (r"input_layernorm", "norm1"),
    (r"post_attention_layernorm", "norm2"),
    (r"self_attn_layer_scale", "layer_scale_1"),
    (r"mlp_layer_scale", "layer_scale_2"),
    (r"semantic_residual_vector_quantizer", "rvq_first"),
    (r"acoustic_residual_vector_quantizer", "rvq_rest"),
    (r"(rvq_\w+)\.layers\.(\d+)\.codebook\.initialized", r"\1.vq.layers.\2._codebook._initialized"),
    (r"(rvq_\w+)\.layers\.(\d+)\.codebook", r"\1.vq.layers.\2._codebook"),
    (r"embed_sum", "embedding_sum"),
)
"""Source: transformers, convert_mimi_checkpoint_to_pytorch.py, the other way round; four stages."""


def save_moshi(model: MimiModel, folder: Path) -> Path:
    """One file by moshi's names: q, k and v in one tensor, rotary pairs side by side."""
    state, moshi = load_file(save_transformers(model, folder / "named") / "model.safetensors"), {}
    for name in [name for name in state if name.endswith("q_proj.weight")]:
        parts = [state.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        for part in (0, 1):
            halves = parts[part].reshape(model.config.num_attention_heads, 2, -1, parts[part].shape[1])
            parts[part] = halves.swapaxes(1, 2).reshape(parts[part].shape)
        state[name.replace("q_proj.weight", "in_proj_weight")] = torch.cat(parts)
    for name, value in state.items():
        renamed = name
        for pattern, replacement in _MOSHI_NAMES:
            renamed = re.sub(pattern, replacement, renamed)
        moshi[renamed] = value.contiguous()
    path = folder / "tokenizer-e351c8d8-checkpoint125.safetensors"
    save_file(moshi, path)
    return path


def random_codes(model: MimiModel, num_frames: int, seed: int = 1) -> Array:
    """Codes int64 [1, Q, T]."""
    shape = (1, model.config.num_quantizers, num_frames)
    return np.random.default_rng(seed).integers(model.config.codebook_size, size=shape)


def random_sound(num_frames: int, seed: int = 2) -> F32:
    """Noise that comes and goes over a falling tone, float32 [1, S], near 0.1."""
    rng = np.random.default_rng(seed)
    time = np.arange(num_frames * FRAME) / 24_000
    noise = rng.standard_normal(len(time)) * (1 + np.sin(7 * time)) * 0.05
    return (noise + 0.1 * np.sin(2 * np.pi * 800 * np.sqrt(1 + time)))[None].astype(np.float32)


@torch.no_grad()
def decode(model: MimiModel, codes: Array) -> F32:
    """The reference's samples float32 [S] of codes int64 [1, Q, T], all at once."""
    return model.decode(torch.from_numpy(codes)).audio_values[0, 0].numpy()


@torch.no_grad()
def encode(model: MimiModel, pcm: F32) -> Array:
    """The reference's codes int64 [1, Q, T] of samples float32 [1, S]."""
    return model.encode(torch.from_numpy(pcm)[:, None]).audio_codes.numpy()


def zero_states(session) -> dict[str, Array]:
    """The states of the start of speech."""
    dtypes = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
    return {
        entry.name: np.zeros(entry.shape, dtypes[entry.type]) for entry in session.get_inputs() if entry.name != "codes"
    }


def stream(session, codes: Array, groups: list[int], states: dict[str, Array] | None = None) -> F32:
    """Samples float32 [S] of codes int64 [1, Q, T] decoded in groups of these many frames."""
    names = [entry.name for entry in session.get_outputs()]
    states = states or zero_states(session)
    pieces, start = [], 0
    for size in groups:
        feeds = {"codes": codes[..., start : start + size], **states}
        outputs = dict(zip(names, session.run(None, feeds), strict=True))
        states = {name: outputs[f"{name}_next"] for name in states}
        pieces.append(outputs["pcm"][0])
        start += size
    return np.concatenate(pieces)
