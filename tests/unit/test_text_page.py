"""docs/text.md: every example on the page is what happens."""

import re
import tomllib
from pathlib import Path

import pytest

from daemon.config import Config
from daemon.errors import BadRequestError
from daemon.text.language import Language
from daemon.text.languages import find_language
from daemon.text.lexicon import load_lexicon
from daemon.text.normalize import Normalizer
from daemon.text.script import ScriptSegmenter
from daemon.text.ssml import _ATTRIBUTES

PAGE = (Path(__file__).parents[2] / "docs" / "text.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """What stands under a heading."""
    return re.split(r"^## ", PAGE.split(f"## {title}\n")[1], flags=re.MULTILINE)[0]


def rows(title: str) -> list[list[str]]:
    """The cells of its tables that hold examples, without their backticks."""
    lines = [line for line in section(title).splitlines() if line.startswith("|") and "`" in line]
    return [[cell.strip(" `") for cell in line[1:-1].split("|")] for line in lines]


def blocks(title: str) -> list[str]:
    """Its blocks of code."""
    return re.findall(r"```\w+\n(.*?)```", section(title), flags=re.DOTALL)


@pytest.mark.parametrize(("_category", "raw", "expected"), rows("Examples"))
def test_examples(_category: str, raw: str, expected: str) -> None:
    """The table by category."""
    assert Normalizer()(raw) == expected


@pytest.mark.parametrize(("raw", "expected"), rows("Emoji"))
def test_emoji(raw: str, expected: str) -> None:
    """Their names."""
    assert Normalizer(emoji="name")(raw) == expected


@pytest.mark.parametrize(("language", "raw", "expected"), rows("Another language"))
def test_other_languages(language: str, raw: str, expected: str) -> None:
    """Numbers alone."""
    assert Normalizer(language=language)(raw) == expected


def test_lexicon_and_config(tmp_path: Path) -> None:
    """Both files are good, and the words are read as they say."""
    words, config = blocks("A lexicon: your own words")
    path = tmp_path / "lexicon.toml"
    path.write_text(words, encoding="utf-8")
    lexicon = load_lexicon(path)
    assert lexicon.apply("Ms. Nguyen is, umm, in the Living Room") == "Ms. win is, , in the lounge"
    assert Config.model_validate(tomllib.loads(config)).text.lexicon == "/etc/crier/lexicon.toml"


def test_ssml() -> None:
    """The document is read; each element and value in the table is known."""
    segmenter = ScriptSegmenter(Normalizer(), len, 200)
    segments = segmenter.push(blocks("SSML")[0]) + segmenter.flush()
    assert [segment.text or segment.pause_s for segment in segments] == [
        *("The front door is open.", 0.7, "Since seven thirty P M."),
        *("Your code is four zero seven one.", "Brought to you by the home assistant."),
    ]
    assert {(segment.rate, segment.volume) for segment in segments} == {(1.0, 100), (0.75, 50)}
    table = [line for line in section("SSML").splitlines() if line.startswith("| `")]
    elements = [element for line in table for element in re.findall("`([^`]+)`", line.split(" | ")[0])]
    assert sorted(elements) == sorted(_ATTRIBUTES)
    said = next(line for line in table if "say-as" in line)
    english: Language = find_language("en")
    assert set(english.say_as) - set(re.findall("`([^`]+)`", said)) <= {"bleep"}


@pytest.mark.parametrize(("element", "attribute"), [("break", "strength"), ("prosody", "rate"), ("prosody", "volume")])
def test_values_of_ssml(element: str, attribute: str) -> None:
    """What the table names is taken, with the number beside it."""
    line = next(line for line in section("SSML").splitlines() if line.startswith(f"| `{element}`"))
    named = re.search(rf"`{attribute}`: (.*?)(?:; | \|$)", line)
    assert named
    for value in re.findall("`([^`]+)`", named[1]):
        segmenter = ScriptSegmenter(Normalizer(), len, 200)
        segmenter.push(f"<speak><{element} {attribute}='{value}'/></speak>")
        try:
            segmenter.flush()
        except BadRequestError as err:
            pytest.fail(str(err))


def test_pauses() -> None:
    """The example and both limits."""
    example = re.search("`(Dinner[^`]+)`", section("Pauses"))
    assert example
    segmenter = ScriptSegmenter(Normalizer(), len, 200)
    assert [text or pause_s for text, _, pause_s, *_ in segmenter.push(example[1]) + segmenter.flush()] == [
        *("Dinner is ready.", 1.0, "Wash your hands."),
    ]
