"""How the speech of a workspace was made, in a file beside it: the index says who spoke what, not in which voice."""

import json
from typing import Any

from daemon.errors import ModelError
from training.config import SpeechConfig
from training.workspace import Workspace

_NAME = "made.json"


def check(work: Workspace, speech: SpeechConfig) -> None:
    """Refuse to go on with what was spoken in another way; what has no note is taken to be as configured.

    Raises:
        ModelError: it was, or the note is damaged.
    """
    note = _read(work)
    if not note or not work.index.exists() or not work.index.stat().st_size:
        return
    for name, value in _makings(speech).items():
        if note.get(name) != value:
            raise ModelError(
                f"{work.index.with_name(_NAME)}: {name}: expected {value}, found {note.get(name)}: flite's speakers or"
                f" their level have changed; take another [paths] work, or remove {work.index.parent} to speak"
                " everything anew"
            )


def write(work: Workspace, speech: SpeechConfig, planned: int) -> None:
    """Note how what is there and what is to come is made, and how many utterances there will be.

    Raises:
        OSError: it cannot be written.
    """
    part = work.index.with_name(f"{_NAME}.part")
    part.write_text(json.dumps(_makings(speech) | {"planned": planned}) + "\n", encoding="utf-8")
    part.replace(work.index.with_name(_NAME))


def planned(work: Workspace) -> int:
    """How many utterances there will be, as far as it is known.

    Raises:
        ModelError: the note is damaged.
    """
    return int(_read(work).get("planned", 0))


def _makings(speech: SpeechConfig) -> dict[str, Any]:
    """What the sound depends on; recordings are told apart by their content."""
    voices = {str(number): speaker.flite for number, speaker in enumerate(speech.speakers) if speaker.flite}
    return {"flite": voices, "level_db": speech.level_db, "margin_s": speech.margin_s}


def _read(work: Workspace) -> dict[str, Any]:
    path = work.index.with_name(_NAME)
    try:
        note = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        int(note.get("planned", 0))
    except (OSError, ValueError, TypeError, AttributeError) as err:
        raise ModelError(
            f"{path}: damaged ({err}); remove it if [speech] is as it was when all this was said"
        ) from None
    return dict(note)
