"""The sizes of synthetic models; needs no library, so that --help can list them without the extra."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stack:
    """The sizes of one transformer."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a model; what is not here is the same in all."""

    backbone: Stack
    depth_decoder: Stack
    text_vocab: int
    begin_of_text: int
    """Its token; the next one ends the text."""


SHAPES = {
    "csm-1b": Shape(Stack(16, 2048, 32, 8, 64, 8192), Stack(4, 1024, 8, 2, 128, 8192), 128_256, 128_000),
    "csm-small": Shape(Stack(8, 512, 8, 2, 64, 2048), Stack(4, 256, 2, 1, 128, 2048), 2048, 2000),
}
"""Source: SesameAILabs/csm models.py (revision 2d72082).

The small one has its topology and its codec, with transformers of a thirtieth.
"""
