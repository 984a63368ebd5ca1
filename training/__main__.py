"""python -m training: make a voice, stage by stage.

What the extra installs is imported inside the stages: --help works without it, and what is missing is named.
"""

import argparse
import importlib
import os
import shlex
import signal
import sys
import time
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from daemon.errors import SpeechError
from training.stopping import Stopped

if TYPE_CHECKING:
    from training.config import Config

TEXT_STAGES = {"corpus": "choose the texts", "speak": "have the teacher speak them, or read the recordings"}
TRAINING_STAGES = {
    "codec": "train the codec: sound to codes and back",
    "encode": "turn the speech into codes",
    "lm": "train the language model: text to codes",
    "export": "make bundles of what was trained",
    "evaluate": "compare the bundles with the teacher, on text never trained on",
}
_WITHOUT_STEPS = ("speak", "evaluate")
"""Their work is on the CPU in any case, and comes out the same in however many processes."""
_NOT_INSTALLED = 69
"""EX_UNAVAILABLE of sysexits: something that the program needs is not there."""
_EPILOG = """\
Ctrl-C, SIGTERM and --minutes end a stage after saving; the same command goes on
from there.

exit codes: 0 done or stopped, 2 usage, 65 not to be used: the device, the recordings,
the model card, or files that another run is at work on, 66 checkpoint, data or program
missing or damaged, 69 a library is not installed, 70 a process crashed, 73 cannot be
written, 78 bad configuration, 130 interrupted before anything could be saved"""


@dataclass(frozen=True)
class _Means:
    """What the stages are given beside the configuration."""

    device: str
    processes: int | None
    deadline_s: float | None
    phase: str | None

    def arguments(self, stage: str) -> dict[str, Any]:
        """The keyword arguments of the stage's ``run``.

        Raises:
            Stopped: the minutes are over.
        """
        minutes = None
        if self.deadline_s is not None:
            minutes = (self.deadline_s - time.monotonic()) / 60
            if minutes <= 0:
                raise Stopped
        if stage == "corpus":
            return {}
        given: dict[str, Any] = {
            "minutes": minutes,
            "processes": self.processes or _default_processes(stage, self.device),
        }
        if stage in TRAINING_STAGES:
            given["device"] = self.device
        return given | ({"phase": self.phase} if stage == "codec" and self.phase else {})


def main(arguments: list[str] | None = None) -> int:
    """Run one stage or all; returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    options = _options(given)
    try:
        return _run(options, f"python -m training {shlex.join(given)}")
    except SpeechError as err:
        print(f"training: {err}", file=sys.stderr)
        return err.exit_code
    except ModuleNotFoundError as err:
        package = (err.name or "").partition(".")[0]
        if package in ("", "training", "daemon", "quantize"):
            raise
        print(f"training: {package} is not installed: pip install -e '.[training]'", file=sys.stderr)
        return _NOT_INSTALLED
    except KeyboardInterrupt:
        print("training: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130


def _options(given: list[str]) -> argparse.Namespace:
    stages = {**TEXT_STAGES, **TRAINING_STAGES, "all": "one after the other"}
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="Make a voice, stage by stage:\n"
        + "\n".join(f"  {name:<9} {about}" for name, about in stages.items()),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stage", choices=stages, metavar="STAGE", help="one of the above")
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("training/starter.toml"),
        metavar="FILE",
        help="the voice (default: %(default)s)",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument(
        "--processes",
        type=_count,
        metavar="N",
        help="on the CPU with one thread each (default: speak and evaluate one for each core; the others 2 where there"
        " are two cores, 1 on cuda); a training step's batch is that of the configuration times N",
    )
    parser.add_argument("--minutes", type=_minutes, metavar="M", help="stop after so many")
    parser.add_argument("--phase", choices=("recon", "adversary"), help="of the codec, one alone")
    parser.add_argument(
        "--set",
        type=_assignment,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="instead of what the configuration says, as in lm.steps=4000; may be repeated",
    )
    options = parser.parse_args(given)
    if options.phase and options.stage != "codec":
        parser.error("--phase is for the stage codec")
    return options


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 256:
        raise argparse.ArgumentTypeError(f"expected 1..256, found {number}")
    return number


def _minutes(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"expected more than 0, found {text}")
    return number


def _assignment(text: str) -> tuple[str, Any]:
    """``section.key=value``, the value as in TOML, or a string without quotes."""
    name, found, value = text.partition("=")
    if not found or "." not in name:
        raise argparse.ArgumentTypeError(f"expected SECTION.KEY=VALUE, found {text!r}")
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value


def _run(options: argparse.Namespace, command: str) -> int:
    from training.config import load  # noqa: PLC0415  # pydantic, only once something is to be done

    config = load(options.config, dict(options.set))
    means = _Means(
        device=options.device,
        processes=options.processes,
        deadline_s=None if options.minutes is None else time.monotonic() + 60 * options.minutes,
        phase=options.phase,
    )
    stages = (*TEXT_STAGES, *TRAINING_STAGES) if options.stage == "all" else (options.stage,)
    # Before anything runs for hours, so that what is missing is said now.
    modules = {stage: importlib.import_module(f"training.{stage}") for stage in stages}
    if not TRAINING_STAGES.keys().isdisjoint(stages):
        importlib.import_module("training.plots")
    for stage, module in modules.items():
        if len(stages) > 1:
            print(f"training: {stage}", file=sys.stderr)
        try:
            _stage(stage, module, config, means)
        except Stopped:
            print(f"training: {stage} stopped before its end; to go on: {command}", file=sys.stderr)
            return 0
    return 0


def _default_processes(stage: str, device: str) -> int:
    cores = len(os.sched_getaffinity(0))
    if stage in _WITHOUT_STEPS:
        return cores
    return min(2, cores) if device == "cpu" else 1


def _stage(stage: str, module: ModuleType, config: "Config", means: _Means) -> None:
    """Run one stage and draw what it logged.

    Raises:
        Stopped: it ended early.
    """
    if stage in TEXT_STAGES:
        try:
            module.run(config, **means.arguments(stage))
        except KeyboardInterrupt:  # they keep what they have at any time
            raise Stopped from None
        return
    began_s = time.time()
    try:
        module.run(config, **means.arguments(stage))
    except BaseException:
        with suppress(SpeechError):  # what went wrong first is to be said
            _draw_logs(config, began_s)
        raise
    _draw_logs(config, began_s)


def _draw_logs(config: "Config", since_s: float) -> None:
    """Draw the curves of every log that was written to since ``time.time()`` was ``since_s``."""
    from training.plots import losses  # noqa: PLC0415  # the extra may be missing
    from training.workspace import Workspace  # noqa: PLC0415  # likewise

    work = Workspace(config.paths.work)
    for log in sorted(work.log("any").parent.glob("*.jsonl")):
        if log.stat().st_mtime >= since_s:
            losses(log, work.plots / f"{log.stem}.png")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
