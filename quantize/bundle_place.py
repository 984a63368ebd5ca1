"""Where a bundle is put: one conversion at a time, nothing of other people's is removed, no half of one is ever found.

All work is done in OUT.part: ``new`` is the bundle being written, ``progress.json`` says what of it is finished (and
that the folder is ours), ``old`` is the bundle that was there, for the moment between two renames.
"""

import fcntl
import json
import os
import shutil
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, ClassVar, Self

from daemon.errors import SpeechError

CARD = "README.md"
"""The model card: written by people, so it moves along when a bundle is replaced."""
MANIFEST = "manifest.toml"
_NOTES = "progress.json"
_NOTES_NEW = _NOTES + ".new"


class BundleWriteError(SpeechError):
    """The bundle cannot be put where it was asked for."""

    exit_code: ClassVar[int] = 73


def reason(err: OSError) -> str:
    """Why writing failed, in words; numpy's own error has a count of what was written and no number."""
    return err.strerror or f"{' '.join(str(err).split())}: the disk may be full"


def sync(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk.

    Raises:
        OSError: they cannot be written.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class BundlePlace:
    """A bundle's folder OUT and what is beside it, ours alone while the context manager is open.

    Opening it also mends what a run that was killed between the last two renames left.

    Attributes:
        out: the bundle's folder, links followed.
        name: the folder's name as it was given.
        new: where the bundle is written.

    Raises:
        BundleWriteError: another conversion writes it, OUT or OUT.part is taken by something else, or the parent
            cannot be written.
    """

    def __init__(self, out: Path) -> None:
        try:
            self.out = out.resolve()
        except (OSError, RuntimeError) as err:  # the latter is Python 3.11's for a link to itself
            raise BundleWriteError(f"{out}: cannot be followed: {err}") from err
        self.name = self.out.name if out.name in {"", ".."} else out.name
        if not self.name:
            raise BundleWriteError(f"{self.out}: not a folder that a bundle can be in")
        self._part = self.out.with_name(f"{self.out.name}.part")
        self._lock_file = self.out.with_name(f".{self.out.name}.part.lock")
        self._old = self._part / "old"
        self.new = self._part / "new"
        self._manifest: dict[str, Any] = {}  # of the bundle that OUT is, where it is one

    def __enter__(self) -> Self:
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self._lock = self._locked()
            try:
                self._mend()
                self._check_out()
            except BaseException:
                self._unlock()
                raise
        except OSError as err:
            raise BundleWriteError(f"{self.out}: cannot be written: {reason(err)}") from err
        return self

    def __exit__(self, *_: object) -> None:
        self._unlock()

    def _locked(self) -> IO[str]:
        """The lock file, locked: the system lets go of it when the process ends, however that happens."""
        while True:
            lock = self._lock_file.open("a")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(lock.fileno()), self._lock_file.stat()):
                    return lock
            except BlockingIOError as err:
                lock.close()
                raise BundleWriteError(f"{self.out}: another conversion is writing it") from err
            except FileNotFoundError:
                pass  # whoever had it removed it after we opened it
            except OSError:
                lock.close()
                raise
            lock.close()

    def _unlock(self) -> None:
        with suppress(OSError):
            self._lock_file.unlink()  # while it is locked: afterwards it may be somebody else's
        self._lock.close()

    def _mend(self) -> None:
        if not self._part_is_ours():
            raise BundleWriteError(f"{self._part}: in the way, and not begun by a conversion; it is left alone")
        if os.path.lexists(self._old):
            if not os.path.lexists(self.out):
                self._old.replace(self.out)
            shutil.rmtree(self._old, ignore_errors=True)
        if not self.new.exists():
            self.discard()

    def _part_is_ours(self) -> bool:
        if not os.path.lexists(self._part):
            return True
        if self._part.is_symlink() or not self._part.is_dir():
            return False
        return self.notes() is not None or {path.name for path in self._part.iterdir()} <= {_NOTES_NEW}

    def notes(self) -> dict[str, Any] | None:
        """What was last written down of the work in ``new``, if anything was."""
        try:
            notes = json.loads((self._part / _NOTES).read_text(encoding="utf-8"))
            if isinstance(notes["key"], str) and isinstance(notes["files"], dict):
                return {"key": notes["key"], "files": notes["files"]}
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return None

    def note(self, notes: dict[str, Any]) -> None:
        """Write down how far the work in ``new`` is: a key and, by role, the files that are finished.

        Raises:
            OSError: it cannot be written.
        """
        self._part.mkdir(exist_ok=True)
        path = self._part / _NOTES_NEW
        path.write_text(json.dumps(notes), encoding="utf-8")
        sync(path)
        path.replace(self._part / _NOTES)

    def discard(self) -> None:
        """Remove OUT.part as far as it can be; what is left goes next time. Nobody else's files are touched."""
        for folder in (self._old, self.new):
            with suppress(OSError):
                (folder / MANIFEST).unlink()  # half a bundle shall not look like one
            shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            if {path.name for path in self._part.iterdir()} <= {_NOTES, _NOTES_NEW}:
                (self._part / _NOTES_NEW).unlink(missing_ok=True)
                (self._part / _NOTES).unlink(missing_ok=True)
                self._part.rmdir()

    def _check_out(self) -> None:
        """Refuse to replace what is not a bundle, or has files in it that are not a bundle's."""
        if not os.path.lexists(self.out):
            return
        if not self.out.is_dir():
            raise BundleWriteError(f"{self.out}: exists and is not a bundle; it is left alone")
        known = self._bundle_files()
        for path in sorted(self.out.iterdir()):
            if path.name not in known or not path.is_file():
                raise BundleWriteError(
                    f"{self.out}: not a bundle, or more than one: {path.name} is in it; move that away, or choose"
                    " another --out"
                )

    def _bundle_files(self) -> set[str]:
        """What may be in OUT."""
        path = self.out / MANIFEST
        try:
            manifest = tomllib.loads(path.read_text(encoding="utf-8"))
            int(manifest["format_version"])
            self._manifest = manifest
            return {MANIFEST, CARD} | {entry["path"] for entry in manifest["files"].values()}
        except FileNotFoundError:
            return {CARD}
        except (ValueError, KeyError, TypeError, AttributeError) as err:
            raise BundleWriteError(f"{path}: not a bundle's; its folder is left alone") from err

    def check_model(self, manifest: dict[str, Any]) -> None:
        """Refuse to replace a bundle of another model; one of another recipe or revision may be replaced.

        Args:
            manifest: what will be written.

        Raises:
            BundleWriteError: OUT's name, family or source differs.
        """
        found = self._manifest
        if found and any(found.get(key) != manifest[key] for key in ("name", "family", "source")):
            known = " ".join(f"{found.get('name')}: {found.get('source')}".split())
            raise BundleWriteError(f"{self.out}: holds another model ({known}); --force replaces it")

    def install(self) -> None:
        """Put ``new`` where OUT is; OUT's model card stays.

        Raises:
            BundleWriteError: by now OUT is something else, or has other files in it.
            OSError: a rename failed; what was there before is there again.
        """
        self._check_out()  # it was a while ago
        if (self.out / CARD).is_file():
            shutil.copy2(self.out / CARD, self.new / CARD)
        with suppress(OSError):  # network file systems cannot always
            sync(self.new)
        is_there = self.out.exists()
        try:
            if is_there:
                self.out.replace(self._old)
            self.new.replace(self.out)
        except BaseException:
            if self._old.exists() and not self.out.exists():
                self._old.replace(self.out)
            raise
        with suppress(OSError):
            sync(self.out.parent)
        self.discard()
