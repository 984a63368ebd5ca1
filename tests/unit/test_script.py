"""Pauses in brackets and SSML: the pieces do not matter, nothing bad is spoken, every value is in its range."""

import time
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daemon.errors import BadRequestError
from daemon.text.normalize import MAX_GROWTH, Normalizer
from daemon.text.script import MAX_PAUSE_S, MAX_PAUSES_S, MAX_SSML_CHARS, ScriptSegmenter, is_ssml
from daemon.text.segment import TextSegmenter
from daemon.values import Segment

SPEAK = Normalizer(alphabet="abcdefghijklmnopqrstuvwxyz' ,.?!")
PLAIN = [
    *(
        "Dinner is ready. ",
        "Dr. ",
        "word ",
        "[pause 500ms]",
        "[PAUSE 1.5 s] ",
        "[pause 99s]",
        "[pause",
        "[pause 1",
        "[",
    ),
    *(
        "]",
        "[pause 0s]",
        "[ pause .5s ]",
        "[pause five]",
        "<speak",
        "<speak>",
        "<b>",
        "&amp;",
        "\n",
        " ",
        "\ufeff",
        "😀",
    ),
]
TAGS = [
    *("<speak>", "</speak>", "<p>", "</p>", "<s>", "</s>", "<break/>", "<break time='2s'/>", "<break time='-1'/>"),
    *("<prosody rate='fast'>", "<prosody rate='200%' volume='x-soft'>", "<prosody volume='-6dB'>", "</prosody>"),
    *("<say-as interpret-as='digits'>", "<say-as interpret-as='date' format='mdy'>", "</say-as>", "<sub alias='x'>"),
    *("</sub>", "<audio/>", "<!-- c -->", "<![CDATA[ <p> ]]>", "<?pi?>", "&amp;", "&nbsp;", "12", "1/2/2026", "\ud800"),
    *("<!DOCTYPE speak>", "<?xml version='1.0'?>", "<speak version='1.1' xml:lang='en-US'>", "\x00", "</", "<"),
]
TEXTS = st.one_of(
    st.lists(st.sampled_from(PLAIN), max_size=20).map("".join),
    st.lists(st.sampled_from(TAGS + PLAIN), max_size=20).map(lambda parts: f"<speak>{''.join(parts)}</speak>"),
    st.lists(st.sampled_from(TAGS + PLAIN), max_size=20).map("".join),
    st.text(max_size=100),
    st.text(max_size=100).map(lambda text: f"<speak>{text}</speak>"),
)


def read(*pieces: str, max_tokens: int = 200) -> list[Segment] | str:
    """The segments of a text in pieces, or what is wrong with it; a character is a token."""
    segmenter = ScriptSegmenter(SPEAK, len, max_tokens)
    try:
        found = [segment for piece in pieces for segment in segmenter.push(piece)]
        return found + segmenter.flush()
    except BadRequestError as err:
        return f"{err.code}: {err}"


def said(text: str) -> list[str | float]:
    """Texts, and the seconds of pauses."""
    segments = read(text)
    assert not isinstance(segments, str), segments
    return [segment.text or segment.pause_s for segment in segments]


def speak(body: str) -> list[str | float]:
    """The same of SSML, without its outermost element."""
    return said(f"<speak>{body}</speak>")


@given(text=TEXTS, cuts=st.lists(st.integers(0, 500), max_size=20))
@example(text="<?xml version='1.0'?> <speak>a</speak>", cuts=[3])
@example(text=" <speaker> is on [pause 1s] now", cuts=[5])
def test_segments_do_not_depend_on_the_pieces(text: str, cuts: list[int]) -> None:
    """The same text gives the same segments or the same error, at once, in pieces and character by character."""
    bounds = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    whole = read(text)
    assert read(*(text[start:end] for start, end in pairwise(bounds))) == whole
    assert read(*text) == whole


