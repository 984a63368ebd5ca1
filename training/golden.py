"""What the trained models say in PyTorch, kept to compare bundles with: tests/golden has that of the starter voice."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from daemon.engine.bundle import LimitsTable, load_bundle
from daemon.engine.families.csm import CsmModel
from daemon.engine.sampling import Sampling
from daemon.engine.voices import Voice
from daemon.errors import StoreError
from daemon.values import Array
from training import text
from training.codec_model import Codec
from training.limits import FRAME_RATE
from training.lm_generate import generate
from training.lm_model import SpeechLm
from training.speech import Utterance

_GREEDY = Sampling(0.0, 1)
_NUM_TEXTS = 3


def choose(held: Sequence[Utterance]) -> list[Utterance]:
    """A few held-out texts, from short to long, in different voices where there are several."""
    by_length = sorted(held, key=lambda item: (len(item.text), item.speaker, item.text))
    speakers = sorted({item.speaker for item in held})
    chosen = []
    for number in range(_NUM_TEXTS):
        speaker = speakers[number % len(speakers)]
        own = [item for item in by_length if item.speaker == speaker]
        chosen.append(own[(2 * number + 1) * len(own) // (2 * _NUM_TEXTS)])
    return chosen


def write_golden(path: Path, model: SpeechLm, codec: Codec, said: Sequence[Utterance], limits: LimitsTable) -> None:
    """Write texts, speakers, greedy codes int16 [T, Q] and PCM float32 [S] of some utterances, each with a number.

    Raises:
        StoreError: it cannot be written.
    """
    prompts = [text.encode(item.text, item.speaker) for item in said]
    most = [_most_frames(len(prompt), limits) for prompt in prompts]
    arrays: dict[str, Array] = {}
    for number, (item, made) in enumerate(zip(said, generate(model, prompts, most), strict=True)):
        pcm = codec.decode(made.codes[None])[0] if len(made.codes) else torch.zeros(0)
        arrays |= {
            f"text{number}": np.array(item.text),
            f"speaker{number}": np.array(item.speaker),
            f"codes{number}": made.codes.numpy().astype(np.int16),
            f"pcm{number}": pcm.numpy().astype(np.float32),
        }
    try:
        np.savez_compressed(path, allow_pickle=False, **arrays)
    except OSError as err:
        raise StoreError(f"{path}: cannot be written: {err.strerror}") from err


def _most_frames(num_tokens: int, limits: LimitsTable) -> int:
    """Where the daemon cuts a text that does not end."""
    return math.ceil((limits.max_ratio * num_tokens * limits.seconds_per_token + limits.slack_s) * FRAME_RATE)


def agreement(path: Path, folder: Path) -> tuple[int, int]:
    """How many codes a bundle's engine chooses as PyTorch did, running freely, and how many there are.

    The first that differs makes other ones of all that follow, so it is of use for float32 alone.
    """
    golden, bundle = np.load(path), load_bundle(folder)
    model = CsmModel(bundle, num_threads=1)
    same = total = 0
    try:
        for number in range(_NUM_TEXTS):
            expected = golden[f"codes{number}"]
            model.begin(Voice("", "", "", int(golden[f"speaker{number}"])), [])
            lane = model.start(str(golden[f"text{number}"]), np.random.default_rng(0), _GREEDY, _GREEDY)
            found = np.full_like(expected, -1)
            for frame in found:
                model.next_frames([lane])
                if lane.ended:
                    break
                frame[:] = lane.codes
            same += int((found == expected).sum())
            total += expected.size
    finally:
        model.close()
    return same, total
