"""How whatever takes long tells how far it is."""

from collections.abc import Callable

Tick = Callable[[int, int], None]
"""Called with how much of a thing is done, and how much there is of it."""
Progress = Callable[[str, int, int], None]
"""Likewise, with the thing's name first."""


def no_tick(_done: int, _total: int) -> None:
    """Nobody looks."""


def no_progress(_name: str, _done: int, _total: int) -> None:
    """Likewise."""
