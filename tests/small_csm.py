"""A small CSM bundle with random weights whose speech ends: everything about it is real but what it says."""

import re
from pathlib import Path

from reference_csm import save_hf, small_model, small_tokenizer

from daemon.config_sections import EngineConfig
from daemon.engine.engine import Engine
from daemon.values import Segment
from quantize.convert import convert

FIRST, SECOND = "The kettle has boiled.", "Tea is ready in the kitchen."


class WholePieces:
    """A segmenter that takes every push as one segment."""

    def __init__(self):
        self._offset = 0

    def push(self, text):
        segment = Segment(text, self._offset)
        self._offset += len(text)
        return [segment]

    def flush(self):
        return []


def edited(bundle: Path, **values: object) -> None:
    """Change keys of the manifest."""
    path = bundle / "manifest.toml"
    text = path.read_text(encoding="utf-8")
    for key, value in values.items():
        text, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
        assert count == 1, key
    path.write_text(text, encoding="utf-8")


def speaking_bundle(folder: Path) -> Path:
    """A float32 bundle, greedy. A code that comes up after a few frames ends speech, as in the starter voice.

    Random weights would never choose the frame of zeros that ends CSM's.
    """
    source = save_hf(small_model(seed=1), folder.with_name(f"{folder.name}-checkpoint"))
    small_tokenizer(source)
    convert(source, folder, "f32", lambda *_: None)
    edited(folder, min_ratio=0.0, temperature=0.0, depth_temperature=0.0)
    with Engine(EngineConfig(bundle=str(folder))) as engine:
        codes = _first_codes(engine)
    frame = next(n for n in range(3, len(codes)) if codes[n] not in codes[:n])
    edited(folder, kind=f'"code"\ncode = {codes[frame]}')
    return folder


def _first_codes(engine: Engine) -> list[int]:
    """Codes of codebook 0 in the speech of a sentence."""
    session = engine.session(WholePieces())
    session.push_text(FIRST)
    session.flush()
    codes = []
    while session.next_audio_chunk() is not None:
        codes.append(int(session.codes[0]))
    return codes
