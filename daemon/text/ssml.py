"""SSML to pieces of text and pauses: a safe subset; whatever is not understood is an error, never read aloud."""

import re
from collections.abc import Callable, Mapping
from io import StringIO
from typing import NamedTuple
from xml.sax import SAXParseException
from xml.sax.handler import ContentHandler
from xml.sax.xmlreader import AttributesImpl, InputSource, Locator

from defusedxml.common import DefusedXmlException
from defusedxml.sax import make_parser

from daemon.errors import BadRequestError
from daemon.text import ssml_values
from daemon.values import Segment

MAX_DEPTH = 32
_ATTRIBUTES: dict[str, frozenset[str]] = {
    "speak": frozenset({"version", "xmlns", "xsi:schemaLocation"}),
    "p": frozenset(),
    "s": frozenset(),
    "break": frozenset({"time", "strength"}),
    "say-as": frozenset({"interpret-as", "format", "detail", "language"}),
    "sub": frozenset({"alias"}),
    "prosody": frozenset({"rate", "volume"}),
    # these change nothing
    "emphasis": frozenset({"level"}),
    "w": frozenset({"role"}),
    "lang": frozenset(),
    "mark": frozenset({"name"}),
}
"""Every element that is understood, and what it may say of itself (xml:lang and other prefixes of XML: all of them)."""
_SENTENCES = frozenset({"p", "s"})
_NEEDED = {"say-as": "interpret-as", "sub": "alias"}
_EMPTY = frozenset({"break", "mark"})
_TEXT_ONLY = frozenset({"say-as", "sub"})

SayAs = Mapping[str, Callable[[str, str], str]]


def parse_ssml(text: str, say_as: SayAs) -> list[Segment]:
    """Pieces of raw text, pauses, and ends of sentences (neither text nor pause), in order.

    Args:
        text: the whole document.
        say_as: how the language reads what say-as marks.

    Raises:
        BadRequestError: bad_request, with one line that says what is wrong and where.
    """
    handler = _Handler(text, say_as)
    parser = make_parser()
    parser.forbid_dtd = True
    parser.setContentHandler(handler)
    source = InputSource()
    source.setCharacterStream(StringIO(text))
    try:
        parser.parse(source)
    except SAXParseException as err:
        raise _error(err.getMessage(), err.getLineNumber(), err.getColumnNumber()) from err
    except DefusedXmlException as err:
        raise BadRequestError("bad_request", "SSML: DTDs and entities are not allowed") from err
    except UnicodeError as err:
        raise BadRequestError("bad_request", "SSML: a character that is none") from err
    return handler.pieces


def _error(message: str, line: int | None, column: int | None) -> BadRequestError:
    return BadRequestError("bad_request", f"SSML: line {line or 1}, column {(column or 0) + 1}: {message}")


class _Open(NamedTuple):
    """An element that has begun."""

    name: str
    attributes: AttributesImpl
    offset: int
    rate: float
    volume: float


class _Handler(ContentHandler):
    """Collects the pieces. Its errors are raised through the parser."""

    def __init__(self, text: str, say_as: SayAs) -> None:
        super().__init__()
        self.pieces: list[Segment] = []
        self._say_as = say_as
        self._lines = [0, *(match.end() for match in re.finditer(r"\r\n?|\n", text))]
        self._locator = Locator()
        self._open: list[_Open] = []
        self._marked: list[str] = []  # text in say-as or sub

    def setDocumentLocator(self, locator: Locator) -> None:  # noqa: N802  SAX's names
        """Of what is being parsed."""
        self._locator = locator

    def startElement(self, name: str, attrs: AttributesImpl) -> None:  # noqa: N802
        """Check it; breaks, paragraphs and sentences end what came before."""
        self._check(name, attrs)
        rate, volume = (self._open[-1].rate, self._open[-1].volume) if self._open else (1.0, 1.0)
        if name == "prosody":
            rate *= self._value(attrs, "rate", ssml_values.rate, 1.0)
            volume *= self._value(attrs, "volume", ssml_values.volume, 1.0)
        self._open.append(_Open(name, attrs, self._offset(), rate, volume))
        if name in _SENTENCES:
            self._add()
        elif name == "break":
            pause = self._value(attrs, "strength", ssml_values.strength, 0.5)
            self._add(pause_s=self._value(attrs, "time", ssml_values.seconds, pause))

    def characters(self, content: str) -> None:
        """Text; a line's end is a blank."""
        element = self._open[-1]
        if element.name in _TEXT_ONLY:
            self._marked.append(content)
        elif element.name not in _EMPTY:
            self._add(re.sub(r"\s", " ", content))
        elif content.strip():
            raise self._wrong(f"<{element.name}> has no text")

    def endElement(self, name: str) -> None:  # noqa: N802
        """What was marked is read; paragraphs and sentences end."""
        element = self._open[-1]
        if name in _TEXT_ONLY:
            words = element.attributes["alias"] if name == "sub" else self._say(element.attributes)
            self._marked.clear()
            if words.strip():
                self._add(words, offset=element.offset)
        elif name in _SENTENCES:
            self._add()
        self._open.pop()

    def _check(self, name: str, attributes: AttributesImpl) -> None:
        if name not in _ATTRIBUTES:
            raise self._wrong(f"<{name[:40]}> is not supported")
        if (name == "speak") != (not self._open):
            raise self._wrong("<speak> is the outermost element, and the only one of its name")
        if len(self._open) == MAX_DEPTH:
            raise self._wrong(f"more than {MAX_DEPTH} elements in each other")
        if self._open and self._open[-1].name in _EMPTY | _TEXT_ONLY:
            raise self._wrong(f"<{self._open[-1].name}> has no elements in it")
        for attribute in attributes.getNames():
            if attribute not in _ATTRIBUTES[name] and not attribute.startswith(("xml:", "xmlns:")):
                raise self._wrong(f"{attribute[:40]} of <{name}> is not supported")
        needed = _NEEDED.get(name)
        if needed and needed not in attributes:
            raise self._wrong(f"<{name}> needs {needed}")

    def _value(self, attributes: AttributesImpl, name: str, read: Callable[[str], float], default: float) -> float:
        if name not in attributes:
            return default
        try:
            return read(attributes[name])
        except ValueError as err:
            raise self._wrong(f"{name} {err}") from err

    def _say(self, attributes: AttributesImpl) -> str:
        kind = attributes["interpret-as"]
        if kind not in self._say_as:
            raise self._wrong(f"interpret-as must be {', '.join(self._say_as)}, got {kind[:40]!r}")
        text = " ".join("".join(self._marked).split())
        try:
            return self._say_as[kind](text, attributes.get("format", "")) if text else ""
        except ValueError as err:
            raise self._wrong(
                f"{text[:40]!r} is no {kind}: {err}" if str(err) else f"{text[:40]!r} is no {kind}"
            ) from err

    def _add(self, text: str = "", *, offset: int | None = None, pause_s: float = 0.0) -> None:
        element = self._open[-1]
        rate = min(max(element.rate, 0.5), 2.0)
        volume = round(100 * min(element.volume, 1.0))
        self.pieces.append(Segment(text, self._offset() if offset is None else offset, pause_s, rate, volume))

    def _offset(self) -> int:
        """Where the element, its end or the text begins that the parser is at."""
        line, column = self._locator.getLineNumber(), self._locator.getColumnNumber()
        return self._lines[line - 1] + column if line and column is not None else 0

    def _wrong(self, message: str) -> BadRequestError:
        return _error(message, self._locator.getLineNumber(), self._locator.getColumnNumber())
