"""``crier render``: text to a WAV file, or from stdin to a WAV stream on stdout, without a daemon."""

import argparse
import contextlib
import hashlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, BinaryIO, Self

import numpy as np

from daemon.audio.sink import open_sink, wav_header
from daemon.config import Config, load_config
from daemon.engine.engine import Engine, Folders
from daemon.engine.session import TtsSession
from daemon.errors import AudioError, BadRequestError
from daemon.metrics import resident_memory
from daemon.output import Output, Writer
from daemon.places import Places
from daemon.render_text import WholeText, pieces, print_segments
from daemon.synthesizer import Synthesizer
from daemon.values import SAMPLE_RATE, Array, Pcm16, Segmenter


def run(args: argparse.Namespace, places: Places) -> int:
    """Do what the command line asks; the exit code is that of an audio failure if it could not be played.

    Raises:
        SpeechError: bad text, a bundle that does not load, a file that cannot be written.
    """
    sounds = args.out or args.play or args.codes
    if args.read and sounds:
        print("crier render: --read makes no audio: leave out --out, --play and --codes", file=sys.stderr)
        return 2
    if not (sounds or args.json or args.read):
        print("crier render: nothing to do; give --out FILE, --play or --read", file=sys.stderr)
        return 2
    config = load_config(Path(args.config) if args.config else None)
    engine_config = config.engine
    if args.bundle:
        engine_config = engine_config.model_copy(update={"bundle": args.bundle})
    speaker = _Speaker(config) if args.play else None
    with Engine(engine_config, Folders(places.voices, places.cache)) as engine:
        synthesizer = Synthesizer(engine, text=config.text)
        synthesizer.check_speed(args.speed)
        segmenter: Segmenter = WholeText() if args.raw else synthesizer.segmenter(args.voice)
        if args.read:
            print_segments(pieces(args.text), segmenter, as_json=args.json)
            return 0
        sampling = engine.sampling(
            temperature=args.temperature, depth_temperature=args.depth_temperature, top_k=args.top_k
        )
        session = engine.session(segmenter, voice=args.voice, seed=args.seed, sampling=sampling)
        with contextlib.ExitStack() as stack:
            outputs: list[Any] = []
            if args.out:
                outputs.append(stack.enter_context(_open_wav(args.out)))
            if speaker is not None:
                outputs.append(stack.enter_context(speaker))
            render = _Render(session, outputs, speed=args.speed, keep_codes=bool(args.codes))
            render.speak(pieces(args.text), progress=not args.json and sys.stderr.isatty())
            if render.frames == 0:
                raise BadRequestError("empty", "nothing in the text can be spoken")
            if args.codes:
                _save_codes(Path(args.codes), render.codes)
        _report(args, engine, render)
    return AudioError.exit_code if speaker is not None and speaker.failed else 0


class _Render:
    """One text through a session into the outputs, with its figures; their ``Ring``, which never is full."""

    def __init__(self, session: TtsSession, outputs: list[Any], *, speed: float, keep_codes: bool) -> None:
        self.session = session
        self._speed = speed
        self.samples = 0
        self.frames = 0
        self.digest = hashlib.sha256()
        self.codes: list[Array] = []
        self.ttfa_s = 0.0
        self.synthesis_s = 0.0
        self.truncated = False
        self._outputs = outputs
        self._keep_codes = keep_codes

    def speak(self, text: Iterator[str], *, progress: bool) -> None:
        """Speak the pieces as they come."""
        began = perf_counter()
        writer = Writer(self, lambda: False)
        with _progress(enabled=progress) as show, Output(self.session, writer, speed=self._speed) as output:
            for piece in itertools.chain(text, [None]):
                if piece is None:
                    self.session.flush()
                else:
                    self.session.push_text(piece)
                while (chunk := self._next()) is not None:
                    self._note()
                    output.deliver(chunk)
                    self.ttfa_s = self.ttfa_s or perf_counter() - began
                    show(self.samples / SAMPLE_RATE)
                output.deliver(None)

    def _next(self) -> Pcm16 | None:
        mark = perf_counter()
        chunk = self.session.next_audio_chunk()
        self.synthesis_s += perf_counter() - mark
        return chunk

    def _note(self) -> None:
        described = self.session.chunk
        self.frames += described.frames
        self.truncated |= described.truncated
        if self._keep_codes and described.frames:
            self.codes.append(self.session.codes.copy())

    def write(self, pcm: Pcm16, timeout_s: float) -> int:  # noqa: ARG002 (daemon.output.Ring)
        """Write int16 [S] to all outputs."""
        self.samples += len(pcm)
        self.digest.update(pcm.tobytes())
        for output in self._outputs:
            output.write(pcm)
        return len(pcm)

    def unwrite(self, count: int) -> bool:
        """What is written stays."""
        return count == 0


