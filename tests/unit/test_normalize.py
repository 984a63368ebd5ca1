"""Normalisation: golden readings, total, bounded, linear, only known characters."""

import re
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from num2words import num2words

from daemon.text.lexicon import Lexicon
from daemon.text.normalize import MAX_GROWTH, Normalizer, normalize
from daemon.text.units_en import UNITS

ALPHABET = "abcdefghijklmnopqrstuvwxyz' ,.?!"
GOLDEN = Path(__file__).parents[1] / "golden" / "normalize_en.tsv"
CASES = [line.split("\t") for line in GOLDEN.read_text(encoding="utf-8").splitlines()]
NASTY = st.text(
    st.one_of(
        st.sampled_from("0123456789.,:-/ $€%°#@&+=<>()[]{}*_~`'\"!?\n\t\x00½²"),
        st.sampled_from("aAzZ\u200d\ufe0f\u0301😀👍🏽ßéﷺ中\u202e\ud7ff"),
        st.characters(),
    ),
    max_size=120,
)


@pytest.mark.parametrize(("raw", "expected"), CASES, ids=[case[0][:40] for case in CASES])
def test_golden_readings(raw: str, expected: str) -> None:
    r"""Announcements read as a person would read them (\n in the file is a line end)."""
    assert normalize(raw.replace("\\n", "\n"), alphabet=ALPHABET) == expected


def test_there_are_enough_golden_readings() -> None:
    """At least 200, all different."""
    assert len({raw for raw, _ in CASES}) == len(CASES) >= 200


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("Dr. Smith's TV is on", "doctor Smith's T V is on."),
        ("Wait: 5 km; really?!", "Wait: five kilometers; really?"),
        ("Café is open (until 7:30 pm).", "Café is open (until seven thirty P M)."),
        ("“Hello”", '"Hello".'),
        ("Doors | C:\\ windows", "Doors C: windows."),
        ("```Fire in the hall```", "Fire in the hall."),
    ],
)
def test_without_an_alphabet_case_and_punctuation_stay(raw: str, expected: str) -> None:
    """Numbers are expanded all the same."""
    assert normalize(raw) == expected


@pytest.mark.parametrize("alphabet", [None, ALPHABET])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n ",
        "😀🎉",
        "👨\u200d👩\u200d👧",
        "?!...",
        "-- ** __",
        "\x00\x01\x7f",
        "\u200b\ufeff",
        "<br>",
        "```\n```",
    ],
)
def test_what_cannot_be_spoken_is_empty(text: str, alphabet: str | None) -> None:
    """Blank, emoji, punctuation, controls and bare markup leave nothing."""
    assert normalize(text, alphabet=alphabet) == ""


@settings(max_examples=300)
@given(text=NASTY)
@example("&#" + "9" * 5000 + ";")
@example("1" * 2000)
@example("1" * 20 + "." + "2" * 20)
@example("9" * 15 + "th")
@example("\ud800")
@example("\u2044½²³①一")
def test_any_text_is_read_or_dropped(text: str) -> None:
    """Never raises; only known characters; bounded; ends with a mark; no space before a mark, no doubled marks."""
    spoken = normalize(text, alphabet=ALPHABET)
    assert len(spoken) <= MAX_GROWTH * (len(text) + 1)
    assert set(spoken) <= set(ALPHABET)
    if spoken:
        assert spoken[0].isalpha()
        assert spoken[-1] in ".?!"
        assert not any(bad in spoken for bad in ("  ", " ,", " .", " ?", " !", ",,", "..", "??", "!!", ",.", "?!"))
    assert len(normalize(text)) <= MAX_GROWTH * (len(text) + 1)


@given(text=st.text(st.sampled_from("0123456789,.:/-$% "), max_size=60))
def test_no_digit_survives(text: str) -> None:
    """Whatever stands between digits, all of them become words, with or without an alphabet."""
    assert not any(char.isdigit() for char in normalize(text))
    signs = re.sub(r"[^\w\s]{3,}", "", text)  # three or more in a row are a line, which is not said
    spoken = bool(normalize(text, alphabet=ALPHABET))
    assert spoken or not any(char.isdigit() for char in text)
    assert spoken or not any(char in "$%" for char in signs)
    assert not spoken or any(char.isdigit() or char in "$%" for char in text)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("Happy birthday 🎉🎂!", "Happy birthday, party popper, birthday cake!"),
        ("😊", "smiling face with smiling eyes."),
        ("Well done 👍🏽👍🏽👍🏽", "Well done, thumbs up."),
        ("The 👩\u200d🚒 came", "The, woman firefighter, came."),
        ("Press 1\ufe0f\u20e3", "Press, one."),
        ("I ❤️ this", "I, red heart, this."),
    ],
)
def test_emoji_are_named_where_that_is_wanted(raw: str, expected: str) -> None:
    """Between commas, once each, without the colour of skin."""
    assert Normalizer(emoji="name")(raw) == expected
    assert "heart" not in normalize(raw)


