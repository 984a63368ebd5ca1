"""crier: the command line. Commands that talk to the daemon start in milliseconds; the others import what they need."""

import argparse
import gc
import json
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from daemon.client_socket import Connection, find_socket
from daemon.errors import SpeechError
from daemon.places import find_places

_EPILOG = """exit codes: 0 done, 2 usage, 65 bad input or rejected, 66 model missing or damaged, 69 daemon or broker
unreachable, 70 engine failed, 71 slower than real time here (doctor), 73 voice not written, 74 audio failed,
75 cancelled or expired (say --wait), 78 bad config, 130 interrupted"""
_SWITCH = {"on": True, "true": True, "off": False, "false": False}

_Run = Callable[[argparse.Namespace], int]


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the exit code."""
    args = build_parser().parse_args(argv)
    try:
        code: int = args.run(args)
    except SpeechError as err:
        print(f"crier: {err}", file=sys.stderr)
        return err.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its end
        return 0
    return code


def build_parser() -> argparse.ArgumentParser:
    """All commands; each sets ``run``."""
    parser = argparse.ArgumentParser(prog="crier", description="Speech for small computers.", epilog=_EPILOG)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    daemon = argparse.ArgumentParser(add_help=False)
    daemon.add_argument("--socket", metavar="PATH", help="the daemon's socket")
    daemon.add_argument("--config", metavar="FILE", help="config.toml that names the socket")
    report = argparse.ArgumentParser(add_help=False, parents=[daemon])
    report.add_argument("--json", action="store_true", help="print the reply as one JSON object")

    _add_say(commands, daemon)
    stop = _request(commands, report, "stop", "fall silent", lambda args: {"op": "stop", "what": args.what})
    stop.add_argument("what", nargs="?", default="all", metavar="all|current|ID")
    for name, text in [
        ("pause", "stop in mid-word"),
        ("resume", "go on from there"),
        ("repeat", "say the last text again"),
        ("status", "state and metrics"),
        ("voices", "the voices that the daemon can speak with"),
    ]:
        _request(commands, report, name, text, partial(_plain, name))
    setting = _request(commands, report, "set", "change volume, mute, voice or speed", _setting)
    setting.add_argument("key", choices=("volume", "mute", "voice", "speed"))
    setting.add_argument("value", help="0..100 or a step such as +5; on or off; a name; 0.5..2")
    _add_local_commands(commands)
    return parser


def _add_say(commands: Any, daemon: argparse.ArgumentParser) -> None:
    say = commands.add_parser("say", parents=[daemon], help="speak a text", epilog=_EPILOG)
    say.add_argument("text", nargs="+", metavar="TEXT", help="'-' reads stdin and speaks it as it arrives")
    say.add_argument("--priority", choices=("normal", "critical", "low"))
    say.add_argument("--voice", metavar="NAME")
    say.add_argument("--key", help="replaces a waiting text of the same key")
    say.add_argument("--ttl", type=_seconds, metavar="SECONDS", help="not spoken if it cannot start by then")
    say.add_argument("--volume", type=int, metavar="PERCENT", help="for this text alone")
    say.add_argument("--speed", type=float, metavar="FACTOR", help="0.5 to 2, for this text alone")
    say.add_argument("--chime", metavar="NAME", help="the sound before it; 'none' for none")
    say.add_argument("--seed", type=int, help="another rendition")
    say.add_argument("--context", action="append", metavar="ID", help="a request before it, oldest first; repeatable")
    say.add_argument("--wait", action="store_true", help="until it has been spoken; prints no id")
    say.set_defaults(run=_elsewhere("daemon.client_say"))


def _add_local_commands(commands: Any) -> None:
    """Commands that need no daemon."""
    config = argparse.ArgumentParser(add_help=False)
    config.add_argument("--config", metavar="FILE")
    config.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    render = commands.add_parser("render", parents=[config], help="speak a text into a WAV file")
    render.add_argument("text", metavar="TEXT", help="'-' reads stdin")
    render.add_argument("--out", metavar="FILE", help="'-' is stdout")
    render.add_argument("--play", action="store_true", help="play it, too")
    render.add_argument("--read", action="store_true", help="print how it is read, and make no audio")
    render.add_argument("--bundle", metavar="DIR|NAME", type=_bundle)
    render.add_argument("--voice", metavar="NAME")
    render.add_argument("--seed", type=int)
    render.add_argument("--speed", type=_speed, default=1.0, metavar="TIMES", help="0.5 to 2; the pitch stays")
    render.add_argument("--temperature", type=float, help="0 is greedy")
    render.add_argument("--depth-temperature", type=float)
    render.add_argument("--top-k", type=int)
    render.add_argument("--raw", action="store_true", help="no normalising, one segment")
    render.add_argument("--codes", metavar="FILE.npy", help="the codes too, int32 [T, Q]")
    render.set_defaults(run=_with_places("daemon.render"))
    prerender = commands.add_parser(
        "prerender", help="make phrases ahead, so that the daemon plays them from disk at once", epilog=_EPILOG
    )
    prerender.add_argument("file", metavar="FILE", help="a text a line; '-' reads stdin")
    prerender.add_argument("--config", metavar="FILE", help="config.toml of the daemon that is to play them")
    prerender.add_argument(
        "--json", action="store_true", help='the lines are JSON objects as on the socket: {"text": ..., "voice": ...}'
    )
    prerender.set_defaults(run=_with_places("daemon.prerender"))
    _add_bench(commands, config)
    doctor = commands.add_parser(
        "doctor", parents=[config], help="what this machine has, what is missing, is it fast enough", epilog=_EPILOG
    )
    doctor.set_defaults(run=_with_places("daemon.doctor"))
    discovery = commands.add_parser("discovery", help="what Home Assistant is told of this speaker", epilog=_EPILOG)
    discovery.add_argument("--config", metavar="FILE")
    discovery.add_argument("--remove", action="store_true", help="take the speaker out of Home Assistant again")
    discovery.set_defaults(run=_with_places("daemon.discovery"))
    _add_voice(commands)


def _add_bench(commands: Any, config: argparse.ArgumentParser) -> None:
    bench = commands.add_parser("bench", parents=[config], help="how fast a bundle speaks here", epilog=_EPILOG)
    bench.add_argument("--bundle", metavar="DIR|NAME", type=_bundle)
    bench.add_argument("--rounds", type=_positive, default=3, metavar="N", help="times every text is spoken (3)")
    bench.add_argument(
        "--idle-s", type=_idle, default=30.0, metavar="SECONDS", help="how long the idle daemon is watched; 0: not (30)"
    )
    bench.add_argument("--compare", metavar="OLD.json", help="set it beside what --json printed another time")
    bench.add_argument("--plot", metavar="FILE.png", help="draw the stages, and latency by length of text")
    bench.add_argument("--peers", action="store_true", help="espeak-ng, flite, transformers and llama-bench, too")
    bench.add_argument("--llama-bench", metavar="PATH", help="as --peers, with llama.cpp's own bench from there")
    bench.set_defaults(run=_elsewhere("daemon.bench.command"))


def _add_voice(commands: Any) -> None:
    bundle = argparse.ArgumentParser(add_help=False)
    bundle.add_argument("--config", metavar="FILE", help="config.toml that names the bundle")
    bundle.add_argument(
        "--bundle", metavar="DIR|NAME", type=_bundle, help="whose voice it is; default: the configured one"
    )
    voice = commands.add_parser("voice", help="voices from recordings", epilog=_EPILOG)
    voice.set_defaults(run=_with_places("daemon.voice"))
    actions = voice.add_subparsers(required=True, metavar="add|list|remove", dest="action")
    add = actions.add_parser("add", parents=[bundle], help="take a voice from a recording of 0.5 to 30 s")
    add.add_argument("name", metavar="NAME", help="letters without accents, digits, _ and -; at most 64")
    add.add_argument("--audio", required=True, metavar="FILE", help="WAV, FLAC, Ogg, MP3 and others, at any rate")
    add.add_argument("--transcript", required=True, metavar="TEXT", help="every word that is said in it")
    add.add_argument("--language", default="en", metavar="CODE", help="what it speaks, as in en or pt-br (en)")
    add.add_argument("--description", default="", metavar="TEXT", help="a line for `crier voices`")
    add.add_argument("--speaker", type=int, default=0, metavar="N", help="number of the speaker in the model's prompt")
    add.add_argument("--replace", action="store_true", help="where there is a voice of this name")
    listing = actions.add_parser("list", parents=[bundle], help="the bundle's voices and the recorded ones")
    listing.add_argument("--json", action="store_true", help="print one JSON object")
    remove = actions.add_parser("remove", parents=[bundle], help="remove a recorded voice")
    remove.add_argument("name", metavar="NAME")


def _bundle(text: str) -> str:
    """A folder that is there is meant as a path, also without a slash."""
    return str(Path(text).resolve()) if (Path(text) / "manifest.toml").exists() else text


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _idle(text: str) -> float:
    if not 0 <= (number := float(text)) <= 3600:
        raise argparse.ArgumentTypeError("must be 0 to 3600")
    return number


def _speed(text: str) -> float:
    if not 0.5 <= (number := float(text)) <= 2.0:
        raise argparse.ArgumentTypeError("must be 0.5 to 2")
    return number


def _seconds(text: str) -> float:
    if not 0 < (number := float(text)) <= 86_400:
        raise argparse.ArgumentTypeError("must be more than 0 and at most 86400")
    return number


def _elsewhere(module: str) -> _Run:
    """The ``run`` of a module that is imported when it is called."""

    def run(args: argparse.Namespace) -> int:
        code: int = _load(module).run(args)
        return code

    return run


def _load(module: str) -> Any:
    gc.disable()  # as in crierd: nothing that loads is garbage
    loaded = import_module(module)
    gc.freeze()
    gc.enable()
    return loaded


def _with_places(module: str) -> _Run:
    """Likewise, of a module that needs the user's folders."""

    def run(args: argparse.Namespace) -> int:
        code: int = _load(module).run(args, find_places(os.environ))
        return code

    return run