def _save_codes(path: Path, codes: list[Array]) -> None:
    try:
        with path.open("wb") as file:
            np.save(file, np.stack(codes).astype(np.int32))
    except OSError as err:
        raise AudioError(f"{path}: {err.strerror}") from err


@contextlib.contextmanager
def _progress(*, enabled: bool) -> Iterator[Callable[[float], None]]:
    """Shows how many seconds there are, for people who watch."""
    if not enabled:
        yield lambda _seconds: None
        return
    from rich.console import Console  # noqa: PLC0415 (a quarter of all imports, for a bar that scripts do not see)
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (TextColumn("speaking"), BarColumn(), TextColumn("{task.fields[seconds]:.1f} s"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, seconds=0.0)
        yield lambda seconds: bar.update(task, seconds=seconds)


def _report(args: argparse.Namespace, engine: Engine, render: _Render) -> None:
    audio_s = render.samples / SAMPLE_RATE
    figures = {
        "audio_s": round(audio_s, 3),
        "rtf": round(render.synthesis_s / audio_s, 4),
        "ttfa_ms": round(render.ttfa_s * 1000, 1),
        "frames": render.frames,
        "sample_rate": SAMPLE_RATE,
        "pcm_sha256": render.digest.hexdigest(),
        "bundle": engine.bundle.manifest.name,
        "voice": args.voice or engine.voices.default,
        "seed": render.session.seed,
        "truncated": render.truncated,
        "threads": engine.num_threads,
        "peak_rss_bytes": resident_memory()["peak_rss_bytes"],
    }
    if args.json:
        print(json.dumps(figures), file=sys.stderr if args.out == "-" else sys.stdout)
    else:
        where = "" if args.out in (None, "-") else f" in {args.out}"
        print(f"{audio_s:.1f} s of speech{where}, made in {render.synthesis_s:.2f} s", file=sys.stderr)


@contextlib.contextmanager
def _open_wav(path: str) -> Iterator["_WavWriter"]:
    """A WAV file that appears under its name only when it is whole; a WAV stream to stdout (``-``), FIFO or device.

    Raises:
        AudioError: it cannot be written.
    """
    target = Path(path)
    try:
        if path == "-":
            yield _WavWriter(sys.stdout.buffer, wav_header(None))
        elif target.exists() and not target.is_file():  # put in place of /dev/null, a file would destroy it
            with target.open("wb") as stream:
                yield _WavWriter(stream, wav_header(None))
        else:
            yield from _whole_file(target)
    except BrokenPipeError:
        raise  # whoever read it has heard enough: not an error of ours
    except OSError as err:
        raise AudioError(f"{path}: {err.strerror}") from err


def _whole_file(target: Path) -> Iterator["_WavWriter"]:
    part = target.with_name(target.name + ".part")
    try:
        with part.open("wb") as file:
            writer = _WavWriter(file, wav_header(0))
            yield writer
            file.seek(0)
            file.write(wav_header(writer.num_bytes))
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


class _WavWriter:
    """Appends samples behind a header, at once, so that a pipe can play them while the rest is made."""

    def __init__(self, file: BinaryIO, header: bytes) -> None:
        self._file = file
        self.num_bytes = 0
        file.write(header)

    def write(self, pcm: Pcm16) -> None:
        """Append int16 [S]."""
        self._file.write(pcm.tobytes())
        self._file.flush()
        self.num_bytes += pcm.nbytes


class _Speaker:
    """Plays what is rendered on the configured device; says why if it cannot, and lets the render go on."""

    def __init__(self, config: Config) -> None:
        self._sink = open_sink(config.audio.model_copy(update={"sink": "pyaudio"}))
        self._audio = config.audio
        self._working = False
        self.failed = False

    def __enter__(self) -> Self:
        try:
            self._sink.open()
            self._sink.write(_silence(self._audio.lead_ms))
            self._working = True
        except AudioError as err:
            self._give_up(err)
        return self

    def write(self, pcm: Pcm16) -> None:
        """Play int16 [S]; waits for the device."""
        if not self._working:
            return
        try:
            self._sink.write(pcm)
        except AudioError as err:
            self._give_up(err)

    def __exit__(self, *_: object) -> None:
        if self._working:
            self.write(_silence(self._audio.tail_ms + round(self._sink.latency_s * 1000)))
        self._sink.close()

    def _give_up(self, err: AudioError) -> None:
        self._working = False
        self.failed = True
        print(f"crier: not played: {err}", file=sys.stderr)


def _silence(milliseconds: int) -> Pcm16:
    return np.zeros(SAMPLE_RATE * milliseconds // 1000, np.int16)
