"""python -m quantize: offline work on models.

What the extra installs is imported inside the commands: --help works without it, and what is missing is named.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from daemon.errors import EngineError, SpeechError
from quantize.recipes import QUANT_TYPES, RECIPES
from quantize.synthetic_shapes import SHAPES

_NOT_INSTALLED = 69
"""EX_UNAVAILABLE of sysexits: something that the program needs is not there."""
_EPILOG = (
    "exit codes: 0 done, 2 usage, 65 bad --frames, 66 checkpoint or bundle missing or damaged, 69 a library is not"
    " installed, 70 not verified, 73 cannot be written, 130 interrupted"
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except SpeechError as err:
        print(f"quantize: {err}", file=sys.stderr)
        return err.exit_code
    except ModuleNotFoundError as err:
        print(f"quantize: {err.name} is not installed: pip install -e '.[quantize]'", file=sys.stderr)
        return _NOT_INSTALLED
    except KeyboardInterrupt as err:
        print("quantize: interrupted", *getattr(err, "__notes__", []), sep="", file=sys.stderr)
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m quantize", description="Offline work on models.", epilog=_EPILOG)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    stored = _stored()

    about = "make a bundle of a checkpoint"
    command = commands.add_parser("convert", parents=[stored], help=about, description=_sentence(about), epilog=_EPILOG)
    command.add_argument("source", type=Path, help="folder of safetensors files, or one file")
    _add_codec(command)
    command.add_argument("--tokenizer", type=Path, metavar="FILE", help="tokenizer.json, where it is not beside SOURCE")
    command.set_defaults(run=_convert)

    about = "make a bundle of true shapes and random weights, to measure speed with"
    command = commands.add_parser(
        "synthesize", parents=[stored], help=about, description=_sentence(about), epilog=_EPILOG
    )
    command.add_argument(
        "--shape", choices=SHAPES, required=True, help="whose sizes: csm-small has transformers of a thirtieth"
    )
    command.set_defaults(run=_synthesize)

    about = "compare a bundle with the reference implementation"
    command = commands.add_parser("verify", help=about, description=_sentence(about), epilog=_EPILOG)
    command.add_argument("bundle", type=Path, metavar="DIR", help="the bundle, a folder with manifest.toml")
    command.add_argument(
        "--reference",
        type=Path,
        metavar="SOURCE",
        help="the checkpoint it was made of (default: none, only the codec's test vector is run)",
    )
    _add_codec(command)
    command.add_argument(
        "--frames", type=int, default=50, metavar="N", help="length of the greedy generation (default: 50)"
    )
    command.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    command.set_defaults(run=_verify)
    return parser


def _sentence(about: str) -> str:
    return f"{about[0].upper()}{about[1:]}."


def _stored() -> argparse.ArgumentParser:
    """What the commands that write a bundle have in common."""
    stored = argparse.ArgumentParser(add_help=False)
    stored.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="the bundle; one of the same model that is there is replaced, but for its README.md",
    )
    stored.add_argument("--quant", choices=RECIPES, required=True, help="how the weights are stored")
    stored.add_argument(
        "--depth-quant",
        choices=QUANT_TYPES,
        help="how those of the depth decoder are (default: as --quant, but with 8 bits or more)",
    )
    stored.add_argument(
        "--force",
        action="store_true",
        help="begin anew, also if DIR is done already or holds another model; a folder with files that are no"
        " bundle's is never replaced",
    )
    return stored


def _add_codec(command: argparse.ArgumentParser) -> None:
    command.add_argument("--codec", type=Path, metavar="MIMI", help="checkpoint of Mimi, where SOURCE has none in it")


def _convert(options: argparse.Namespace) -> int:
    from quantize.convert import Sources, convert  # noqa: PLC0415  # the extra may be missing

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
    from quantize.convert import write_bundle  # noqa: PLC0415  # the extra may be missing
    from quantize.synthetic import synthetic  # noqa: PLC0415  # likewise

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
    from quantize.verify import print_report, verify  # noqa: PLC0415  # the extra may be missing

    with _bars() as progress:
        report = verify(
            options.bundle, options.reference, codec=options.codec, frames=options.frames, progress=progress
        )
    print_report(report, as_json=options.json)
    return 0 if report.passed else EngineError.exit_code


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar a part, where stderr is a terminal."""
    # Not at the top, so that nothing slow runs before main can say in one line that it was interrupted.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

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
