"""The starter voice's checkpoint: its tensor names and constants -> neutral weights.

Source: the names and shapes in the checkpoint's lm.safetensors and codec.safetensors.
"""

import json
from typing import Any

import numpy as np

from daemon.errors import ModelError
from daemon.values import F32, SAMPLE_RATE
from quantize.checkpoint import Checkpoint
from quantize.weights import Codec, ConvNextBlock, Layer, SpeechModel, Transformer

ALPHABET = "abcdefghijklmnopqrstuvwxyz' ,.?!"
_BOS, _EOT = "<bos>", "<eot>"
_HEAD_DIM = 64
_MARKS = ("h0.weight", "hk", "bl.0.qkv.weight", "db.0.qkv.weight", "dec.o.weight", "q.e")


def recognises(checkpoint: Checkpoint) -> bool:
    """Whether most of the names that only this layout uses are there (a few may be missing by damage)."""
    return sum(name in checkpoint for name in _MARKS) > len(_MARKS) // 2


def read(checkpoint: Checkpoint) -> SpeechModel:
    """Read the whole model.

    Raises:
        ModelError: a tensor is missing or misshapen.
    """
    depth_heads = checkpoint.tensor("hk", None, None, None)  # [Q-1, Dd, C]
    num_codebooks, depth_width, codebook_size = len(depth_heads) + 1, *depth_heads.shape[1:]
    audio = checkpoint.tensor("ae.weight", num_codebooks * codebook_size, None)
    width = audio.shape[1]
    codec = _codec(checkpoint, num_codebooks, codebook_size)
    num_classes = codebook_size + 1  # the class after the last code ends speech; the checkpoint pads beyond it
    return SpeechModel(
        backbone=_transformer(checkpoint, "bl", "n.w", width),
        depth_decoder=_transformer(checkpoint, "db", "dn.w", depth_width),
        codebook0_head=_rows(checkpoint, "h0.weight", num_classes, width),
        depth_heads=np.ascontiguousarray(depth_heads.transpose(0, 2, 1)),
        projection=checkpoint.tensor("pj.weight", depth_width, width),
        text_embeddings=_rows(checkpoint, "te.weight", len(ALPHABET) + 2, width),
        audio_embeddings=audio,
        codec=codec,
        tokenizer=_tokenizer(),
        manifest=_manifest(checkpoint.revision(), codec, codebook_size),
    )


def _rows(checkpoint: Checkpoint, name: str, used: int, width: int) -> F32:
    table = checkpoint.tensor(name, None, width)
    if len(table) < used:
        raise ModelError(f"tensor {name}: expected at least {used} rows, found {len(table)}")
    return table[:used]


def _transformer(checkpoint: Checkpoint, prefix: str, norm: str, width: int) -> Transformer:
    num_layers = checkpoint.count(prefix)
    if width % _HEAD_DIM or not num_layers:
        raise ModelError(
            f"tensors {prefix}.N: expected layers of a width that {_HEAD_DIM} divides, found {num_layers} of {width}",
        )
    layers = [_layer(checkpoint, f"{prefix}.{n}", width) for n in range(num_layers)]
    return Transformer(
        layers=layers,
        output_norm=checkpoint.tensor(norm, width),
        heads=width // _HEAD_DIM,
        kv_heads=width // _HEAD_DIM,
        head_dim=_HEAD_DIM,
        ffn=len(layers[0].ffn_gate),
        norm_eps=1e-5,
        rope_base=10_000.0,
        rotate_half=True,
    )


def _layer(checkpoint: Checkpoint, prefix: str, width: int) -> Layer:
    q, k, v = np.split(checkpoint.tensor(f"{prefix}.qkv.weight", 3 * width, width), 3)
    down = checkpoint.tensor(f"{prefix}.dn.weight", width, None)
    gate, up = np.split(checkpoint.tensor(f"{prefix}.gu.weight", 2 * down.shape[1], width), 2)
    return Layer(
        attn_norm=checkpoint.tensor(f"{prefix}.n1.w", width),
        attn_q=q,
        attn_k=k,
        attn_v=v,
        attn_output=checkpoint.tensor(f"{prefix}.o.weight", width, width),
        ffn_norm=checkpoint.tensor(f"{prefix}.n2.w", width),
        ffn_gate=gate,
        ffn_up=up,
        ffn_down=down,
    )