@given(text=TEXTS)
@example("<speak>" * 100)
@example("<speak>" + "<p>" * 100)
@example("<speak><prosody rate='400%'><prosody rate='400%'>a</prosody></prosody></speak>")
@example("[pause 9s]" * 100)
def test_every_segment_is_in_its_ranges(text: str) -> None:
    """Only BadRequestError is raised, with one line; texts, pauses, rates, volumes and offsets keep their bounds."""
    segments = read(text)
    if isinstance(segments, str):
        assert is_ssml(text)
        assert segments.startswith(("bad_request: SSML: ", "too_long: SSML: "))
        assert len(segments) < 400
        assert segments.isprintable()
        return
    for segment in segments:
        assert bool(segment.text) != bool(segment.pause_s)
        assert 0 <= segment.pause_s <= MAX_PAUSE_S
        assert 0.5 <= segment.rate <= 2
        assert 0 <= segment.volume <= 100
        assert 0 <= segment.offset <= len(text)
    assert sum(segment.pause_s for segment in segments) <= MAX_PAUSES_S + 0.001
    assert sum(len(segment.text) for segment in segments) <= MAX_GROWTH * (len(text) + 1)
    assert [segment.offset for segment in segments] == sorted(segment.offset for segment in segments)


@given(text=TEXTS.filter(lambda text: not is_ssml(text) and "[" not in text))
def test_other_text_is_read_as_text_is(text: str) -> None:
    """Without SSML and brackets there is nothing but TextSegmenter."""
    segmenter = TextSegmenter(SPEAK, len, 200)
    assert read(text) == segmenter.push(text) + segmenter.flush()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello [pause 500ms] world", ["hello.", 0.5, "world."]),
        ("One. [Pause 1.5 S] Two.", ["one.", 1.5, "two."]),
        ("[pause 2 s]Go", [2.0, "go."]),
        ("Stay[pause 90s]", ["stay.", 10.0]),
        ("A [pause 0ms] b", ["a.", "b."]),
        ("Press [pause] or [pause 5].", ["press, pause, or, pause five."]),
        ("[pause 1s]", [1.0]),
    ],
)
def test_pauses_in_brackets(text: str, expected: list[str | float]) -> None:
    """The text before one ends there; what has no time is text."""
    assert said(text) == expected


def test_offsets_point_into_the_text() -> None:
    """Of words and pauses, in plain text and in SSML."""
    for text in ("  One. [pause 1s] Two", " <speak>😀 One &amp;\n<break time='1s'/><s>Two</s></speak>"):
        segments = read(text)
        assert not isinstance(segments, str)
        assert [text[segment.offset :][:3] for segment in segments if segment.text][-1] == "Two"
    assert read("a [pause 1s]")[1] == Segment("", 2, 1.0)


def test_all_pauses_together_are_limited() -> None:
    """A text of pauses does not keep the speaker silent for hours."""
    assert said("[pause 10s]" * 50) == [10.0] * 6


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("Hi <break time='250ms'/> there", ["hi.", 0.25, "there."]),
        ("a<break/>b", ["a.", 0.5, "b."]),
        ("a<break strength='strong'/>b<break strength='none'/>c", ["a.", 0.75, "b.", "c."]),
        ("<p>One</p><p>Two <s>three</s> four</p>", ["one.", "two.", "three.", "four."]),
        ("in\none\r\nline", ["in one line."]),
        (
            "<sub alias='World Wide Web'>WWW</sub> &amp; <emphasis level='strong'>more</emphasis>",
            ["world wide web and more."],
        ),
        ("<lang xml:lang='de'>Hallo</lang> <w>you</w> <mark name='m'/>there", ["hallo you there."]),
        ("Wait [pause 1s] here", ["wait.", 1.0, "here."]),
        ("<![CDATA[a < b]]> <!-- not this --> c", ["a less than b c."]),
        ("Code <say-as interpret-as='characters'>A-1</say-as>", ["code a dash one."]),
        ("<say-as interpret-as='digits'>2026</say-as>", ["two zero two six."]),
        ("<say-as interpret-as='cardinal'>-2026</say-as>", ["minus two thousand twenty six."]),
        ("<say-as interpret-as='ordinal'>3</say-as> time", ["third time."]),
        ("<say-as interpret-as='fraction'>1 3/4</say-as>", ["one and three quarters."]),
        ("<say-as interpret-as='date' format='dmy'>4-3-2026</say-as>", ["march fourth, twenty twenty six."]),
        ("<say-as interpret-as='date' format='mdy'>4/3/2026</say-as>", ["april third, twenty twenty six."]),
        ("<say-as interpret-as='date' format='ymd'>20260304</say-as>", ["march fourth, twenty twenty six."]),
        (
            "<say-as interpret-as='date' format='mdy'>12/31/99</say-as>",
            ["december thirty first, nineteen ninety nine."],
        ),
        ("<say-as interpret-as='date' format='yyyymmdd'>????0922</say-as>", ["september twenty second."]),
        ("<say-as interpret-as='number' format='ordinal'>5</say-as>", ["fifth."]),
        ("<say-as interpret-as='address'>12 Oak Ave</say-as>", ["twelve oak avenue."]),
        ("<say-as interpret-as='time'>1&apos;21&quot;</say-as>", ["one minute twenty one seconds."]),
        ("<say-as interpret-as='time'>19:30</say-as>", ["seven thirty p m."]),
        ("<say-as interpret-as='telephone'>0123 45-67</say-as>", ["zero one two three, four five, six seven."]),
        ("<say-as interpret-as='currency' language='en-US'>$2.50</say-as>", ["two dollars and fifty cents."]),
        ("<say-as interpret-as='unit'>5 km</say-as>", ["five kilometers."]),
        ("<say-as interpret-as='expletive'>damn</say-as>", ["beep."]),
        ("a <say-as interpret-as='digits'> </say-as>b", ["a b."]),
        ("<p xml:id='a' xmlns:mstts='http://www.w3.org/2001/mstts'>a</p>", ["a."]),
        ("", []),
        ("<break time='60s'/>", [10.0]),
    ],
)
def test_ssml_is_read(body: str, expected: list[str | float]) -> None:
    """Every element that is understood."""
    assert speak(body) == expected


