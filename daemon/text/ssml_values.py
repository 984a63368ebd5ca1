"""The values of SSML's attributes. Every function raises ValueError with what is allowed."""

import re

_NUMBER = r"([0-9]{1,6}(?:\.[0-9]{0,6})?|\.[0-9]{1,6})"
_SECONDS = re.compile(rf"{_NUMBER} ?(ms|s)")
_AMOUNT = re.compile(rf"([+-]?){_NUMBER}(%|dB)?", re.IGNORECASE)
_MAX_FACTOR = 4.0
"""Of one attribute, so that nested ones stay finite."""

_STRENGTHS = {"none": 0.0, "x-weak": 0.1, "weak": 0.25, "medium": 0.5, "strong": 0.75, "x-strong": 1.0}
_RATES = {"x-slow": 0.5, "slow": 0.75, "medium": 1.0, "default": 1.0, "fast": 1.25, "x-fast": 1.75}
_VOLUMES = {"silent": 0.0, "x-soft": 0.25, "soft": 0.5, "medium": 1.0, "default": 1.0, "loud": 1.4, "x-loud": 2.0}


def seconds(text: str) -> float:
    """A duration: 500ms, 1.5s."""
    match = _SECONDS.fullmatch(text.strip().lower())
    if not match:
        raise ValueError(f"must be a time such as 500ms or 1.5s, got {text[:40]!r}")
    return float(match[1]) / (1000 if match[2] == "ms" else 1)


def strength(text: str) -> float:
    """Seconds of a break."""
    if text not in _STRENGTHS:
        raise ValueError(f"must be {', '.join(_STRENGTHS)}, got {text[:40]!r}")
    return _STRENGTHS[text]


def rate(text: str) -> float:
    """How many times as fast: slow, 80%, +20%, 1.2."""
    factor = _RATES.get(text)
    match = _AMOUNT.fullmatch(text.strip())
    if match and (match[3] or "%") == "%":
        factor = float(match[1] + match[2]) / (100 if match[1] or match[3] else 1) + bool(match[1])
    if not factor or factor <= 0:
        raise ValueError(f"must be {', '.join(_RATES)} or a percentage such as 80% or +20%, got {text[:40]!r}")
    return min(factor, _MAX_FACTOR)


def volume(text: str) -> float:
    """How many times as loud: soft, -6dB, 50, 50%, -10%."""
    factor = _VOLUMES.get(text)
    match = _AMOUNT.fullmatch(text.strip())
    if match:
        number = float(match[1] + match[2])
        if (match[3] or "").lower() == "db":
            factor = 10 ** (min(max(number, -100.0), 100.0) / 20)
        else:
            factor = 1 + number / 100 if match[1] else number / 100
    if factor is None:
        names = ", ".join(_VOLUMES)
        raise ValueError(f"must be {names}, 0 to 100, a percentage or decibels such as -6dB, got {text[:40]!r}")
    return min(max(factor, 0.0), _MAX_FACTOR)
