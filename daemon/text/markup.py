"""Characters and markup that are not speech: controls, emoji, HTML, Markdown. The same for every language."""

import html
import re
import unicodedata
from typing import Literal

EmojiStyle = Literal["drop", "name"]
"""Leave emoji out, or read their names."""

_REPLACED = {
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u00b4\u02bc\uff07", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb\u2039\u203a", '"'),
    **dict.fromkeys("\u2010\u2011\u2012\u2212", "-"),
    **dict.fromkeys("\u2013\u2014\u2015", "\u2013"),
    **dict.fromkeys("\r\v\f\x85\u2028\u2029", "\n"),
    **dict.fromkeys("\u2022\u25cf\u25aa\u25e6\u2023\u00b7", "*"),
    "\t": " ",
    "\u2026": "...",
    "\u2116": "#",
    "\u00ba": "\u00b0",
    "\u00b2": "^2",
    "\u00b3": "^3",
    "\u2044": "/",
}
_TABLE = str.maketrans(_REPLACED)
# Cf goes before the emoji library sees it: its search is quadratic in the zero-width joiners it meets.
_DROPPED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})

_BLOCK_TAG = re.compile(
    r"</?(?:p|br|div|li|ul|ol|tr|table|h[1-6]|hr)(?:\s[^<>=]{0,60}=[^<>]{0,500}|\s{0,9}/?)>", re.IGNORECASE
)
_NAMES = (
    "a|abbr|audio|b|big|blockquote|body|button|code|del|details|em|emphasis|font|footer|form|h[1-6]|head|header|"
    "html|i|img|input|ins|kbd|label|link|main|mark|meta|nav|ol|option|p|phoneme|pre|prosody|s|samp|say-as|script|"
    "section|select|small|source|span|speak|strike|strong|style|sub|summary|sup|svg|table|tbody|td|textarea|tfoot|"
    "th|thead|title|tt|u|var|video|voice"
)
_ATTRIBUTE = r"""\s{1,9}[A-Za-z][\w:.-]{0,60}=(?:"[^"<>]{0,2000}"|'[^'<>]{0,2000}'|[^\s<>"']{1,2000})"""
_TAG = re.compile(
    rf"</[A-Za-z][\w:-]{{0,40}}\s{{0,9}}>|<[!?][^<>]{{0,500}}>|<(?:{_NAMES})\s{{0,9}}/?>"
    rf"|<[A-Za-z][\w:-]{{0,40}}(?:(?:{_ATTRIBUTE}){{1,20}}\s{{0,9}}/?|\s{{0,9}}/)>",
    re.IGNORECASE,
)
"""A name alone between < and > is a tag where HTML or SSML knows it: in "a<b and c>d" nothing is."""
_BRACKETED = re.compile(r"<((?:[a-z]{2,6}://|[\w.+-]{1,64}@)[^\s<>]{1,2000}|[A-Za-z][\w:-]{0,40})>")
"""An address, or a word that is no tag: it is read."""
_POWER = re.compile("(?<=[0-9])(?:\u207b[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]{1,9}|[\u2070\u2074-\u2079]{1,9})")
_HIDDEN = re.compile(r"<(script|style)\b[^<>]{0,500}>.{0,5000}?</\1\s{0,9}>", re.IGNORECASE | re.DOTALL)
_TABLE_LINE = re.compile(r"^ {0,40}\|[^\n]*\|[ ]*$", re.MULTILINE)
_HUGE_ENTITY = re.compile(r"&#[0-9A-Za-z]{9,}+;?")  # int() of thousands of digits raises
_LINK = re.compile(r"!?\[([^\[\]]{0,300})\]\([^()\n]{0,500}\)")
_FENCE = re.compile(r"^ {0,3}(?:`{3,}+[^\n`]*+|~{3,}[^\n]*+)$", re.MULTILINE)
_RULE_LINE = re.compile(r"^[ *_=|:+-]{3,}+$", re.MULTILINE)
_LINE_MARK = re.compile(r"^[ ]{0,40}(?:(?:#(?! +[0-9])|#{2,6}|>|[-*+])[ ]+)+(?:\[[ xX]\] )?", re.MULTILINE)
_LIST_NUMBER = re.compile(r"^([ ]{0,40}[0-9]{1,3})[.)] (?=[^\n])", re.MULTILINE)
_EMPHASIS = re.compile(r"\*{2,}+|~~+|`+|(?<![0-9 ])\*|\*(?![0-9 ])|(?<![^\W_])_+|_+(?![^\W_])")
_EMOTICON = re.compile(r"(?<!\S)(?:[:;=]['-]?[()DPpo|/\\](?!\S)|<3(?=[\s.!?]{0,9}\Z))")
_LINE_END = re.compile(r"([^\n]) ?\n[\s\n]*+")

