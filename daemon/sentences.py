"""Text in pieces to raw sentences, each of which can be spoken by itself."""

from daemon.text.languages import find_language
from daemon.text.script import may_be_ssml
from daemon.text.segment import MAX_RAW_CHARS, find_sentence_end


class SentenceCutter:
    """The sentences that the segmenter sees, before it normalises them; a text in SSML is one sentence.

    Args:
        language: code of the text's language.
    """

    def __init__(self, language: str) -> None:
        self._language = find_language(language).sentences
        self._waiting = ""
        self._begun = False

    def push(self, text: str) -> list[str]:
        """Take more text; return the sentences that are now complete."""
        self._waiting += text
        return self._take(ended=False)

    def flush(self) -> list[str]:
        """The text has ended; return what is left."""
        return self._take(ended=True)

    def _take(self, *, ended: bool) -> list[str]:
        if not self._begun and may_be_ssml(self._waiting):
            whole, self._waiting = (self._waiting, "") if ended else ("", self._waiting)
            return [whole] if whole.strip() else []
        sentences: list[str] = []
        while True:
            self._waiting = self._waiting.lstrip()
            end = find_sentence_end(self._waiting[:MAX_RAW_CHARS], self._language, ended=ended)
            if end is None:
                return sentences
            self._begun = True
            sentences.append(self._waiting[:end])
            self._waiting = self._waiting[end:]
