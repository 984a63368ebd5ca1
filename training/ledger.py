"""A dictionary in a file that grows a line at a time: what was found out once is not found out again."""

import json
from pathlib import Path
from typing import Any

from daemon.errors import StoreError


class Ledger:
    """Keys and values of JSON, kept on disk as they come; a line cut short by a crash is dropped.

    One process at a time may write.

    Args:
        path: the file; it and its folder are made with the first entry.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, Any] = {}
        self._whole = 0
        try:
            content = path.read_bytes() if path.exists() else b""
        except OSError as err:
            raise StoreError(f"{path}: cannot be read: {err.strerror}") from err
        for line in content.splitlines(keepends=True):
            try:
                key, value = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n"):
                break
            self._entries[key] = value
            self._whole += len(line)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __getitem__(self, key: str) -> Any:
        return self._entries[key]

    def __setitem__(self, key: str, value: Any) -> None:
        line = json.dumps([key, value]).encode() + b"\n"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("r+b" if self._path.exists() else "xb") as file:
                file.truncate(self._whole)
                file.seek(self._whole)
                file.write(line)
        except OSError as err:
            raise StoreError(f"{self._path}: cannot be written: {err.strerror}") from err
        self._whole += len(line)
        self._entries[key] = value
