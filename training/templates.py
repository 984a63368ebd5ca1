"""Announcements of homes, shops and stations: sentences with slots, written as automations write them."""

import random
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path

_CONTENT = tomllib.loads(Path(__file__).with_name("announcements.toml").read_text(encoding="utf-8"))
_MONTHS = "January,February,March,April,May,June,July,August,September,October,November,December"


def _items(text: str, separator: str = ",") -> list[str]:
    return [item.strip() for item in text.strip().split(separator)]


_SLOTS = {name: _items(text) for name, text in _CONTENT["slots"].items()}
TEMPLATES = _items(_CONTENT["templates"]["text"], "\n")
SINGLE = _items(_CONTENT["single"]["words"])
"""One-word utterances."""
_CLOCKS = ("{h}:{m:02d}", "{h}:{m:02d} am", "{h}:{m:02d} pm", "{h} o'clock", "{h} am", "{h} pm", "half past {h}")


class Filler:
    """Fills the slots of the templates at random.

    Args:
        rng: the source of randomness; the same one gives the same sentences.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._slots: dict[str, Callable[[], str]] = {
            **{name: partial(rng.choice, items) for name, items in _SLOTS.items()},
            "R": lambda: rng.choice(_SLOTS["r"]).capitalize(),
            "digit": lambda: str(rng.randint(0, 9)),
            "num": self.number,
            "dec": lambda: f"{rng.randint(0, 99)}.{rng.randint(1, 99)}",
            "big": lambda: f"{rng.randint(1000, 2_000_000):,}",
            "year": lambda: str(rng.randint(1800, 2060)),
            "money": self.money,
            "deg": self.degrees,
            "dur": self.duration,
            "t": self.clock,
            "date": self.date,
        }

    def sentence(self) -> str:
        """A random template with random fillings."""
        return self.fill(self._rng.choice(TEMPLATES))

    def fill(self, template: str) -> str:
        """One template, every slot on its own."""
        while (start := template.find("{s}")) >= 0:
            subject = self._rng.choice(_SLOTS["s"])
            plural = subject in {"they", "we"} or " and " in subject
            verb = self._rng.choice(_SLOTS["vb"]).replace("{is}", "are" if plural else "is")
            template = template[:start] + template[start:].replace("{s}", subject, 1).replace("{vb}", verb, 1)
        parts = template.split("{")
        filled = parts[0] + "".join(self._slots[part.split("}")[0]]() + part.split("}")[1] for part in parts[1:])
        return filled[0].upper() + filled[1:]

    def number(self) -> str:
        """Small numbers more often than large ones."""
        return str(self._rng.choice([self._rng.randint(0, 20), self._rng.randint(0, 99), self._rng.randint(100, 999)]))

    def money(self) -> str:
        """An amount of dollars, sometimes of pounds or euros."""
        sign = self._rng.choice("$$$£€")
        return f"{sign}{self.number()}" + self._rng.choice(["", f".{self._rng.randint(1, 99):02d}"])

    def degrees(self) -> str:
        """A temperature."""
        unit = self._rng.choice([" degrees", "°C", "°F", " degrees outside"])
        return f"{self._rng.choice(['', '', '-'])}{self._rng.randint(0, 99)}{unit}"

    def duration(self) -> str:
        """A number of seconds, minutes, hours, days or weeks."""
        count, unit = self._rng.randint(1, 90), self._rng.choice(["second", "minute", "hour", "day", "week"])
        return f"{count} {unit}{'s' * (count > 1)}"

    def clock(self) -> str:
        """A time of day."""
        return self._rng.choice(_CLOCKS).format(h=self._rng.randint(1, 12), m=self._rng.randint(0, 59))

    def date(self) -> str:
        """A day of the year."""
        month, day = self._rng.choice(_items(_MONTHS)), self._rng.randint(1, 28)
        weekday, year = self._rng.choice(_SLOTS["day"]), self._rng.randint(2010, 2040)
        return self._rng.choice([f"{month} {day}", f"{weekday}, {month} {day}", f"{month} {day}, {year}"])
