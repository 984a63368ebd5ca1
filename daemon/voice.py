"""``crier voice``: voices from recordings, for a bundle but kept outside it. Loads its codec's encoder alone."""

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from daemon.config import load_config
from daemon.engine.bundle import KV_FOLDER, Bundle, bundle_search, find_bundle, load_bundle
from daemon.engine.codec_encoder import CodecEncoder
from daemon.engine.recording import active_level, load_recording
from daemon.engine.voice_files import LANGUAGE
from daemon.engine.voice_store import VoiceStore
from daemon.engine.voices import VoicePrompt, Voices, plain_language
from daemon.errors import BadRequestError
from daemon.places import Places
from daemon.values import SAMPLE_RATE


def run(args: argparse.Namespace, places: Places) -> int:
    """Do what the command line asks; returns the exit code.

    Raises:
        SpeechError: a bad recording or name, a bundle that does not load, a folder that cannot be written.
    """
    bundle = _load_bundle(args, places)
    store = VoiceStore(places.voices, bundle.manifest.name)
    if args.action == "add":
        _add(args, bundle, store, places)
    elif args.action == "remove":
        _remove(args.name, bundle, store, places.cache)
    else:
        _list(bundle, store, as_json=args.json)
    return 0


def _load_bundle(args: argparse.Namespace, places: Places) -> Bundle:
    """The bundle that is named, else the one of the configuration that the daemon would use."""
    path = Path(args.config) if args.config else places.config
    if not args.config and path is not None and not os.access(path, os.R_OK):
        path = None  # the service's, which is not for everyone to read
    config = load_config(path).engine
    return load_bundle(find_bundle(args.bundle or config.bundle, bundle_search(config)), verify=config.verify)


def _add(args: argparse.Namespace, bundle: Bundle, store: VoiceStore, places: Places) -> None:
    store.check_new(bundle, args.name, replace=args.replace)
    transcript = args.transcript.strip()
    if not transcript:
        raise BadRequestError("bad_request", "the transcript is empty; give the words of the recording")
    language = plain_language(args.language)
    if LANGUAGE.fullmatch(language) is None:
        raise BadRequestError("bad_request", f"--language {args.language!r}: give a code such as en, de or en-US")
    encoder = CodecEncoder(bundle, num_threads=len(os.sched_getaffinity(0)))
    path = Path(args.audio)
    pcm = load_recording(path)
    folder = store.add(
        bundle,
        args.name,
        VoicePrompt(transcript, encoder.encode(pcm)),
        description=" ".join(args.description.split()),  # `crier voices` gives each voice a line
        language=language,
        speaker=args.speaker,
        source=path.name.encode(errors="replace").decode(),
        replace=args.replace,
    )
    print(f"voice {args.name}: {len(pcm) / SAMPLE_RATE:.1f} s of speech at {active_level(pcm):.0f} dBFS, in {folder}")
    if places.serves and len(places.voices) > 1:
        print("the service does not see it there; with sudo it is added for the service", file=sys.stderr)


def _remove(name: str, bundle: Bundle, store: VoiceStore, cache: Path) -> None:
    if name in bundle.manifest.voices and store.path(name) is None:
        raise BadRequestError("bad_request", f"{name} is a voice of the bundle {bundle.manifest.name} itself; it stays")
    print(f"voice {name}: removed from {store.remove(name).parent}")
    for path in (cache / KV_FOLDER).glob("*.kv"):  # whose they are is not told; the other voices' are made again
        with contextlib.suppress(OSError):
            path.unlink()


def _list(bundle: Bundle, store: VoiceStore, *, as_json: bool) -> None:
    rate = bundle.manifest.audio.frame_rate
    voices = Voices(bundle.manifest, store)
    # A bundle may come to have a voice of the same name: then its own is used.
    hidden = [voice.name for voice in store.list(bundle.manifest.audio) if voice.name in bundle.manifest.voices]
    entries: list[dict[str, Any]] = [
        {
            "name": voice.name,
            "description": voice.description,
            "language": voice.language,
            "speaker": voice.speaker,
            "default": voice.name == voices.default,
            "recorded_s": None if voice.prompt is None else round(len(voice.prompt.codes) / rate, 2),
            "transcript": None if voice.prompt is None else voice.prompt.transcript,
        }
        for voice in voices.all()
    ]
    if as_json:
        print(json.dumps({"bundle": bundle.manifest.name, "voices": entries, "hidden": hidden}))
        return
    for entry in entries:
        mark = "*" if entry["default"] else " "
        recorded = "" if entry["recorded_s"] is None else f"  (recorded, {entry['recorded_s']:.1f} s)"
        print(f"{mark} {entry['name']}  {entry['language']}  {entry['description']}{recorded}")
    for name in hidden:
        print(
            f"  {name}  (recorded, but hidden by the bundle's own voice {name}; crier voice remove {name} removes it)"
        )
