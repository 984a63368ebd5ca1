"""The voices of a bundle, and those that were recorded for it."""

import hashlib
import logging
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from daemon.engine.bundle import AudioTable, Manifest
from daemon.errors import BadRequestError
from daemon.values import I32, VoiceInfo

logger = logging.getLogger(__name__)

_PROMPT_SHARE = 0.5
"""Share of the context that a voice may take; the rest is for the text and its speech."""


def max_prompt(manifest: Manifest) -> float:
    """The most positions that a voice may take."""
    return manifest.limits.context * _PROMPT_SHARE


@dataclass(frozen=True, slots=True)
class VoicePrompt:
    """A recording that the model hears before every text, so that it goes on in that voice."""

    transcript: str
    codes: I32
    """int32 [T, Q]."""


@dataclass(frozen=True, slots=True)
class Voice:
    """How to speak."""

    name: str
    description: str
    language: str
    speaker: int
    prompt: VoicePrompt | None = None

    def digest(self) -> str:
        """A hash of all that decides how it sounds."""
        prompt = (self.prompt.transcript, self.prompt.codes.shape) if self.prompt else ()
        codes = np.ascontiguousarray(self.prompt.codes).tobytes() if self.prompt else b""
        return hashlib.sha256(repr((self.name, self.speaker, prompt)).encode() + codes).hexdigest()


class RecordedVoices(Protocol):
    """Where the voices that were added to a bundle are found; callable from any thread."""

    def find(self, name: str, audio: AudioTable) -> Voice | None:
        """A voice by name, None if there is none.

        Raises:
            BadRequestError: unknown_voice; it is damaged.
        """

    def list(self, audio: AudioTable) -> list[Voice]:
        """All that are whole."""


def plain_language(language: str) -> str:
    """A language's code in one form: en-us for en_US and EN-us."""
    return language.lower().replace("_", "-")


class Voices:
    """Looks voices up by name: those of the bundle, then those recorded for it, which may come and go meanwhile.

    Callable from any thread.
    """

    def __init__(self, manifest: Manifest, recorded: RecordedVoices | None = None) -> None:
        self._voices = {
            name: Voice(name, table.description, table.language, table.speaker)
            for name, table in manifest.voices.items()
        }
        self._audio = manifest.audio
        self._recorded = recorded
        self.default = manifest.default_voice

    def get(self, name: str | None, language: str | None = None) -> Voice:
        """A voice by name (None: the default), which must speak ``language`` where one is asked for.

        Raises:
            BadRequestError: unknown_voice; the message lists what there is, or says what is wrong with it.
        """
        wanted = name or self.default
        voice = self._voices.get(wanted)
        if voice is None and self._recorded is not None:
            voice = self._recorded.find(wanted, self._audio)
        if voice is None:
            known = ", ".join(voice.name for voice in self.all())
            raise BadRequestError("unknown_voice", f"no voice {wanted!r}; there are: {known}")
        spoken = plain_language(voice.language).split("-")[0]
        if language and plain_language(language).split("-")[0] != spoken:
            raise BadRequestError("unknown_voice", f"voice {wanted} speaks {voice.language}, not {language}")
        return voice

    def known(self, name: str | None) -> str | None:
        """The name that was chosen some time ago, or None (the default) if there is no such voice any more."""
        try:
            self.get(name)
        except BadRequestError as err:
            logger.warning("default voice instead of the chosen one: %s", err)
            return None
        return name

    def all(self) -> list[Voice]:
        """The bundle's, then the recorded ones."""
        recorded = self._recorded.list(self._audio) if self._recorded is not None else []
        return [*self._voices.values(), *(voice for voice in recorded if voice.name not in self._voices)]

    def list(self) -> list[VoiceInfo]:
        """All of them, as they are shown."""
        return [
            VoiceInfo(
                name=voice.name,
                description=voice.description,
                language=voice.language,
                default=voice.name == self.default,
            )
            for voice in self.all()
        ]
