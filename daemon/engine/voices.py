"""The voices of a bundle."""

from daemon.engine.bundle import Manifest, VoiceTable
from daemon.errors import BadRequestError
from daemon.values import VoiceInfo


class Voices:
    """Looks voices up by name."""

    def __init__(self, manifest: Manifest) -> None:
        self._voices = manifest.voices
        self.default = manifest.default_voice

    def get(self, name: str | None, language: str | None = None) -> tuple[str, VoiceTable]:
        """A voice by name (None: the default), which must speak ``language`` where one is asked for.

        Raises:
            BadRequestError: unknown_voice; the message lists what there is.
        """
        wanted = name or self.default
        voice = self._voices.get(wanted)
        if voice is None:
            raise BadRequestError("unknown_voice", f"no voice {wanted!r}; there are: {', '.join(self._voices)}")
        if language and language.lower().replace("_", "-").split("-")[0] != voice.language.split("-")[0]:
            raise BadRequestError("unknown_voice", f"voice {wanted} speaks {voice.language}, not {language}")
        return wanted, voice

    def list(self) -> list[VoiceInfo]:
        """All of them."""
        return [
            VoiceInfo(name=name, description=voice.description, language=voice.language, default=name == self.default)
            for name, voice in self._voices.items()
        ]
