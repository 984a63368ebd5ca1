"""torch.compile where it works and pays."""

import shutil
from collections.abc import Callable

import torch
from torch import Tensor, nn

from training.codec_config import CodecConfig


def compiled(module: nn.Module, config: CodecConfig, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The module's forward pass, compiled for the shapes it meets, if the configuration wants and the machine can."""
    if not config.compile or (device.type == "cpu" and not shutil.which("g++")):
        return module
    forward: Callable[[Tensor], Tensor] = torch.compile(module, dynamic=False)
    return forward
