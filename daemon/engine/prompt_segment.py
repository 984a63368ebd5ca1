"""What is said or heard before a text, as the model reads it."""

import hashlib
from dataclasses import dataclass

import numpy as np

from daemon.values import I32


@dataclass(frozen=True, slots=True)
class PromptSegment:
    """One turn as the backbone reads it: text, then its speech and the frame of zeros that ends it."""

    tokens: list[int]
    codes: I32 | None = None
    """int32 [T, Q]; None where only the text is known."""

    @property
    def num_frames(self) -> int:
        """T."""
        return 0 if self.codes is None else len(self.codes)

    @property
    def num_positions(self) -> int:
        """Room in the KV cache."""
        return len(self.tokens) + (0 if self.codes is None else len(self.codes) + 1)

    def digest(self) -> str:
        """A hash of the content."""
        codes = b"" if self.codes is None else np.ascontiguousarray(self.codes, np.int32).tobytes()
        return hashlib.sha256(repr((self.tokens, self.num_frames)).encode() + codes).hexdigest()
