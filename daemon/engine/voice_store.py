"""Voices that were recorded for a bundle, in FOLDER/BUNDLE/VOICE, outside the bundle itself."""

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import shutil
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from daemon.engine.bundle import AudioTable, Bundle
from daemon.engine.prompt_segment import PromptSegment
from daemon.engine.tokenizer import PromptTokenizer
from daemon.engine.voice_files import CODES, TABLE, check_table, npy_bytes, read_voice, write_voice
from daemon.engine.voices import Voice, VoicePrompt, max_prompt
from daemon.errors import BadRequestError, StoreError

logger = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
"""No separators, no dots: a name cannot leave its folder."""

OLD = ".gone"
"""Behind the name of a voice that is being replaced. It is the voice as long as there is no other."""

_Stamp = tuple[int, ...]
_Seen = tuple[Path, AudioTable, _Stamp, _Stamp]

_TRIES = 3
"""So often a voice is read whose files are changing."""


class VoiceStore:
    """The recorded voices of one bundle. Each call looks at the files anew, and reads those that have changed.

    Callable from any thread, and beside other processes that add and remove voices.

    Args:
        folders: all are read, the first that has a voice counts; the first is written to.
        bundle_name: the folder in each that holds this bundle's voices.
    """

    def __init__(self, folders: Sequence[Path], bundle_name: str) -> None:
        self._folders = [folder / bundle_name for folder in folders]
        self._lock = threading.Lock()
        self._loaded: dict[str, tuple[_Seen | None, Voice | BadRequestError]] = {}  # guarded by _lock

    def path(self, name: str) -> Path | None:
        """The folder of a voice, whole or not; None if there is none."""
        if NAME.fullmatch(name) is None:
            return None
        # The name once more, as a replacement may have come between the looks.
        paths = (folder / entry for folder in self._folders for entry in (name, name + OLD, name))
        # os.path's isdir also says no where it may not look; Path's raises.
        return next((path for path in paths if os.path.isdir(path)), None)  # noqa: PTH112

    def find(self, name: str, audio: AudioTable) -> Voice | None:
        """A voice by name, None if there is none.

        Raises:
            BadRequestError: unknown_voice; it is damaged, or made for a codec of another shape.
        """
        with self._lock:
            voice = self._load(name, audio)
        if isinstance(voice, BadRequestError):
            raise BadRequestError(voice.code, str(voice))
        return voice

    def list(self, audio: AudioTable) -> list[Voice]:
        """All voices that are whole, by name. Each other one is a line in the log, once."""
        names = {entry.removesuffix(OLD) for folder in self._folders for entry in _entries(folder)}
        with self._lock:
            self._loaded = {name: self._loaded[name] for name in names if name in self._loaded}
            voices = [self._load(name, audio) for name in sorted(names)]
        return [voice for voice in voices if isinstance(voice, Voice)]

    def _load(self, name: str, audio: AudioTable) -> Voice | BadRequestError | None:
        """A voice or what is wrong with it, from memory while its files stay as they are; None if there is none."""
        for _ in range(_TRIES):
            seen = self._look(name, audio)
            if seen is None:
                return None
            kept = self._loaded.get(name)
            if kept is not None and kept[0] == seen:
                return kept[1]
            stamp: _Seen | None = seen
            voice: Voice | BadRequestError
            try:
                voice = read_voice(seen[0], name, audio)
            except BadRequestError as err:
                voice = err
            except OSError as err:
                voice = BadRequestError("unknown_voice", f"{err.filename or seen[0]}: {err.strerror}")
                stamp = None  # it may be readable the next time, though nothing about the file changes
            if isinstance(voice, Voice) or self._look(name, audio) == seen:
                break
        if isinstance(voice, BadRequestError) and (kept is None or str(kept[1]) != str(voice)):
            logger.warning("voice unusable: %s", voice)
        self._loaded[name] = stamp, voice
        return voice

    def _look(self, name: str, audio: AudioTable) -> _Seen | None:
        """Where a voice is, and what changes when it has to be read anew."""
        path = self.path(name)
        return None if path is None else (path, audio, _stamp(path / TABLE), _stamp(path / CODES))

    def check_new(self, bundle: Bundle, name: str, *, replace: bool) -> None:
        """Whether a voice may be added under this name.

        Raises:
            BadRequestError: not a name, one of the bundle's own, or taken and not to be replaced.
        """
        if NAME.fullmatch(name) is None:
            allowed = "1 to 64 letters without accents, digits, _ and -, and no - in front"
            raise BadRequestError("bad_request", f"{name!r} cannot be a voice's name: {allowed}")
        if name in bundle.manifest.voices:
            raise BadRequestError("bad_request", f"{name} is a voice of the bundle {bundle.manifest.name} itself")
        path = self.path(name)
        if path is not None and not replace:
            raise BadRequestError("bad_request", f"there is a voice {name} in {path}; --replace puts this one there")

    def add(
        self,
        bundle: Bundle,
        name: str,
        prompt: VoicePrompt,
        *,
        description: str = "",
        language: str = "en",
        speaker: int = 0,
        source: str = "",
        replace: bool = False,
    ) -> Path:
        """Keep a voice; it appears whole or not at all. Returns its folder.

        Raises:
            BadRequestError: the name cannot be had, or the prompt is not one for this bundle.
            ModelError: the bundle's tokenizer cannot be read.
            StoreError: it cannot be written.
        """
        if not self._folders:
            raise StoreError("there is no folder for recorded voices")
        self.check_new(bundle, name, replace=replace)
        audio = bundle.manifest.audio
        content = npy_bytes(prompt.codes)
        table = check_table(
            {
                "name": name,
                "description": description,
                "language": language,
                "speaker": speaker,
                "transcript": prompt.transcript,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "source": source,
                "seconds": round(len(prompt.codes) / audio.frame_rate, 2),
                "num_codebooks": audio.num_codebooks,
                "codebook_size": audio.codebook_size,
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        )
        _check_fit(bundle, prompt, speaker)
        parent = self._folders[0]
        with _writing(parent) as mode:
            self.check_new(bundle, name, replace=replace)  # another may have come first
            part = parent / f"{name}.part"
            _discard(part)
            try:
                write_voice(part, table, content, mode)
                _put(parent / name, part)
            finally:
                _discard(part)
        return parent / name

    def remove(self, name: str) -> Path:
        """Remove a voice, whole or damaged, from the first folder that has it; returns where it was.

        Raises:
            BadRequestError: unknown_voice.
            StoreError: it cannot be removed.
        """
        path = self.path(name)
        if path is None:
            where = ", ".join(str(folder) for folder in self._folders)
            raise BadRequestError("unknown_voice", f"no recorded voice {name!r} in {where}")
        path = path.with_name(name)
        with _writing(path.parent):
            _settle(path)
            part = path.with_name(f"{name}.part")
            _discard(part)
            if os.path.lexists(path):  # no other program removed it meanwhile
                path.rename(part)  # nobody finds half of it
            _discard(part)
        return path


def _check_fit(bundle: Bundle, prompt: VoicePrompt, speaker: int) -> None:
    """Whether the prompt leaves room for speech: its text, its frames and the one that ends it.

    Raises:
        BadRequestError: too_long.
    """
    segment = PromptSegment(PromptTokenizer(bundle).encode(prompt.transcript, speaker), prompt.codes)
    limit = max_prompt(bundle.manifest)
    if segment.num_positions > limit:
        found = f"{segment.num_frames} frames of speech and {len(segment.tokens)} tokens of transcript"
        most = f"{bundle.manifest.name} takes {limit:.0f} of both together"
        raise BadRequestError("too_long", f"{found}: {most}; shorten the recording or the transcript")


def _stamp(path: Path) -> _Stamp:
    """What changes when a file or who may read it does."""
    try:
        status = path.stat()
    except OSError as err:
        return (err.errno or 0,)
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


def _entries(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as err:
        logger.warning("voices unreadable: %s: %s", folder, err.strerror)
        return []


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[int]:
    """Alone among all processes that change a folder, which is made if need be; gives the permissions in it.

    Raises:
        StoreError: it cannot be made, or something in it cannot be changed.
    """
    try:
        mode = _make_folder(folder)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield mode
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as err:
        raise StoreError(f"{err.filename or folder}: cannot be written: {err.strerror}") from err


def _make_folder(folder: Path) -> int:
    """Make a folder as readable as the one it is in, whatever the umask: the service reads what root adds.

    Returns its permissions, without others' to write.
    """
    if not folder.is_dir():
        mode = _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        folder.chmod(mode)
    return folder.stat().st_mode & 0o755


def _put(path: Path, new: Path) -> None:
    """Put a folder where another may be, which goes only then. Nobody finds half of either, nor neither."""
    _settle(path)
    try:
        if os.path.lexists(path):
            path.rename(path.with_name(path.name + OLD))
        new.rename(path)
    finally:
        _settle(path)


def _settle(path: Path) -> None:
    """End a replacement: the old voice goes if the new one is there, else comes back."""
    old = path.with_name(path.name + OLD)
    if os.path.lexists(path):
        _discard(old)
    elif os.path.lexists(old):
        old.rename(path)


def _discard(path: Path) -> None:
    """Remove what is there, if anything. Of a link only itself, not what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