def _request(
    commands: Any,
    parent: argparse.ArgumentParser,
    name: str,
    text: str,
    build: Callable[[argparse.Namespace], dict[str, Any]],
) -> argparse.ArgumentParser:
    """A command that is one request and one reply."""

    def run(args: argparse.Namespace) -> int:
        request = build(args)
        with Connection(find_socket(args.socket, args.config, os.environ)) as connection:
            reply = connection.ask(request)
        if args.json:
            print(json.dumps(reply.get("status", reply)))
        else:
            _print_reply(reply)
        return 0

    parser: argparse.ArgumentParser = commands.add_parser(name, parents=[parent], help=text)
    parser.set_defaults(run=run, parser=parser)
    return parser


def _plain(name: str, _args: argparse.Namespace) -> dict[str, Any]:
    return {"op": name}


def _setting(args: argparse.Namespace) -> dict[str, Any]:
    value = args.value
    if args.key == "speed":
        try:
            value = float(value)
        except ValueError:
            args.parser.error("speed is a number from 0.5 to 2")
    if args.key == "mute":
        if value.lower() not in _SWITCH:
            args.parser.error("mute is on or off")
        value = _SWITCH[value.lower()]
    return {"op": "set", args.key: value}


def _print_reply(reply: Mapping[str, Any]) -> None:
    """For people: what a reply holds beside its being one."""
    for voice in reply.get("voices", []):
        mark = "*" if voice["default"] else " "
        print(f"{mark} {voice['name']}  {voice['language']}  {voice['description']}")
    _print_pairs(reply.get("status", {}))


def _print_pairs(pairs: Mapping[str, Any], indent: str = "") -> None:
    width = max([20 - len(indent), *(len(key) + 1 for key in pairs)])
    for key, value in pairs.items():
        if isinstance(value, dict):
            print(f"{indent}{key}")
            _print_pairs(value, indent + "  ")
        else:
            shown = ", ".join(value) if isinstance(value, list) else value
            print(f"{indent}{key:<{width}}{'-' if shown is None else shown}")


if __name__ == "__main__":
    sys.exit(main())
