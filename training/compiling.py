"""torch.compile where it works and pays."""

import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from training.runner import Run


def compiled(run: Run, *modules: nn.Module, wanted: bool) -> list[Callable[[Tensor], Tensor]]:
    """The modules' forward passes, compiled for the shapes they meet, if that is wanted and can be."""
    if not can_compile(run, wanted=wanted):
        return list(modules)
    return [torch.compile(module, dynamic=False) for module in modules]


def can_compile(run: Run, *, wanted: bool) -> bool:
    """Whether that is wanted and what torch.compile calls is there; says what is not."""
    missing = _missing(run.device) if wanted else ""
    if missing and run.rank == 0:
        print(f"training: {missing} not found: nothing is compiled, and every step takes longer", file=sys.stderr)
    return wanted and not missing


def _missing(device: torch.device) -> str:
    if device.type == "cpu":
        return "" if shutil.which("g++") else "g++"
    if find_spec("triton") is None:
        return "triton"
    # Triton builds what calls its kernels.
    return "" if shutil.which("gcc") or shutil.which("clang") else "a C compiler"