@settings(max_examples=200)
@given(text=NASTY)
@example("👨\u200d" * 300)
def test_any_text_is_read_with_emoji_and_lexicon(text: str) -> None:
    """What the options add keeps the promises: only known characters, bounded, never raises."""
    lexicon = Lexicon({"a": "b" * 200, "1": "", "😀": "x", "A": "ein 5. <b>"})
    spoken = Normalizer(alphabet=ALPHABET, emoji="name", lexicon=lexicon)(text)
    assert len(spoken) <= MAX_GROWTH * 300 * (len(text) + 1)
    assert set(spoken) <= set(ALPHABET)


@pytest.mark.parametrize(
    ("language", "raw", "expected"),
    [
        (
            "de",
            "Es sind **21,5** °C, <b>3</b> Fenster offen",
            "Es sind einundzwanzig Komma fünf °C, drei Fenster offen.",
        ),
        ("de_AT", "Bus 007", "Bus null null sieben."),
        ("fr-FR", "Il est 7 heures 🎉", "Il est sept heures."),
        ("xx", "Ub 12,5 ba", "Ub one two, five ba."),
        ("en-GB", "It is 7:30", "It is seven thirty."),
    ],
)
def test_a_language_without_rules_has_numbers(language: str, raw: str, expected: str) -> None:
    """Markup and emoji go, numbers are read in the language, or digit by digit in English."""
    assert Normalizer(language=language)(raw) == expected


@given(text=NASTY, language=st.sampled_from(["de", "fr", "ja", "ar", "he", "pl", "th", "xx", ""]))
def test_any_text_is_read_in_any_language(text: str, language: str) -> None:
    """Never raises, bounded, and no ASCII digit is left."""
    spoken = Normalizer(language=language)(text)
    assert len(spoken) <= MAX_GROWTH * (len(text) + 1)
    assert not any(char in "0123456789" for char in spoken)


def test_an_alphabet_with_capitals_and_more_marks_is_used() -> None:
    """Only what the alphabet lacks is replaced."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    assert normalize("Ça va; OK: über!", alphabet=letters + letters.upper() + "ü ;,.!") == "Ca va; okay, über!"


def test_long_words_are_cut() -> None:
    """No word of more than 30 letters remains."""
    assert max(map(len, normalize("abcdefghij" * 50, alphabet=ALPHABET).split())) <= 31


@pytest.mark.parametrize("symbol", UNITS)
def test_every_unit_is_read(symbol: str) -> None:
    """In the plural after 12, in the singular after 1."""
    one, many = UNITS[symbol]
    assert normalize(f"It is 12 {symbol} now") == f"It is twelve {many} now."
    assert normalize(f"It is 1 {symbol} now") == f"It is one {one} now."


@given(number=st.integers(-(10**15) + 1, 10**15 - 1))
def test_whole_numbers_are_read_as_num2words_does(number: int) -> None:
    """With separators or without, negative or not: num2words without "and", commas and hyphens."""
    words = num2words(abs(number)).replace(",", "").replace("-", " ").replace(" and ", " ")
    expected = f"{'minus ' if number < 0 else ''}{words}."
    assert normalize(str(number)) == expected
    assert normalize(f"{number:,}") == expected


ADVERSARIAL = [
    *("1", "a", "a-", "<", "<a", "(", "1.", "*", "1,", "1-", "1/", "1:", "[", "[a](", "&", "&#", "_", "a.", "a@", "$1"),
    *(
        "http://",
        "etc. A",
        "Dr. ",
        "5 km ",
        ".",
        "A.",
        "1 ",
        "a1",
        "½",
        "👨\u200d",
        "#",
        "- ",
        "`",
        "~",
        ". ",
        "é",
        "+1 ",
        "Nov ",
        "12:00",
        "<a b=",
        "<p ",
        "<a ",
        "</a",
        "<x@",
        "a<b>",
        "1 000 ",
        "Mon-",
        "Seat 1A, ",
        '1"',
        '"1" ',
        "1.5C-",
        "Page 1/2 ",
        "1/2-",
        "Elm St. ",
        "Mon. A",
        "0123 ",
        "1.234",
        "in 1:00:00 ",
        "lan:1",
        "5 l/100km",
        "°",
        "=",
        " ",
        "0x",
        "aa:",
        "9-",
        "1-1",
        "3 in. ",
        "$1-",
        "1 x ",
        "11/24-",
        "b.i.",
        "5' x",
        "1 - 1 ",
        "Ave. N ",
        "#1-",
        "MM",
        "5 min. ",
    ),
]


@pytest.mark.parametrize("unit", ADVERSARIAL)
def test_time_is_linear(unit: str) -> None:
    """Twice the input takes at most about three times as long, the best of several runs each."""

    def best(size: int) -> float:
        text = (unit * size)[:size]
        times = []
        for _ in range(2):
            start = time.process_time()
            normalize(text, alphabet=ALPHABET)
            times.append(time.process_time() - start)
        return min(times)

    normalize(unit * 100, alphabet=ALPHABET)
    assert best(2000) <= 3 * best(1000) + 0.004
