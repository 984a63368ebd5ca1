"""Text to the token ids of a segment's prompt."""

from tokenizers import Tokenizer

from daemon.engine.bundle import Bundle
from daemon.errors import ModelError


class PromptTokenizer:
    """The bundle's tokenizer.json with the template of its prompts.

    Raises:
        ModelError: not a tokenizers file.
    """

    def __init__(self, bundle: Bundle) -> None:
        path = bundle.path("tokenizer")
        self._template = bundle.manifest.prompt.template
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as err:  # tokenizers raises bare Exception
            raise ModelError(f"{path}: not a tokenizers file: {err}") from err

    def encode(self, text: str, speaker: int) -> list[int]:
        """The prompt of a segment as token ids."""
        return list(self._tokenizer.encode(self._template.format(speaker=speaker, text=text)).ids)
