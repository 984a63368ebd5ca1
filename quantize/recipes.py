"""How the parts of a bundle can be stored; needs no library, so that --help can list it without the extra."""

from dataclasses import dataclass

QUANT_TYPES = ("f32", "f16", "q8_0", "q4_0", "q4_k")
"""Types of most matrices, llama.cpp's names in small letters; ``gguf_writer.tensor_type`` knows the exceptions."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How each part of a bundle is stored."""

    backbone: str
    """One of ``QUANT_TYPES``."""
    depth_decoder: str
    """Likewise: unless asked for otherwise at least Q8_0, because it suffers most from fewer bits (models.md 1.6)."""
    head_bits: int
    half: bool
    """Tables and codec as float16."""


RECIPES = {
    "f32": Recipe("f32", "f32", 32, half=False),
    "f16": Recipe("f16", "f16", 32, half=True),
    "q8_0": Recipe("q8_0", "q8_0", 8, half=True),
    "q4_0": Recipe("q4_0", "q8_0", 8, half=True),
    "q4_k": Recipe("q4_k", "q8_0", 8, half=True),
}