@pytest.mark.parametrize(
    ("prosody", "rate", "volume"),
    [
        ("rate='slow'", 0.75, 100),
        ("rate='80%'", 0.8, 100),
        ("rate='+20%'", 1.2, 100),
        ("rate='-20%'", 0.8, 100),
        ("rate='1.5'", 1.5, 100),
        ("rate='10%'", 0.5, 100),
        ("rate='900%'", 2.0, 100),
        ("volume='silent'", 1.0, 0),
        ("volume='soft'", 1.0, 50),
        ("volume='-6dB'", 1.0, 50),
        ("volume='40'", 1.0, 40),
        ("volume='-10%' rate='medium'", 1.0, 90),
    ],
)
def test_prosody_sets_rate_and_volume(prosody: str, rate: float, volume: int) -> None:
    """Of what it holds alone."""
    segments = read(f"<speak>a <prosody {prosody}>b</prosody> c</speak>")
    assert [(text, rate, volume) for text, _, _, rate, volume in segments] == [
        ("a.", 1.0, 100),
        ("b.", pytest.approx(rate), volume),
        ("c.", 1.0, 100),
    ]


def test_nested_prosody_multiplies() -> None:
    """And is clamped only where it is spoken."""
    inner = "<prosody rate='50%' volume='50%'>a</prosody>"
    assert read(f"<speak><prosody rate='160%' volume='x-loud'>{inner}</prosody></speak>")[0][3:] == (0.8, 100)
    assert read(f"<speak><prosody volume='+6dB'>{inner}</prosody></speak>")[0][3:] == (0.5, 100)
    assert read(f"<speak><prosody rate='slow' volume='soft'>{inner}</prosody></speak>")[0][3:] == (0.5, 25)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<speak>a", "line 1, column 9: no element found"),
        ("<speak>a</speak> b", "junk after document element"),
        ("<speak>a</p></speak>", "mismatched tag"),
        ("<speak>a & b</speak>", "not well-formed"),
        ("<speak>&nbsp;</speak>", "undefined entity"),
        ("<speak>\n <audio src='x'/></speak>", "line 2, column 2: <audio> is not supported"),
        ("<speak><voice name='x'>a</voice></speak>", "<voice> is not supported"),
        (
            "<speak xmlns:amazon='x'><amazon:effect name='w'>a</amazon:effect></speak>",
            "<amazon:effect> is not supported",
        ),
        ("<speak><phoneme ph='x'>a</phoneme></speak>", "<phoneme> is not supported"),
        ("<speak><speak>a</speak></speak>", "outermost"),
        ("<?xml version='1.0'?><p>a</p>", "outermost"),
        ("<speak><prosody pitch='high'>a</prosody></speak>", "pitch of <prosody> is not supported"),
        ("<speak><prosody rate='quick'>a</prosody></speak>", "rate must be x-slow"),
        ("<speak><prosody volume='11dBm'>a</prosody></speak>", "volume must be silent"),
        ("<speak><break time='soon'/></speak>", "time must be a time such as 500ms"),
        ("<speak><break strength='huge'/></speak>", "strength must be none"),
        ("<speak><break>a</break></speak>", "<break> has no text"),
        ("<speak><sub>a</sub></speak>", "<sub> needs alias"),
        ("<speak><sub alias='b'>a<p/></sub></speak>", "<sub> has no elements"),
        ("<speak><say-as>a</say-as></speak>", "<say-as> needs interpret-as"),
        ("<speak><say-as interpret-as='poem'>a</say-as></speak>", "interpret-as must be characters"),
        ("<speak><say-as interpret-as='digits'>a</say-as></speak>", "'a' is no digits"),
        ("<speak><say-as interpret-as='cardinal'>a</say-as></speak>", "'a' is no cardinal"),
        ("<speak><say-as interpret-as='ordinal'>a</say-as></speak>", "'a' is no ordinal"),
        ("<speak><say-as interpret-as='fraction'>1/0</say-as></speak>", "'1/0' is no fraction"),
        ("<speak><say-as interpret-as='date' format='mdy'>31/1/26</say-as></speak>", "no such date"),
        ("<speak><say-as interpret-as='date' format='x'>1</say-as></speak>", "the format must be one of"),
        ("<speak><say-as interpret-as='time'>noon</say-as></speak>", "it needs a number"),
        ("<speak><say-as interpret-as='telephone'>a</say-as></speak>", "'a' is no telephone"),
        ("<speak>" + "<p>" * 40 + "</p>" * 40 + "</speak>", "more than 32 elements"),
        ("<!DOCTYPE speak [<!ENTITY a 'b'>]><speak>&a;</speak>", "DTDs and entities are not allowed"),
        ("<?xml version='1.0'?><!DOCTYPE speak SYSTEM 'file:///etc/passwd'><speak/>", "DTDs and entities"),
        ("<speak>\ud800</speak>", "a character that is none"),
        ("<speak>" + "a" * MAX_SSML_CHARS + "</speak>", f"more than {MAX_SSML_CHARS} characters"),
    ],
)
def test_bad_ssml_is_an_error(text: str, message: str) -> None:
    """One line that says what and where; nothing of it is spoken."""
    error = read(text)
    assert isinstance(error, str)
    assert error.startswith("too_long: SSML: " if "more than 65536" in message else "bad_request: SSML: ")
    assert message in error