_EMOJI_RUN = re.compile(r"[0-9#*]\ufe0f?\u20e3|[^\x00-\xa8\xaa-\xad\xaf-\xff]{1,40}")
"""Where emoji may be, in pieces: the library's search is quadratic in the zero-width joiners it meets."""
_MAY_BE_EMOJI = re.compile(
    "[\xa9\xae\u203c\u2049\u20e3\u2122\u2139\u2190-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0010ffff]"
)
"""Every emoji has one of these; dashes, the euro and the letters of other scripts are none."""
_NAME_MARKS = ("\ue000", "\ue001")
_NAME = re.compile("\ue000([^\ue000\ue001]*)\ue001")
_SKIN_TONE = re.compile("_(?:light|medium-light|medium|medium-dark|dark)_skin_tone")
_REPEATED_NAME = re.compile(r"(, [^,]{1,60}, )\1+")


def name_emoji(text: str, language: str) -> str:
    """Emoji to their names, between commas; in English where the library has none for the language."""
    return _EMOJI_RUN.sub(lambda match: _names(match[0], language), text)


def _names(run: str, language: str) -> str:
    import emoji  # noqa: PLC0415 (see _drop_emoji)

    code = language if language in emoji.LANGUAGES else "en"
    named = emoji.demojize(run, language=code, delimiters=_NAME_MARKS)
    return _REPEATED_NAME.sub(r"\1", _NAME.sub(_name, named))


def _name(match: re.Match[str]) -> str:
    return f", {_SKIN_TONE.sub('', match[1]).removeprefix('keycap_').replace('_', ' ')}, "


def clean_characters(text: str) -> str:
    """Plain punctuation, ASCII digits, no emoji, no invisible characters, one kind of line end."""
    text = _POWER.sub(lambda match: "^" + unicodedata.normalize("NFKC", match[0]), text)
    kept: list[str] = []
    for char in text.replace("\r\n", "\n").translate(_TABLE):
        category = unicodedata.category(char)
        if category == "No" and "\u2044" in unicodedata.normalize("NFKC", char) and kept and kept[-1] != " ":
            kept.append(" ")  # 1½ must not become 11/2
        if char == "\n" or category not in _DROPPED:
            kept.append(str(unicodedata.decimal(char)) if category == "Nd" else char)
    plain = unicodedata.normalize("NFKC", _drop_emoji("".join(kept)))
    return plain.replace("\u2044", "/").replace("\u2026", "...").replace("\u00a0", " ")


def _drop_emoji(text: str) -> str:
    if not _MAY_BE_EMOJI.search(text):
        return text
    import emoji  # noqa: PLC0415 (10 ms and 5 MB, for texts that may have one)

    dropped: str = emoji.replace_emoji(text, " ")
    return dropped


def strip_markup(text: str) -> str:
    """HTML and Markdown to plain text; every line becomes a sentence of its own."""
    if "<" in text:
        text = _HIDDEN.sub(" ", text)
        text = _BRACKETED.sub(r" \1 ", _TAG.sub(" ", _BLOCK_TAG.sub("\n", text)))
    if "&" in text:
        text = clean_characters(html.unescape(_HUGE_ENTITY.sub(" ", text)))
    text = _FENCE.sub("", text)
    text = _LINK.sub(r"\1", text)
    text = _RULE_LINE.sub("", text)
    text = _TABLE_LINE.sub(lambda match: match[0].strip(" |").replace("|", ","), text)
    text = _LINE_MARK.sub("", text)
    text = _LIST_NUMBER.sub(r"\1, ", text)
    text = _EMOTICON.sub(" ", text)
    text = _EMPHASIS.sub("", text)
    return _LINE_END.sub(_join_lines, text.strip())


def _join_lines(match: re.Match[str]) -> str:
    return match[1] + (" " if match[1] in ".!?,;:" else ". ")
