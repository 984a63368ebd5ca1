"""Segmentation: the pieces do not matter, the limit holds, nothing is lost."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.text.normalize import Normalizer, normalize
from daemon.text.segment import MAX_RAW_CHARS, TextSegmenter
from daemon.values import Segment

ALPHABET = "abcdefghijklmnopqrstuvwxyz' ,.?!"
PHONE = "eight zero zero, five five five, zero one nine nine"
SPEECH = [
    *("Dinner is ready", "Dr. ", "Smith ", "7 a.m. ", "tomorrow", ". ", "! ", "? ", "... ", "\n", "\r\n", " ", ", "),
    *(
        "and ",
        "No. ",
        "5 ",
        "3.5 ",
        '"Stop!" ',
        "he said",
        "The end",
        "e.g. ",
        "U.S. ",
        "1. ",
        "Nov. ",
        "Mon. ",
        "May",
        "Mar",
        "Sun",
        "Elm St. ",
        "Recycling ",
        "😀",
        ".",
        "。",
    ),
    *("supercalifragilistic", "(see below)", "...", "Mr.", "\t", "a" * 300, " " * 300),
]
TEXTS = st.one_of(st.lists(st.sampled_from(SPEECH), max_size=40).map("".join), st.text(max_size=200))


def speak(text: str) -> str:
    """The normaliser of the starter voice."""
    return normalize(text, alphabet=ALPHABET)


def segments_of(pieces: list[str], max_tokens: int = 200) -> list[Segment]:
    """All segments of a text given in pieces; a character is a token."""
    segmenter = TextSegmenter(speak, len, max_tokens)
    found = [segment for piece in pieces for segment in segmenter.push(piece)]
    return found + segmenter.flush()


def texts_of(text: str, max_tokens: int = 200) -> list[str]:
    """The segments' texts."""
    return [segment.text for segment in segments_of([text], max_tokens)]


@given(text=TEXTS, cuts=st.lists(st.integers(0, 2000), max_size=20), max_tokens=st.integers(8, 200))
def test_segments_do_not_depend_on_the_pieces(text: str, cuts: list[int], max_tokens: int) -> None:
    """The same text gives the same segments and offsets, at once, in pieces and character by character."""
    bounds = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[start:end] for start, end in pairwise(bounds)]
    whole = segments_of([text], max_tokens)
    assert segments_of(pieces, max_tokens) == whole
    assert segments_of(list(text), max_tokens) == whole


@given(text=TEXTS, max_tokens=st.integers(8, 120))
def test_no_segment_exceeds_the_limit(text: str, max_tokens: int) -> None:
    """count_tokens(segment) <= max_tokens, and no segment is blank."""
    for segment in texts_of(text, max_tokens):
        assert 0 < len(segment) <= max_tokens
        assert segment == segment.strip()


@given(text=TEXTS, max_tokens=st.integers(8, 120))
def test_no_text_is_lost(text: str, max_tokens: int) -> None:
    """The letters of the segments are the letters of the normalised sentences, and the words where none is cut."""

    def letters(parts: list[str]) -> str:
        return re.sub(r"[^a-z']", "", "".join(parts))

    def words(parts: list[str]) -> list[str]:
        return re.findall(r"[a-z']+", " ".join(parts))

    sentences = texts_of(text, 10**6)
    parts = texts_of(text, max_tokens)
    assert letters(parts) == letters(sentences)
    if all(len(word) < max_tokens for word in words(sentences)):
        assert words(parts) == words(sentences)


