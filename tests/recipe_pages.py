"""The code blocks of the documents, for the tests that keep them true."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "docs" / "recipes"
README = ROOT / "README.md"
_FENCE = re.compile(r"^```(?P<language>\w+) ?(?P<argument>[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A fenced block; ``argument`` is what follows its language."""

    language: str
    argument: str
    text: str


def blocks(page: Path, language: str) -> list[Block]:
    """The page's blocks in that language; there is at least one."""
    found = [Block(*match.groups()) for match in _FENCE.finditer(page.read_text(encoding="utf-8"))]
    wanted = [block for block in found if block.language == language]
    assert wanted, f"no {language} in {page.name}"
    return wanted
