"""The user's lexicon: whole words, their own case first, the longest first; bad files are refused."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import ConfigError
from daemon.text.lexicon import MAX_ENTRIES, Lexicon, load_lexicon
from daemon.text.normalize import Normalizer

WORDS = {
    "Crier": "cryer",
    "HVAC": "heating",
    "living room": "lounge",
    "living": "alive",
    "Wi-Fi": "why fie",
    "C++": "see plus plus",
    "Nguyen": "win",
    "polish": "pollish",
    "Polish": "pole ish",
    "umm": "",
    "Dept. 5": "department V",
}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("Crier is on", "cryer is on"),
        ("CRIER, crier", "cryer, cryer"),
        ("criers", "criers"),
        ("Mr. Nguyen's cat", "Mr. win's cat"),
        ("the Living \n Room", "the lounge"),
        ("living rooms", "alive rooms"),
        ("Wi-Fi and WI-FI", "why fie and why fie"),
        ("C++!", "see plus plus!"),
        ("Polish polish POLISH", "pole ish pollish pollish"),
        ("well umm yes", "well  yes"),
        ("hvac_2 x", "heating_2 x"),
        ("Dept. 5", "department V"),
        ("", ""),
    ],
)
def test_words_are_replaced(raw: str, expected: str) -> None:
    """Whole words in any case, phrases across blanks, nothing else."""
    assert Lexicon(WORDS).apply(raw) == expected


def test_spellings_are_read_like_text() -> None:
    """The lexicon comes after markup and before every other rule."""
    normalizer = Normalizer(lexicon=Lexicon({"bin day": "at 7:30 on 1st St.", "NAS": "nazz"}))
    assert normalizer("It is **bin day**") == "It is at seven thirty on first street."
    assert normalizer("THE NAS IS FULL") == "the nazz is full."


@given(text=st.text(max_size=60), word=st.text(min_size=1, max_size=8).filter(lambda word: word.strip()))
def test_what_is_not_in_it_stays(text: str, word: str) -> None:
    """An empty lexicon changes nothing, and neither does a word that the text does not have."""
    assert Lexicon({}).apply(text) == text
    if word.split(maxsplit=1)[0].lower() not in text.lower():
        assert Lexicon({word: "x"}).apply(text) == text


@pytest.mark.parametrize("unit", ["a b ", "a ", "a", "-", " "])
def test_time_is_linear(unit: str) -> None:
    """Whatever the words begin with."""
    lexicon = Lexicon({"a b " * count + "c": "x" for count in range(1, 20)})

    def cost_s(size: int) -> float:
        text = (unit * size)[:size]
        start = time.process_time()
        lexicon.apply(text)
        return time.process_time() - start

    cost_s(1000)
    assert cost_s(16_384) <= 6 * cost_s(4096) + 0.05


def test_a_file_is_read(tmp_path: Path) -> None:
    """A table of words; none is as good as an empty one."""
    path = tmp_path / "lexicon.toml"
    path.write_text('[words]\nCrier = "cryer"\n"living room" = "lounge"\n', encoding="utf-8")
    assert load_lexicon(path).apply("Crier in the living room") == "cryer in the lounge"
    path.write_text('[words]\n"O\u2019Brien" = "oh bryan"\n"Zoe\u0308" = "zoey"\n', encoding="utf-8")
    assert (
        Normalizer(lexicon=load_lexicon(path))("O\u2019Brien, O'Brien and Zo\u00eb") == "oh bryan, oh bryan and zoey."
    )
    path.write_text("", encoding="utf-8")
    assert load_lexicon(path).apply("Crier") == "Crier"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[word]\na = 'b'", "unknown key 'word'"),
        ("a = 'b'", "unknown key 'a'"),
        ("words = 5", "words must be a table"),
        ("[words]\na = 5", "words.'a': the spelling must be a string"),
        ("[words]\n[words.a]\nb = 'c'", "words.'a': the spelling must be a string"),
        ("[words]\n'' = 'b'", "words.'': a word needs a letter or a digit"),
        ("[words]\n'--' = 'b'", "needs a letter or a digit"),
        ("[words]\n" + "a" * 81 + " = 'b'", "at most 80 characters, got 81"),
        ("[words]\na = '" + "b" * 201 + "'", "at most 200 characters, got 201"),
        ("[words]\n" + "".join(f"a{n} = 'b'\n" for n in range(MAX_ENTRIES + 1)), f"at most {MAX_ENTRIES} words"),
        ("[words", "not valid TOML"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    """With the file and the key."""
    path = tmp_path / "lexicon.toml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"lexicon\.toml") as raised:
        load_lexicon(path)
    assert message in str(raised.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """With its path."""
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        load_lexicon(tmp_path / "none.toml")
