"""python -m quantize: offline work on models."""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from daemon.errors import SpeechError
from quantize.convert import RECIPES, convert


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        _convert(options.source, options.out, options.quant)
    except SpeechError as err:
        print(f"quantize: {err}", file=sys.stderr)
        return err.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m quantize", description="Offline work on models.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("convert", help="make a bundle of a checkpoint")
    command.add_argument("source", type=Path, help="folder of safetensors files, or one file")
    command.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the bundle; one that exists is replaced"
    )
    command.add_argument("--quant", choices=RECIPES, required=True, help="how the weights are stored")
    return parser


def _convert(source: Path, out: Path, quant: str) -> None:
    """Convert with a progress bar where stderr is a terminal."""
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("convert")

        def show(part: str, done: int, total: int) -> None:
            bar.update(task, description=part, completed=done, total=total)

        convert(source, out, quant, show)


if __name__ == "__main__":
    sys.exit(main())
