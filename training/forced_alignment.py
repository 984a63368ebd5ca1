"""Which phone is said when in a recording: forced alignment by pocketsphinx, with the dictionary that it comes with."""

import re
from functools import cache

from pocketsphinx import Decoder

from daemon.values import F32
from training.hearing import PADDING_S, RATE, listen, padded
from training.phones import SILENCE, phone_id

_FRAME_S = 0.01
_NO_PHONE = re.compile(r"[^A-Za-z]")
"""In the names of noises: +NSN+, [BREATH]."""


@cache
def _decoder() -> Decoder:
    return Decoder(samprate=RATE, lm=None, loglevel="FATAL")


def phones(audio: F32, rate: int, text: str) -> list[tuple[int, float]]:
    """The phones that are said, as ids and ends in seconds; none where they cannot be told.

    That is where the dictionary lacks a word, or where the speech does not have room for the text.

    Args:
        audio: float32 [S], mono.
        rate: its sample rate, Hz.
        text: in the alphabet.
    """
    decoder = _decoder()
    words = re.findall(r"[a-z']+", text)
    if not words or any(decoder.lookup_word(word) is None for word in words):
        return []
    heard = padded(audio, rate)
    decoder.reinit_feat()  # it adapts to what it has heard, and the same speech is to give the same phones
    try:
        decoder.set_align_text(" ".join(words))
        listen(decoder, heard)
        decoder.set_alignment()  # the words are found; now their phones
        listen(decoder, heard)
    except RuntimeError:
        return []
    found = [
        (phone.name, (phone.start + phone.duration) * _FRAME_S) for word in decoder.get_alignment() for phone in word
    ]
    return [
        (SILENCE if _NO_PHONE.search(name) else phone_id(name), end - PADDING_S)
        for name, end in found
        if end > PADDING_S
    ]
