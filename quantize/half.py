"""Numbers as they are stored: none may become infinity where float16 ends, or have been it before."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.errors import ModelError
from daemon.values import Array


def stored(values: NDArray[np.float32], what: str, *, half: bool) -> Array:
    """The numbers as float16 or as they are; ``what`` names them.

    Raises:
        ModelError: some are not finite, or too large for float16.
    """
    check_finite(values, what)
    if not half:
        return values
    with np.errstate(over="ignore"):  # is refused next
        narrow = values.astype(np.float16)
    check_half(narrow, what)
    return narrow


def check_half(narrow: NDArray[np.float16], what: str) -> None:
    """Refuse float16 numbers of which some were too large.

    Raises:
        ModelError: some were.
    """
    if not np.isfinite(narrow).all():
        raise ModelError(f"{what}: has numbers too large for float16 (65504): convert with --quant f32")


def check_finite(values: NDArray[Any], what: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        ModelError: there are some.
    """
    if not np.isfinite(values).all():
        raise ModelError(f"{what}: expected finite numbers, found NaN or infinity")
