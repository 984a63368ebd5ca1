"""What a language's tables consist of."""

from collections.abc import Callable
from re import Match

Rule = tuple[str, str | Callable[[Match[str]], str]]
"""A regex and what is read in its place."""
