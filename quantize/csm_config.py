"""What no tensor's shape tells of CSM's transformers, and whether config.json agrees with the shapes."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from daemon.errors import ModelError
from quantize.checkpoint import Checkpoint
from quantize.weights import RopeScaling

_CONTEXT = 2048
"""Positions that CSM-1B was trained with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackConfig:
    """One transformer's constants."""

    heads: int | None = None
    """None: as many as the rows of the projections make."""
    kv_heads: int | None = None
    head_dim: int
    norm_eps: float = 1e-5
    rope_base: float = 500_000.0
    rope_scaling: RopeScaling | None


LLAMA3 = RopeScaling(factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192)
"""What Llama 3.2 scales its rotary frequencies by.

Source: torchtune 0.4.0 ``llama3_2``.
"""
_FLAVORS = {
    "llama-1B": StackConfig(head_dim=64, rope_scaling=LLAMA3),
    "llama-100M": StackConfig(head_dim=128, rope_scaling=LLAMA3),
}
"""Source: SesameAILabs/csm models.py (revision 2d72082)."""


class Config:
    """config.json, or a table of it, with messages that name the file and the key.

    Attributes:
        values: what it holds.
        where: what stands before a key in messages.
    """

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values = values
        self.where = where

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "Config":
        """The whole of a checkpoint's config.json."""
        return cls(checkpoint.config, f"{checkpoint.config_file}: ")

    def table(self, *keys: str) -> "Config":
        """The first of these keys that holds a table; empty where none does.

        Raises:
            ModelError: one holds something else.
        """
        for key in keys:
            value = self.values.get(key)
            if isinstance(value, dict):
                return Config(value, f"{self.where}{key}.")
            if value is not None:
                raise self._error(key, "a table", value)
        return Config({}, f"{self.where}{keys[0]}.")

    def text(self, key: str, default: str) -> str:
        """A word.

        Raises:
            ModelError: it is none.
        """
        value = self.values.get(key, default)
        if not isinstance(value, str):
            raise self._error(key, "a word", value)
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A positive number; null counts as absent.

        Raises:
            ModelError: it is none, or absent without a default.
        """
        value = self.values.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise self._error(key, "a positive number", value)
        return value

    def whole(self, key: str, default: int | None = None) -> int:
        """A positive whole number; null counts as absent.

        Raises:
            ModelError: it is none, or absent without a default.
        """
        value = self.number(key, default)
        if value != int(value):
            raise self._error(key, "a whole number", value)
        return int(value)

    def require(self, key: str, only: object) -> None:
        """Refuse any value but ``only``, where there is one.

        Raises:
            ModelError: there is another.
        """
        if self.values.get(key, only) != only:
            raise self._error(key, repr(only), self.values[key])

    def agree(self, key: str, tensor: str, found: int) -> None:
        """Refuse a number that contradicts what was found in a tensor's shape; absent is no contradiction.

        Raises:
            ModelError: it does.
        """
        if self.values.get(key) not in (None, found):
            raise self._error(key, f"{found} by {tensor}", self.values[key])

    def rope_scaling(self) -> RopeScaling | None:
        """The scaling in a table of rotary parameters.

        Raises:
            ModelError: it is of a kind that is not known.
        """
        kind = self.text("rope_type", self.text("type", "default"))
        if kind == "default":
            return None
        if kind != "llama3":
            raise self._error("rope_type", "llama3 or default", kind)
        low, high = self.number("low_freq_factor"), self.number("high_freq_factor")
        if low >= high:
            raise self._error("high_freq_factor", f"more than {low}", high)
        return RopeScaling(
            factor=self.number("factor"),
            low_freq_factor=low,
            high_freq_factor=high,
            original_context=self.whole("original_max_position_embeddings"),
        )

    def stack(self, width: int, *, heads: int, kv_heads: int) -> StackConfig:
        """The constants of the transformer of this width that the table describes.

        Args:
            width: of the hidden state.
            heads: of queries, where the table does not say.
            kv_heads: of keys and values, likewise.

        Raises:
            ModelError: a value is of the wrong type, or asks for what CSM does not have.

        Source: transformers 5.23.0, models/csm/configuration_csm.py; before version 5, ``rope_theta`` and
        ``rope_scaling`` stood where ``rope_parameters`` is now.
        """
        for key, only in (("hidden_act", "silu"), ("attention_bias", False), ("mlp_bias", False)):
            self.require(key, only)
        heads = self.whole("num_attention_heads", heads)
        rope = self.table("rope_parameters", "rope_scaling")
        return StackConfig(
            heads=heads,
            kv_heads=self.whole("num_key_value_heads", kv_heads),
            head_dim=self.whole("head_dim", max(1, width // heads)),
            norm_eps=self.number("rms_norm_eps", 1e-5),
            rope_base=rope.number("rope_theta", self.number("rope_theta", 500_000.0)),
            rope_scaling=rope.rope_scaling(),
        )

    def flavor(self, key: str, usual: str) -> StackConfig:
        """The constants of a transformer that Sesame's configuration names.

        Raises:
            ModelError: the name is not known.
        """
        name = self.text(key, usual)
        if name not in _FLAVORS:
            raise self._error(key, " or ".join(_FLAVORS), name)
        return _FLAVORS[name]

    def context(self) -> int:
        """Positions of the backbone: as configured, but no more than the model was trained with.

        Raises:
            ModelError: fewer than a segment takes.
        """
        context = min(self.whole("max_position_embeddings", _CONTEXT), _CONTEXT)
        if context < 64:
            raise self._error("max_position_embeddings", "at least 64", context)
        return context

    def revision(self) -> str | None:
        """A hash over what it says, to tell one from another; None where it says nothing."""
        if not self.values:
            return None
        text = json.dumps(self.values, sort_keys=True)
        return f"config sha256:{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def _error(self, key: str, expected: str, found: object) -> ModelError:
        return ModelError(f"{self.where}{key}: expected {expected}, found {found!r}")
