"""The text a voice reads: its alphabet and the token ids of a prompt."""

from daemon.errors import BadRequestError
from daemon.text.normalize import normalize

ALPHABET = "abcdefghijklmnopqrstuvwxyz' ,.?!"
BOS, EOT = len(ALPHABET), len(ALPHABET) + 1
_FIRST_SPEAKER = EOT + 1
_IDS = {char: number for number, char in enumerate(ALPHABET)}


def num_tokens(num_speakers: int) -> int:
    """Rows of the text embedding table."""
    return _FIRST_SPEAKER + num_speakers


def encode(text: str, speaker: int) -> list[int]:
    """Text of the alphabet -> the ids of its prompt: BOS, the speaker, a token a character, EOT.

    Raises:
        BadRequestError: a character that the alphabet does not have.
    """
    try:
        return [BOS, _FIRST_SPEAKER + speaker, *(_IDS[char] for char in text), EOT]
    except KeyError as err:
        raise BadRequestError("bad_request", f"text {text!r}: {err} is not in the alphabet {ALPHABET!r}") from None


def spoken(text: str) -> str:
    """Text as the daemon would hand it to the voice; "" if nothing of it can be said."""
    return normalize(text, alphabet=ALPHABET)
