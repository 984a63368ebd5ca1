"""``--compare OLD.json``: an earlier result beside this one."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from daemon.bench.result import FORMAT, MS, ROWS, shown
from daemon.errors import BadRequestError

_SAME = ("bundle", "recipe", "depth_recipe", "revision", "threads")
_SAME_MACHINE = ("cpu", "cores", "memory_bytes", "python", "llama_cpp_python", "onnxruntime")


def load_result(path: Path) -> dict[str, Any]:
    """The result in a file: its last line, as ``crier bench --json`` prints it.

    Raises:
        BadRequestError: there is no file, or no result in it.
    """
    try:
        lines = path.read_text(encoding="utf-8").strip().splitlines()
    except OSError as err:
        raise BadRequestError("bad_request", f"--compare {path}: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise BadRequestError("bad_request", _no_result(path)) from err
    try:
        result = json.loads(lines[-1] if lines else "")
    except ValueError as err:
        raise BadRequestError("bad_request", _no_result(path)) from err
    if not _is_result(result):
        raise BadRequestError("bad_request", _no_result(path))
    whole: dict[str, Any] = result
    return whole


def _no_result(path: Path) -> str:
    return f"--compare {path}: no result of this program's `crier bench --json`"


def _is_result(value: object) -> bool:
    """Whether every figure that is compared is a number."""
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        return False
    tables = (value.get("machine"), value.get("frame_ms"))
    if not all(isinstance(table, dict) for table in tables):
        return False
    figures = [*(value.get(key) for key, _, _ in ROWS), *value["frame_ms"].values()]
    return all(figure is None or (isinstance(figure, int | float) and figure is not True) for figure in figures)


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What beside this program is not the same in both, a line each."""
    pairs = [(name, old.get(name), new.get(name)) for name in _SAME]
    pairs += [(name, old["machine"].get(name), new["machine"].get(name)) for name in _SAME_MACHINE]
    return [f"{name.replace('_', ' ')}: {before} then, {now} now" for name, before, now in pairs if before != now]


def rows(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Figure, old, new, new over old; where one of both lacks a figure, a dash."""
    compared = [(name, old.get(key), new.get(key), how) for key, name, how in ROWS]
    stages = dict.fromkeys([*old["frame_ms"], *new["frame_ms"]])
    compared += [(f"{stage}, a frame", old["frame_ms"].get(stage), new["frame_ms"].get(stage), MS) for stage in stages]
    return [
        (name, shown(before, how), shown(now, how), _ratio(before, now))
        for name, before, now, how in compared
        if before is not None or now is not None
    ]


def _ratio(before: float | None, now: float | None) -> str:
    return f"{now / before:.3f}" if before and now is not None else "-"


def print_comparison(console: Console, old: dict[str, Any], new: dict[str, Any]) -> None:
    """The table, and above it what keeps the two from being compared fairly."""
    for line in differences(old, new):
        console.print(f"not the same: {line}", style="yellow", markup=False, highlight=False)
    table = Table("figure", title=f"{old.get('measured_at', 'earlier')} and now")
    for column in ("old", "new", "new / old"):
        table.add_column(column, justify="right")
    for row in rows(old, new):
        table.add_row(*row)
    console.print(table)
