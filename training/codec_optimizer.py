"""What moves the weights of the codec and its discriminators."""

import torch
from torch import nn


def optimizer(modules: nn.Module, rate: float) -> torch.optim.AdamW:
    """AdamW for the parameters of ``modules``, with weight decay on matrices alone."""
    parameters = [each for each in modules.parameters() if each.requires_grad]
    groups = [
        {"params": [each for each in parameters if each.ndim > 1], "weight_decay": 0.01},
        {"params": [each for each in parameters if each.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.8, 0.99), fused=True)


def move(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Move the weights by their gradients at a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