def _codec(checkpoint: Checkpoint, num_codebooks: int, codebook_size: int) -> Codec:
    codebooks = checkpoint.tensor("q.e", num_codebooks, codebook_size, None)
    codec_input = checkpoint.tensor("dec.i.weight", None, codebooks.shape[2])
    width = len(codec_input)
    upsample = checkpoint.tensor("dec.up.weight", None, width)
    output = checkpoint.tensor("dec.o.weight", None, width)
    if len(upsample) % width or (len(output) - 2) % 4:
        raise ModelError(
            f"tensors dec.up.weight, dec.o.weight: expected a multiple of {width} rows and 4 n + 2 rows,"
            f" found {len(upsample)} and {len(output)}",
        )
    return Codec(
        codebooks=codebooks,
        input=codec_input,
        input_bias=checkpoint.tensor("dec.i.bias", width),
        frame_blocks=_blocks(checkpoint, "dec.pre", width),
        upsample=upsample,
        upsample_bias=checkpoint.tensor("dec.up.bias", len(upsample)),
        step_blocks=_blocks(checkpoint, "dec.bl", width),
        norm=checkpoint.tensor("dec.n.weight", width),
        norm_bias=checkpoint.tensor("dec.n.bias", width),
        output=output,
        output_bias=checkpoint.tensor("dec.o.bias", len(output)),
        max_log_magnitude=6.0,
        log_magnitude_shift=-1.0,
        overlap_gain=1.5,
    )


def _blocks(checkpoint: Checkpoint, prefix: str, width: int) -> list[ConvNextBlock]:
    return [_block(checkpoint, f"{prefix}.{n}", width) for n in range(checkpoint.count(prefix))]


def _block(checkpoint: Checkpoint, prefix: str, width: int) -> ConvNextBlock:
    expand = checkpoint.tensor(f"{prefix}.a.weight", None, width)
    scale = checkpoint.tensor(f"{prefix}.g", width)
    return ConvNextBlock(
        conv=checkpoint.tensor(f"{prefix}.dw.weight", width, 1, None)[:, 0],
        conv_bias=checkpoint.tensor(f"{prefix}.dw.bias", width),
        norm=checkpoint.tensor(f"{prefix}.n.weight", width),
        norm_bias=checkpoint.tensor(f"{prefix}.n.bias", width),
        expand=expand,
        expand_bias=checkpoint.tensor(f"{prefix}.a.bias", len(expand)),
        contract=checkpoint.tensor(f"{prefix}.b.weight", width, len(expand)) * scale[:, None],
        contract_bias=checkpoint.tensor(f"{prefix}.b.bias", width) * scale,
    )


def _tokenizer() -> str:
    """One token a character; BPE without merges drops what the alphabet lacks and never sees special names."""
    bos, eot = len(ALPHABET), len(ALPHABET) + 1
    single = [
        {"SpecialToken": {"id": _BOS, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": _EOT, "type_id": 0}},
    ]
    special = {name: {"id": name, "ids": [number], "tokens": [name]} for name, number in ((_BOS, bos), (_EOT, eot))}
    vocabulary = {letter: number for number, letter in enumerate(ALPHABET)} | {_BOS: bos, _EOT: eot}
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": {"type": "Lowercase"},
            "pre_tokenizer": None,
            "post_processor": {
                "type": "TemplateProcessing",
                "single": single,
                "pair": [*single, {"Sequence": {"id": "B", "type_id": 0}}],
                "special_tokens": special,
            },
            "decoder": None,
            "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
        },
        indent=1,
    )


def _manifest(revision: str, codec: Codec, codebook_size: int) -> dict[str, Any]:
    return {
        "name": "starter",
        "family": "csm",
        "description": "English in one voice: small, for announcements; made by this project",
        "licence": "Apache-2.0; the speech it was trained on was made with flite's voice slt (CMU, free licence)",
        "source": "trained from nothing by this project on speech of flite -voice slt",
        "revision": revision,
        "default_voice": "slt",
        "audio": {
            "sample_rate": SAMPLE_RATE,
            "frame_rate": SAMPLE_RATE / codec.samples_per_frame,
            "num_codebooks": len(codec.codebooks),
            "codebook_size": codebook_size,
        },
        # Greedy for both parts gave the fewest word errors.
        "sampling": {"temperature": 0.0, "top_k": 50, "depth_temperature": 0.0, "depth_top_k": 50},
        # 84 characters were the longest in training. On 200 held-out sentences this voice took 0.045 to 0.075 s a
        # token, short words ("ok.") 0.1 s; spelled letters come near 0.12 s.
        "limits": {
            "context": 256,
            "max_text_tokens": 86,
            "seconds_per_token": 0.058,
            "min_ratio": 0.5,
            "max_ratio": 2.2,
            "slack_s": 0.8,
            "max_utterance_s": 90.0,
        },
        "stop": {"kind": "code", "code": codebook_size},
        "codec": {"delay_samples": codec.delay_samples, "flush_state": "overlap"},
        "prompt": {"template": "{text}"},
        "text": {"alphabet": ALPHABET},
        "voices": {"slt": {"description": "American English, female", "language": "en", "speaker": 0}},
    }
