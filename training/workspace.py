"""Where the stages leave their results for one another."""

import fcntl
from pathlib import Path
from typing import IO, Any

from daemon.errors import BadRequestError


class Workspace:
    """The files of one voice in the making, below one folder.

    Args:
        root: the folder; it is made when something is written.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.corpus = self.root / "corpus.json"
        """The texts: {"train": [[text, source]...], "held": ..., "origins": [...]}."""
        self.to_read = self.root / "to-read.csv"
        """Sentences for those who record their own voice, in the form that recordings are named in: file|text."""
        self.audio = self.root / "speech" / "audio.i16"
        """int16, 24 kHz, every utterance after the other."""
        self.index = self.root / "speech" / "index.jsonl"
        """A line an utterance."""
        self.codec = self.root / "codec"
        self.codes = self.root / "codes" / "codes.npy"
        """int16 [frames of all utterances, Q]."""
        self.lm = self.root / "lm"
        self.export = self.root / "export"
        self.bundles = self.root / "bundles"
        self.evaluation = self.root / "evaluation"
        self.plots = self.root / "plots"

    def skipped(self, speaker: str) -> Path:
        """Why recordings of a speaker are not used, a line each."""
        return self.root / "speech" / f"skipped-{speaker}.txt"

    def log(self, stage: str) -> Path:
        """A stage's measurements, a JSON object a line."""
        return self.root / "log" / f"{stage}.jsonl"


def reason(err: Exception) -> str:
    """What went wrong, without the path that the system adds to it: the message has it already."""
    return getattr(err, "error_string", None) or getattr(err, "strerror", None) or str(err)


def hold(file: IO[Any]) -> None:
    """Lock a file that only one run may write to, until it is closed or its process ends.

    Raises:
        BadRequestError: another run has it; the file is closed.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise BadRequestError(
            "bad_request", f"{file.name}: another run of the same stage is at work; wait for it, or stop it"
        ) from None
