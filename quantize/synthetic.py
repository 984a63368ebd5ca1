"""Models of CSM's shape with random weights: their speech is noise, their speed and memory are the real ones.

Every weight is made when it is asked for, from the seed and its name, so a model costs no memory until it is written.
"""

import math
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from quantize.csm_config import LLAMA3
from quantize.csm_manifest import csm_manifest
from quantize.mimi_weights import MimiCodec
from quantize.random_weights import BRANCH_GAIN, Random, RandomRows
from quantize.synthetic_mimi import NUM_CODEBOOKS, random_mimi
from quantize.synthetic_shapes import SHAPES, Stack
from quantize.weights import Layer, Lazy, SpeechModel, Transformer

_VOCAB = 2051
"""Classes of a codebook: three more than it has codes."""


def synthetic(shape: str, name: str, seed: int = 0) -> SpeechModel:
    """A model of a shape in ``SHAPES`` with random weights; ``name`` is the bundle's."""
    sizes, random = SHAPES[shape], Random(seed)
    width, depth_width = sizes.backbone.width, sizes.depth_decoder.width
    codec = random_mimi(random)
    return SpeechModel(
        backbone=_transformer(random, "backbone", sizes.backbone),
        depth_decoder=_transformer(random, "depth_decoder", sizes.depth_decoder),
        codebook0_head=random.matrix("codebook0_head", _VOCAB, width),
        depth_heads=random("depth_heads", NUM_CODEBOOKS - 1, _VOCAB, depth_width, scale=1 / math.sqrt(depth_width)),
        projection=random.matrix("projection", depth_width, width),
        text_embeddings=RandomRows(random, "text", sizes.text_vocab, width, 1.0),
        # A frame is the sum of its codes' rows.
        audio_embeddings=RandomRows(random, "audio", NUM_CODEBOOKS * _VOCAB, width, 1 / math.sqrt(NUM_CODEBOOKS)),
        codec=codec,
        tokenizer=_tokenizer(sizes.begin_of_text),
        manifest=_manifest(shape, name, seed, codec),
    )


def _transformer(random: Random, part: str, sizes: Stack) -> Transformer:
    return Transformer(
        layers=Lazy(sizes.layers, lambda number: _layer(random, f"{part}.{number}", sizes)),
        output_norm=np.ones(sizes.width, np.float32),
        heads=sizes.heads,
        kv_heads=sizes.kv_heads,
        head_dim=sizes.head_dim,
        ffn=sizes.ffn,
        norm_eps=1e-5,
        rope_base=500_000.0,
        rope_scaling=LLAMA3,
        rotate_half=False,
    )


def _layer(random: Random, prefix: str, sizes: Stack) -> Layer:
    width, q, kv = sizes.width, sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    return Layer(
        attn_norm=np.ones(width, np.float32),
        attn_q=random.matrix(f"{prefix}.attn_q", q, width),
        attn_k=random.matrix(f"{prefix}.attn_k", kv, width),
        attn_v=random.matrix(f"{prefix}.attn_v", kv, width),
        attn_output=random.matrix(f"{prefix}.attn_output", width, q, BRANCH_GAIN),
        ffn_norm=np.ones(width, np.float32),
        ffn_gate=random.matrix(f"{prefix}.ffn_gate", sizes.ffn, width),
        ffn_up=random.matrix(f"{prefix}.ffn_up", sizes.ffn, width),
        ffn_down=random.matrix(f"{prefix}.ffn_down", width, sizes.ffn, BRANCH_GAIN),
    )


def _tokenizer(begin_of_text: int) -> str:
    """One token a byte, between the model's own tokens for the begin and end of text."""
    begin, end = ("<|begin_of_text|>", begin_of_text), ("<|end_of_text|>", begin_of_text + 1)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(letters)} | dict([begin, end])
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin[0]} $A {end[0]}", pair=f"{begin[0]} $A {end[0]} $B", special_tokens=[begin, end]
    )
    return str(tokenizer.to_str(pretty=True))


def _manifest(shape: str, name: str, seed: int, codec: MimiCodec) -> dict[str, Any]:
    about = f"random weights in the shape of {shape}"
    return csm_manifest(
        codec,
        about={
            "name": name,
            "description": f"{about}: its speech is noise, its speed and memory are real",
            "licence": "none: random numbers",
            "source": about,
            "revision": f"seed {seed}",
        },
        # Noise never ends by itself: it lasts as long as speech of the text would, a token being a letter.
        limits={
            "context": 2048,
            "max_text_tokens": 512,
            "seconds_per_token": 0.06,
            "min_ratio": 1.0,
            "max_ratio": 1.0,
            "slack_s": 0.0,
            "max_utterance_s": 90.0,
            "context_s": 20.0,
        },
        voices={"noise0": "noise", "noise1": "noise"},
    )