@given(text=TEXTS)
def test_offsets_rise_and_point_into_the_text(text: str) -> None:
    """Offsets never decrease and each lies in the text; the first of a sentence is no blank."""
    offsets = [segment.offset for segment in segments_of([text], 40)]
    assert offsets == sorted(offsets)
    assert all(0 <= offset < len(text) for offset in offsets)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dr. Smith is here. Come in!", ["doctor smith is here.", "come in!"]),
        ("It is 3.5 km. Go at 7 a.m. tomorrow.", ["it is three point five kilometers.", "go at seven a m tomorrow."]),
        ("Wake up at 7 a.m. The bus waits.", ["wake up at seven a m.", "the bus waits."]),
        ("The council meets at 7 p.m. Monday. Come!", ["the council meets at seven p m monday.", "come!"]),
        ("A watch until 9 p.m. CDT is on.", ["a watch until nine p m c d t is on."]),
        ("Add 2 tbsp. oil and 1 lb. of rice.", ["add two tablespoons oil and one pound of rice."]),
        ("It is 6 ft. Next, 3 in. more.", ["it is six feet.", "next, three inches more."]),
        ("She has a Ph.D. in physics.", ["she has a p h d in physics."]),
        ("Call the office at 1-800-555-0199.", [f"call the office at one, {PHONE}."]),
        ("Call the office, at 1-800-555-0199.", ["call the office,", f"at one, {PHONE}."]),
        ("first line\nsecond line", ["first line.", "second line."]),
        ("Order No. 5 is ready. No. Wait.", ["order number five is ready.", "no.", "wait."]),
        ("Wait... what? Yes. No.", ["wait, what?", "yes.", "no."]),
        ('"Stop!" he said. "Why?" She left.', ["stop! he said.", "why?", "she left."]),
        ("lower case. also ends", ["lower case.", "also ends."]),
        ("1. Wash the car\n2. Dry it", ["one, wash the car.", "two, dry it."]),
        ("See you Mon. Nov. 20 at noon.", ["see you monday november twentieth at noon."]),
        ("Trash on Mon. Recycling on Tue. Bye.", ["trash on monday.", "recycling on tuesday.", "bye."]),
        ("Come on Mon. Nobody is here.", ["come on monday.", "nobody is here."]),
        ("Open Mon. to Fri. 9 to 5.", ["open monday to friday nine to five."]),
        ("We live on Elm St. Dinner is ready.", ["we live on elm street.", "dinner is ready."]),
        ("Go down 5th St. Then stop.", ["go down fifth street.", "then stop."]),
        ("We visited St. Mary. Mount St. Helens waits.", ["we visited saint mary.", "mount saint helens waits."]),
        ("She lives at 12 Elm Dr. Dinner is ready.", ["she lives at twelve elm drive.", "dinner is ready."]),
        ("Ask Dr. Jones. Turn on Oak Dr. Then stop.", ["ask doctor jones.", "turn on oak drive.", "then stop."]),
        ("Fly to Ft. Worth. It is 6 ft. Then stop.", ["fly to fort worth.", "it is six feet.", "then stop."]),
        ("See Fig. 3 and Vol. 2. Gov. Lee spoke.", ["see figure three and volume two.", "governor lee spoke."]),
        ("Climb Mt. Everest. King Henry VIII. Done.", ["climb mount everest.", "king henry the eighth.", "done."]),
        ("J. R. Smith called. Call e.g. Tom.", ["j. r. smith called.", "call for example tom."]),
        ("😀 \n ... \n\n", []),
        ("", []),
    ],
)
def test_sentence_boundaries(text: str, expected: list[str]) -> None:
    """One segment per sentence; abbreviations and decimals do not end one, line ends do."""
    assert texts_of(text) == expected


def test_another_language_has_no_abbreviations_of_english() -> None:
    """Every dot before a blank ends a sentence where nothing is known of the language."""
    segmenter = TextSegmenter(Normalizer(language="de"), len, 200, language="de")
    segments = [*segmenter.push("Ext. Max. Ja."), *segmenter.flush()]
    assert [segment.text for segment in segments] == ["Ext.", "Max.", "Ja."]


def test_offsets_are_where_the_sentences_start() -> None:
    """Segment.offset indexes the raw text."""
    text = "  Dinner is ready! \n\n Wash your hands."
    segments = segments_of([text])
    assert [text[segment.offset :][:4] for segment in segments] == ["Dinn", "Wash"]


def test_a_sentence_is_given_as_soon_as_the_next_one_starts() -> None:
    """Speech need not wait for the end of the text."""
    segmenter = TextSegmenter(speak, len, 200)
    assert segmenter.push("Dinner is ready. ") == []
    assert segmenter.push("W") == [Segment("dinner is ready.", 0)]


def test_a_long_first_sentence_is_cut_at_its_first_comma() -> None:
    """Only the first, only if it is long, and only where three words stand on both sides."""
    long = "In the kitchen, the washing machine has finished its programme and the dryer waits."
    assert texts_of(f"{long} {long}") == ["in the kitchen,", long[16:].lower(), long.lower()]
    assert texts_of("In the kitchen, dinner is ready.") == ["in the kitchen, dinner is ready."]
    assert len(texts_of("Attention, " + long[16:])) == 1


def test_parts_are_of_similar_length() -> None:
    """No tiny remainder: a text a little too long becomes two halves, cut at the comma or conjunction nearby."""
    words = " ".join(["word"] * 21)
    assert [len(part) for part in texts_of(words, 100)] == [55, 50]
    assert texts_of("the front door is open but the back door is closed", 40) == [
        "the front door is open,",
        "but the back door is closed.",
    ]
    assert texts_of("close the door, turn the lights off and come", 40) == [
        "close the door,",
        "turn the lights off and come.",
    ]


def test_endless_text_takes_bounded_memory() -> None:
    """Without punctuation a break is forced, and blanks are not kept."""
    segmenter = TextSegmenter(speak, len, 10**6)
    found = [segment for _ in range(500) for segment in segmenter.push("word " * 10)]
    assert len(found) >= 500 * 50 // MAX_RAW_CHARS
    assert len(segmenter._waiting) <= MAX_RAW_CHARS
    segmenter.flush()
    for _ in range(100):
        segmenter.push(" " * 1000)
    assert len(segmenter._waiting) == 0


def test_a_segmenter_is_reusable_after_flush() -> None:
    """flush starts a new text at offset 0."""
    segmenter = TextSegmenter(speak, len, 200)
    segmenter.push("One thing. ")
    assert segmenter.flush() == [Segment("one thing.", 0)]
    segmenter.push("Another")
    assert segmenter.flush() == [Segment("another.", 0)]


def test_a_limit_that_fits_nothing_is_refused() -> None:
    """max_tokens below 8 is a programming error."""
    with pytest.raises(ValueError, match="at least 8"):
        TextSegmenter(speak, len, 7)
