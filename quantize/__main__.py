"""python -m quantize: offline work on models."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from daemon.errors import EngineError, SpeechError
from quantize.convert import RECIPES, Sources, convert, write_bundle
from quantize.gguf_writer import QUANT_TYPES
from quantize.synthetic import SHAPES, synthetic
from quantize.verify import print_report, verify

_EPILOG = (
    "exit codes: 0 done, 2 usage, 66 checkpoint or bundle missing or damaged, 70 not verified, 73 cannot be written"
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except SpeechError as err:
        print(f"quantize: {err}", file=sys.stderr)
        return err.exit_code
    except KeyboardInterrupt:
        print("quantize: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m quantize", description="Offline work on models.", epilog=_EPILOG)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    stored = argparse.ArgumentParser(add_help=False)
    stored.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="the bundle; one of any --quant that is there is replaced",
    )
    stored.add_argument("--quant", choices=RECIPES, required=True, help="how the weights are stored")
    stored.add_argument(
        "--depth-quant", choices=QUANT_TYPES, help="those of the depth decoder (default: q8_0 or better)"
    )
    stored.add_argument("--force", action="store_true", help="begin anew, whatever is there already")

    command = commands.add_parser("convert", parents=[stored], help="make a bundle of a checkpoint", epilog=_EPILOG)
    command.add_argument("source", type=Path, help="folder of safetensors files, or one file")
    command.add_argument("--codec", type=Path, metavar="MIMI", help="checkpoint of Mimi, where SOURCE has none in it")
    command.add_argument("--tokenizer", type=Path, metavar="FILE", help="tokenizer.json, where it is not beside SOURCE")
    command.set_defaults(run=_convert)

    command = commands.add_parser(
        "synthesize", parents=[stored], help="make a bundle of true shapes and random weights, to measure speed with"
    )
    command.add_argument("--shape", choices=SHAPES, required=True)
    command.set_defaults(run=_synthesize)

    command = commands.add_parser("verify", help="compare a bundle with the reference implementation", epilog=_EPILOG)
    command.add_argument("bundle", type=Path, metavar="DIR")
    command.add_argument("--reference", type=Path, metavar="SOURCE", help="the checkpoint it was made of")
    command.add_argument("--codec", type=Path, metavar="MIMI", help="checkpoint of Mimi, where SOURCE has none in it")
    command.add_argument("--frames", type=int, default=50, help="length of the greedy generation")
    command.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    command.set_defaults(run=_verify)
    return parser


def _convert(options: argparse.Namespace) -> int:
    with _bars() as progress:
        written = convert(
            options.source,
            options.out,
            options.quant,
            progress,
            depth_quant=options.depth_quant,
            extra=Sources(options.codec, options.tokenizer),
            force=options.force,
        )
    return _say_done(options.out, written=written)


def _synthesize(options: argparse.Namespace) -> int:
    with _bars() as progress:
        written = write_bundle(
            synthetic(options.shape, f"noise-{options.shape}"),
            options.out,
            options.quant,
            progress,
            depth_quant=options.depth_quant,
            force=options.force,
        )
    return _say_done(options.out, written=written)


def _say_done(out: Path, *, written: bool) -> int:
    print(f"{out}: {'written' if written else 'already done (--force makes it again)'}", file=sys.stderr)
    return 0


def _verify(options: argparse.Namespace) -> int:
    with _bars() as progress:
        report = verify(
            options.bundle, options.reference, codec=options.codec, frames=options.frames, progress=progress
        )
    print_report(report, as_json=options.json)
    return 0 if report.passed else EngineError.exit_code


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar a part, where stderr is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:<18}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:

        def show(part: str, done: int, total: int) -> None:
            if part not in tasks:
                tasks[part] = bars.add_task(part)
            bars.update(tasks[part], completed=done, total=total)

        yield show


if __name__ == "__main__":
    sys.exit(main())
