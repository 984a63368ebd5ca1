"""``python -m quantize verify``: a bundle against the reference implementation, stage by stage."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from daemon.engine.bundle import load_bundle
from daemon.errors import BadRequestError, ModelError
from quantize.progress import Progress
from quantize.verify_rows import Row, codec_rows, compare
from quantize.verify_truth import Storage, Truth


@dataclass(frozen=True, slots=True)
class Report:
    """What was compared."""

    bundle: str
    reference: str
    """Empty where only the codec's test vector was run."""
    recipe: str
    depth_recipe: str
    rows: list[Row]

    @property
    def passed(self) -> bool:
        """Whether every row is within its threshold."""
        return all(row.passed for row in self.rows)


def verify(
    bundle_dir: Path, source: Path | None, *, codec: Path | None = None, frames: int = 50, progress: Progress
) -> Report:
    """Compare a bundle with the checkpoint it was made of; without ``source``, run its codec's test vector alone.

    Args:
        bundle_dir: the bundle.
        source: a CSM checkpoint of either layout.
        codec: Mimi's checkpoint, where it is neither in ``source`` nor in a folder "mimi" beside it.
        frames: how many frames the reference generates.
        progress: where to tell how far it is.

    Raises:
        BadRequestError: ``frames`` is less than 1 or more than half of the model's context.
        ModelError: bundle or checkpoint is missing or damaged, there is no test vector, or torch is not installed.
    """
    bundle = load_bundle(bundle_dir, verify="full")
    most = bundle.manifest.limits.context // 2
    if not 1 <= frames <= most:
        raise BadRequestError("bad_request", f"frames must be 1 to {most}, got {frames}")
    storage = Storage.of(bundle.manifest)
    rows = codec_rows(bundle)
    if source is not None:
        tokenizer = bundle.path("tokenizer")
        truth = _measure(source, codec=codec, tokenizer=tokenizer, storage=storage, frames=frames, progress=progress)
        rows = compare(bundle, storage, truth, progress) + rows
    elif not rows:
        raise ModelError(f"{bundle_dir}: no test vector of its codec in it; give --reference SOURCE to compare with")
    return Report(str(bundle_dir), str(source or ""), storage.backbone, storage.depth_decoder, rows)


def _measure(source: Path, **options: Any) -> Truth:
    """The reference is loaded, asked and gone before the bundle's models are loaded."""
    try:
        from quantize.verify_reference import measure  # noqa: PLC0415  # torch and transformers are an extra
    except ImportError as err:
        raise ModelError(f"the reference needs {err.name}: pip install -e '.[verify]'") from err
    return measure(source, **options)


def print_report(report: Report, *, as_json: bool) -> None:
    """Print the table and the verdict; ``as_json`` puts them on stderr and one JSON object on stdout."""
    table = Table(title=f"{report.bundle} ({report.recipe}, depth decoder {report.depth_recipe})")
    for column in ("stage", "error", "worst", "threshold", "verdict", "note"):
        table.add_column(column, justify="right" if column in {"error", "worst", "threshold"} else "left")
    for row in report.rows:
        numbers = ("-" if number is None else f"{number:.2g}" for number in (row.error, row.worst, row.threshold))
        verdict = "told" if row.threshold is None else "pass" if row.passed else "FAIL"
        table.add_row(row.stage, *numbers, verdict, row.note, style=None if row.passed else "bold red")
    failed = ", ".join(row.stage for row in report.rows if not row.passed)
    alone = "" if report.reference else " (the codec's test vector alone: no --reference)"
    console = Console(stderr=as_json)
    console.print(table)
    for line in (
        "error is over the whole stage, worst is that of its worst vector; what is told has no threshold",
        f"not verified: {failed}" if failed else f"verified: every stage is within its threshold{alone}",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if as_json:
        rows = [{name: _finite(value) for name, value in asdict(row).items()} for row in report.rows]
        print(json.dumps({**asdict(report), "rows": rows, "passed": report.passed}))


def _finite(value: object) -> object:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
