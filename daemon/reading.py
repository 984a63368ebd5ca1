"""How texts are read, as [text] says: lexicon, emoji, the language of the voice."""

from collections.abc import Callable
from functools import lru_cache

from daemon.config import user_path
from daemon.config_sections import TextConfig
from daemon.errors import ConfigError
from daemon.text.lexicon import Lexicon, load_lexicon
from daemon.text.normalize import Normalizer
from daemon.text.script import ScriptSegmenter
from daemon.values import Segment

_REMEMBERED = 32
"""Texts whose segments are kept: a request is read when it is accepted, and again when it is its turn."""


def open_lexicon(text: TextConfig) -> Lexicon | None:
    """The lexicon that [text] names; None if it names none.

    Raises:
        ConfigError: it cannot be read.
    """
    if not text.lexicon:
        return None
    try:
        return load_lexicon(user_path(text.lexicon))
    except ConfigError as err:
        raise ConfigError(f"[text] lexicon: {err}") from err


class Reader:
    """Texts to segments for one bundle. Callable from any thread.

    Args:
        text: lexicon and emoji.
        alphabet: the characters the model knows; None: any.
        count_tokens: how many tokens the model makes of a text.
        max_tokens: the most that a segment may have.

    Raises:
        ConfigError: the lexicon cannot be read.
    """

    def __init__(
        self, text: TextConfig, *, alphabet: str | None, count_tokens: Callable[[str], int], max_tokens: int
    ) -> None:
        self._emoji = text.emoji
        self._lexicon = open_lexicon(text)
        self._alphabet = alphabet
        self._count_tokens = count_tokens
        self._max_tokens = max_tokens
        self.normalizer = lru_cache(maxsize=8)(self._normalizer)
        self.segments = lru_cache(maxsize=_REMEMBERED)(self._segments)

    def segmenter(self, language: str) -> ScriptSegmenter:
        """A fresh segmenter for texts of a language."""
        normalizer = self.normalizer(language)
        return ScriptSegmenter(normalizer, self._count_tokens, self._max_tokens, language=language)

    def _normalizer(self, language: str) -> Normalizer:
        return Normalizer(language=language, alphabet=self._alphabet, lexicon=self._lexicon, emoji=self._emoji)

    def _segments(self, text: str, language: str) -> tuple[Segment, ...]:
        """All of a whole text (``segments`` remembers the last ones).

        Raises:
            BadRequestError: bad SSML.
        """
        segmenter = self.segmenter(language)
        return (*segmenter.push(text), *segmenter.flush())


class ReadSegments:
    """The segmenter of a text that has been read already; what is pushed is that text, and is passed over."""

    def __init__(self, segments: tuple[Segment, ...]) -> None:
        self._segments = segments

    def push(self, text: str) -> list[Segment]:  # noqa: ARG002 (values.Segmenter)
        """Nothing yet: a text that is whole ends at once."""
        return []

    def flush(self) -> list[Segment]:
        """All of it."""
        return list(self._segments)
