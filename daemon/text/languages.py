"""The languages that texts can be read in, by their codes."""

from functools import lru_cache

from daemon.text.english import ENGLISH
from daemon.text.language import Language

LANGUAGES = {language.code: language for language in (ENGLISH,)}
"""Those that have a module of their own."""


@lru_cache(maxsize=64)
def find_language(code: str) -> Language:
    """The language of a code such as "en", "en-GB" or "de_AT"; one without a module has numbers alone."""
    plain = code.lower().replace("_", "-").split("-")[0]
    if plain in LANGUAGES:
        return LANGUAGES[plain]
    from daemon.text.other import other_language  # noqa: PLC0415 (num2words with all its languages)

    return other_language(plain)
