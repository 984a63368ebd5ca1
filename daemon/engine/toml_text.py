"""TOML, as far as manifests and voices need it: Python's library only reads it."""

import json
from typing import Any


def to_toml(table: dict[str, Any], prefix: str = "") -> str:
    """Nested dictionaries of strings, numbers and booleans as TOML: a table's own keys first, then its tables."""
    lines = [f"{key} = {_value(value)}" for key, value in table.items() if not isinstance(value, dict)]
    text = "".join(f"{line}\n" for line in lines)
    for key, value in table.items():
        if isinstance(value, dict):
            name = f"{prefix}{key}"
            only_tables = value and all(isinstance(entry, dict) for entry in value.values())
            text += ("" if only_tables else f"\n[{name}]\n") + to_toml(value, f"{name}.")
    return text


def _value(value: object) -> str:
    """JSON's strings, numbers and booleans are TOML's, but for DEL."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")
