"""What the reference gives for one prompt, as arrays: once they are measured, the reference can leave memory."""

from dataclasses import dataclass

import numpy as np

from daemon.engine.bundle import Manifest
from daemon.values import F32, Array

SPEAKER = 0
CONTEXT_TEXT = "The kettle has boiled, and dinner is nearly ready."
"""Said by the recording that comes before the text."""
TEXT = "The front door has been open for ten minutes."
CONTEXT_FRAMES = 24
"""Of random codes: with the texts, enough positions for a wrong rotary frequency to show."""


LARGEST, SPAN = 2.39, 4.20
"""Largest magnitude, and span from least to largest, of 32 normally distributed numbers (root mean square)."""
EIGHT_BITS = LARGEST / 127 / 12**0.5
"""Relative error of rounding to 127 steps of the largest magnitude of a block of 32."""


@dataclass(frozen=True, slots=True)
class Storage:
    """How the parts of a bundle are stored, by the types of ``recipes.QUANT_TYPES``."""

    backbone: str
    depth_decoder: str

    @classmethod
    def of(cls, manifest: Manifest) -> "Storage":
        """As the manifest says."""
        return cls(manifest.recipe, manifest.depth_storage)

    @property
    def exact(self) -> bool:
        """Whether everything is float32, which is also when the engine computes without shortcuts."""
        return self.backbone == self.depth_decoder == "f32"

    @property
    def half(self) -> bool:
        """Whether tables and codec are float16."""
        return self.backbone != "f32"

    @property
    def quantized_heads(self) -> bool:
        """Whether the heads of codebooks 1 to Q - 1 have 8-bit weights."""
        return self.backbone not in ("f32", "f16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """The reference's inputs and outputs, stage by stage.

    N positions: a context segment's text, its Tc frames and a frame of zeros, then the text, then the T frames that the
    reference itself chose, greedily.
    """

    context_ids: list[int]
    context_codes: Array
    """int64 [Tc, Q]."""
    text_ids: list[int]
    codes: Array
    """int64 [T, Q]."""
    inputs: F32
    """[N, D]."""
    hidden: F32
    """[N, D], after the final norm."""
    logits0: F32
    """[T, V], from the positions before each frame."""
    projected: F32
    """[T, Dd], likewise."""
    depth_inputs: F32
    """[T, Q, Dd]: ``projected``, then the projected embeddings of codebooks 0 to Q - 2."""
    depth_hidden: F32
    """[T, Q - 1, Dd]: what the heads of codebooks 1 to Q - 1 read."""
    depth_logits: F32
    """[T, Q - 1, V]."""
    pcm: F32
    """[S], ``codes`` decoded at once."""
    audio: F32
    """[S], what the encoder hears."""
    audio_codes: Array
    """int64 [T, Q], what it makes of it."""
    disturbance: dict[str, float]
    """Part -> how far off it is under rounding noise of its storage type; float32 parts have none."""

    @property
    def prompt_length(self) -> int:
        """Positions before the first frame of ``codes``."""
        return len(self.inputs) - len(self.codes)

    @property
    def frames(self) -> Array:
        """All frames among ``inputs``, int64 [Tc + 1 + T, Q]."""
        return np.vstack([self.context_codes, np.zeros_like(self.context_codes[:1]), self.codes])

    @property
    def is_frame(self) -> Array:
        """Which of ``inputs`` are frames, bool [N]."""
        spoken = len(self.context_ids) + np.arange(len(self.context_codes) + 1)
        mask = np.zeros(len(self.inputs), np.bool_)
        mask[spoken] = mask[self.prompt_length :] = True
        return mask


def relative_error(found: Array, expected: Array) -> float:
    """Norm of the difference over the norm of what was expected."""
    expected = np.asarray(expected, np.float64)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def worst_error(found: Array, expected: Array) -> float:
    """The largest relative error of any vector along the last axis."""
    expected = np.asarray(expected, np.float64)
    return float((np.linalg.norm(found - expected, axis=-1) / np.linalg.norm(expected, axis=-1)).max())
