"""The sounds of American English as flite names them."""

SILENCE = 0
_NAMES = (
    "pau aa ae ah ao aw ax ay b ch d dh dx eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh uw v w y z zh"
)
PHONES = tuple(_NAMES.split())
"""By id; 0 is silence, and no sound at all where a character is silent."""
_IDS = {name: number for number, name in enumerate(PHONES)}
_SAME = {"axr": "er", "el": "l", "em": "m", "en": "n", "nx": "n", "hv": "hh", "sil": "pau", "h#": "pau", "brth": "pau"}


def phone_id(name: str) -> int:
    """The id of a phone by flite's or CMU's name (stress digits are ignored).

    Raises:
        KeyError: no such phone.
    """
    name = name.lower().rstrip("012")
    return _IDS[_SAME.get(name, name)]
