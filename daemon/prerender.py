"""``crier prerender``: fills the phrase cache of the daemon, which then plays those phrases from disk at once."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from daemon.config import Config, load_config
from daemon.engine.engine import Engine, Folders
from daemon.errors import BadRequestError, ConfigError, StoreError
from daemon.inputs.messages import build_request, decode_text, parse_object
from daemon.output import Writer
from daemon.phrases import PhraseCache, open_phrases
from daemon.places import SYSTEM_CACHE, Places
from daemon.settings import Settings, load_settings
from daemon.synthesizer import Synthesizer
from daemon.text_source import TextSource
from daemon.values import Pcm16, SpeakRequest


def run(args: argparse.Namespace, places: Places) -> int:
    """Do what the command line asks; the exit code is that of bad input if a line was refused.

    Raises:
        SpeechError: nothing is to be kept, a file that cannot be read or written, a bundle that does not load.
    """
    config = load_config(Path(args.config) if args.config else places.config)
    phrases = open_phrases(config.phrases, places.cache, complain=False)  # what cannot be kept ends the command
    if phrases is None:
        raise ConfigError("[phrases] cache is false: nothing that is spoken may be kept; set it to true first")
    lines = list(_lines(_read(args.file)))
    settings = load_settings(places.state / "settings.json", volume=config.audio.volume)
    with Engine(config.engine, Folders(places.voices, places.cache)) as engine:
        work = _Prerender(config, engine, phrases, settings)
        work.run(lines, as_json=args.json)
    print(
        f"{work.made} made, {work.there} already there, {work.refused} refused; "
        f"{phrases.num_bytes / 2**20:.1f} of {config.phrases.max_mb} MB are used in {phrases.folder}"
    )
    if work.lost:
        warning = f"the cache is too small: it holds {work.made + work.there - work.lost} of these phrases"
        print(f"crier: {warning}; raise [phrases] max_mb", file=sys.stderr)
    if places.serves and places.cache != SYSTEM_CACHE:
        print("crier: the service does not see them there; with sudo they are made for the service", file=sys.stderr)
    return BadRequestError.exit_code if work.refused else 0


def _read(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as err:
        raise BadRequestError("bad_request", f"{name}: {err.strerror}") from err


def _lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines that say something, with their numbers."""
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith(b"#"):
            yield number, line.strip()


class _Nowhere:
    """A ``Ring`` that nobody listens to."""

    def write(self, pcm: Pcm16, timeout_s: float) -> int:  # noqa: ARG002 (daemon.output.Ring)
        """Take all of it."""
        return len(pcm)

    def unwrite(self, count: int) -> bool:  # noqa: ARG002
        """Nobody has heard it."""
        return True


class _Prerender:
    """Makes one phrase after another, as the daemon would speak it.

    Attributes:
        made: phrases that are new in the cache.
        there: that were in it.
        refused: lines that cannot be phrases.
        lost: phrases that had to leave again for the others.
    """

    def __init__(self, config: Config, engine: Engine, phrases: PhraseCache, settings: Settings) -> None:
        self._max_chars = config.text.max_chars
        self._engine = engine
        self._phrases = phrases
        self._synthesizer = Synthesizer(engine, text=config.text, phrases=phrases)
        self._voice = engine.voices.known(settings.voice)
        self._speed = settings.speed
        self.made = self.there = self.refused = self.lost = 0

    def run(self, lines: list[tuple[int, bytes]], *, as_json: bool) -> None:
        """Make them all.

        Raises:
            StoreError: the cache cannot be written.
            EngineError: a native library failed.
        """
        columns = (TextColumn("making phrases"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        done: list[SpeakRequest] = []
        with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
            for number, line in bar.track(lines):
                try:
                    request = _request(line, as_json=as_json)
                    self._make(request)
                except BadRequestError as err:
                    self.refused += 1
                    print(f"crier: line {number}: {err}", file=sys.stderr)
                else:
                    done.append(request)
        self.lost = sum(not self._is_there(request) for request in done)

    def _make(self, request: SpeakRequest) -> None:
        self._check(request)
        spoken = self._synthesizer.speak(
            request,
            TextSource(request.text, more=False),
            Writer(_Nowhere()),
            voice=self._voice_of(request),
            speed=self._speed_of(request),
        )
        spoken.keep()
        if spoken.cached:
            self.there += 1
        elif self._is_there(request):
            self.made += 1
        elif self._phrases.error:
            raise StoreError(f"{self._phrases.error}; {self.made} made before that")
        else:
            why = "its speech ran away" if spoken.truncated else f"{spoken.audio_s:.0f} s of speech cannot be kept"
            raise BadRequestError("bad_request", why)

    def _check(self, request: SpeakRequest) -> None:
        """Refuse what the daemon would, and what it would not take from the cache.

        Raises:
            BadRequestError: it cannot be spoken, or goes on from something else.
        """
        if len(request.text) > self._max_chars:
            raise BadRequestError("too_long", f"text is limited to {self._max_chars} characters")
        if request.context:
            raise BadRequestError("bad_request", "context: what goes on from earlier speech is made when it is said")
        voice = self._voice_of(request)
        self._engine.voices.get(voice, request.lang)
        if not self._synthesizer.estimate(request, voice=voice, speed=self._speed_of(request)).audio_s:
            raise BadRequestError("empty", "nothing in the text can be spoken")

    def _is_there(self, request: SpeakRequest) -> bool:
        voice, speed = self._voice_of(request), self._speed_of(request)
        return self._synthesizer.estimate(request, voice=voice, speed=speed).cached

    def _voice_of(self, request: SpeakRequest) -> str | None:
        return request.voice or self._voice

    def _speed_of(self, request: SpeakRequest) -> float:
        return request.speed or self._speed


def _request(line: bytes, *, as_json: bool) -> SpeakRequest:
    """A line as a request.

    Raises:
        BadRequestError: it is none.
    """
    if not as_json:
        return build_request({"text": decode_text(line)})
    data = parse_object(line)
    if data.pop("op", "say") != "say":
        raise BadRequestError("unknown_op", 'op can only be "say" here')
    return build_request(data)
