"""The checkpoint of a voice made by training/: its tensor names and configuration -> neutral weights.

Source: training/lm_model.py, training/codec_model.py and training/export.py, which write them.
"""

from typing import Any

import numpy as np

from daemon.errors import ModelError
from daemon.values import F32, SAMPLE_RATE
from quantize.checkpoint import Checkpoint
from quantize.starter_config import StarterConfig, read_config
from quantize.starter_tokenizer import character_tokenizer
from quantize.weights import Codec, ConvNextBlock, Layer, SpeechModel, Transformer

_HEAD_DIM = 64
_MARKS = ("h0.weight", "hk", "bl.0.qkv.weight", "db.0.qkv.weight", "dec.o.weight", "q.e")


def recognises(checkpoint: Checkpoint) -> bool:
    """Whether most of the names that only this layout uses are there (a few may be missing by damage)."""
    return sum(name in checkpoint for name in _MARKS) > len(_MARKS) // 2


def read(checkpoint: Checkpoint) -> SpeechModel:
    """Read the whole model.

    Raises:
        ModelError: a tensor is missing or misshapen, or config.json is.
    """
    config = read_config(checkpoint)
    tokens = len(config.alphabet) + 2 + len(config.speakers)
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
        text_embeddings=_rows(checkpoint, "te.weight", tokens, width),
        audio_embeddings=audio,
        codec=codec,
        tokenizer=character_tokenizer(config.alphabet, len(config.speakers)),
        manifest=_manifest(config, checkpoint.revision(), codec, codebook_size),
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


def _manifest(config: StarterConfig, revision: str, codec: Codec, codebook_size: int) -> dict[str, Any]:
    return {
        "name": config.name,
        "family": "csm",
        "description": config.description,
        "licence": config.licence,
        "source": config.source,
        "revision": revision,
        "default_voice": config.default_voice,
        "audio": {
            "sample_rate": SAMPLE_RATE,
            "frame_rate": SAMPLE_RATE / codec.samples_per_frame,
            "num_codebooks": len(codec.codebooks),
            "codebook_size": codebook_size,
        },
        "sampling": config.sampling.model_dump(),
        "limits": config.limits.model_dump(),
        "stop": {"kind": "code", "code": codebook_size},
        "codec": {"delay_samples": codec.delay_samples, "flush_state": "overlap"},
        "prompt": {"template": "[{speaker}]{text}", "bidirectional": config.bidirectional},
        "text": {"alphabet": config.alphabet},
        "voices": {
            speaker.name: {"description": speaker.description, "language": speaker.language, "speaker": number}
            for number, speaker in enumerate(config.speakers)
        },
    }