def test_after_an_error_the_next_text_is_read() -> None:
    """Nothing of the bad one is left."""
    segmenter = ScriptSegmenter(SPEAK, len, 200)
    segmenter.push("<speak>bad <break time='1s'/> one")
    with pytest.raises(BadRequestError):
        segmenter.flush()
    segmenter.push("Good ")
    assert segmenter.flush() == [Segment("good.", 0)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<speak>", True),
        ("\ufeff \n<speak version='1.0'>", True),
        ("<?xml version='1.0'?><speak>", True),
        ("<speak", True),
        ("<speaker>", False),
        ("I <speak>", False),
        ("<spea", False),
        ("", False),
    ],
)
def test_what_is_ssml(text: str, *, expected: bool) -> None:
    """What begins with <speak, or as XML does."""
    assert is_ssml(text) is expected


def test_text_is_given_before_it_ends() -> None:
    """Only SSML waits for the end."""
    segmenter = ScriptSegmenter(SPEAK, len, 200)
    assert segmenter.push("Dinner is ready. Come") == [Segment("dinner is ready.", 0)]
    assert segmenter.push(" [pause 1s]") == [Segment("come.", 17), Segment("", 22, 1.0)]


def test_endless_text_takes_bounded_memory() -> None:
    """Beginnings of marks, blanks, and SSML without end are not kept."""
    for piece in ("[pause " * 100, " " * 1000, "\ufeff" * 1000, "[" * 1000):
        segmenter = ScriptSegmenter(SPEAK, len, 200)
        for _ in range(20):
            segmenter.push(piece)
        assert len(segmenter._head) + len(segmenter._plain._held) < 100
    segmenter = ScriptSegmenter(SPEAK, len, 200)
    for _ in range(300):
        segmenter.push("<speak>" + "a" * 1000)
    assert sum(map(len, segmenter._ssml)) <= MAX_SSML_CHARS


@pytest.mark.parametrize(
    "unit", ["[pause ", "[pause 1ms]", "<speak>", "((((", "1", ",", "[", "<speak><s>a</s>", "&amp;"]
)
def test_time_is_linear(unit: str) -> None:
    """32 KiB take at most about four times as long as 8."""

    def cost_s(size: int) -> float:
        text = (unit * size)[: size - 8]
        start = time.process_time()
        read(text)
        return time.process_time() - start

    cost_s(2000)
    assert cost_s(32_768) <= 6 * cost_s(8192) + 0.05
