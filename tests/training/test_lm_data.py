"""Batches of the language model: nothing lost, everything where it belongs."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from lm_scene import SHAPE, random_sentence

from training.classify import IGNORED
from training.lm_data import batches, collate, plan, sentences
from training.speech import Speech
from training.workspace import Workspace


@given(lengths=st.lists(st.integers(4, 60), min_size=1, max_size=80), world=st.integers(1, 3), seed=st.integers(0, 9))
def test_every_sentence_is_in_every_epoch(lengths, world, seed):
    """All are there; the processes have no empty batch, and none that does not fit."""
    for rng in (None, np.random.default_rng(seed)):
        steps = plan(lengths, 128, world, rng)
        count = Counter(number for step in steps for number in step)
        assert set(count) == set(range(len(lengths)))
        assert sum(count.values()) <= len(lengths) + world - 1
        for step in steps:
            for share in (step[rank::world] for rank in range(world)):
                assert share
                assert len(share) * -(-max(lengths[number] for number in share) // 8) * 8 <= 128


def test_an_interrupted_order_goes_on():
    """Batches from step 5 are those that come after five steps, across epochs too."""
    data = [random_sentence(n, characters=5 + n, frames=4 + n) for n in range(12)]
    given_ = {"positions": 64, "rank": 0, "world": 2, "seed": 4}
    whole = batches(data, **given_)
    expected = [[one.tokens.tolist() for one in next(whole)] for _ in range(40)]
    for start in (5, 20):
        later = batches(data, **given_, start=start)
        assert [[one.tokens.tolist() for one in next(later)] for _ in range(40 - start)] == expected[start:]


def test_a_speaker_can_come_more_often_in_an_epoch(tmp_path):
    """So many times as his repeats say, in another place of every epoch, and the same after an interruption."""
    work = Workspace(tmp_path)
    work.index.parent.mkdir()
    lines = [
        {"text": "ab" * (n + 1), "source": "", "split": "train", "speaker": n % 2, "start": 0, "num_samples": 9000}
        for n in range(6)
    ]
    work.index.write_text("".join(json.dumps(line | {"phones": []}) + "\n" for line in lines))
    np.zeros(9000, np.int16).tofile(work.audio)
    speech = Speech(work)
    codes = np.zeros((speech.num_frames, 2), np.int16)
    plain = [one.tokens.tolist() for one in sentences(speech, codes, "train", 64)]
    data = sentences(speech, codes, "train", 64, (1, 5))
    counts = Counter(tuple(one.tokens) for one in data)
    assert [counts[tuple(tokens)] for tokens in plain] == [1, 5, 1, 5, 1, 5]
    assert [one.tokens.tolist() for one in sentences(speech, codes, "train", 64, (1, 1))] == plain
    whole, later = (batches(data, positions=64, rank=0, world=1, seed=4, start=start) for start in (0, 9))
    steps = [[one.tokens.tolist() for one in next(whole)] for _ in range(40)]
    assert [[one.tokens.tolist() for one in next(later)] for _ in range(31)] == steps[9:]


def test_where_things_are_in_a_batch():
    """EOT predicts the first frame, the last frame the end; characters and phones are at their positions."""
    rows = [random_sentence(1, characters=4, frames=3), random_sentence(2, characters=6, frames=5)]
    batch = collate(rows, 40, SHAPE.codebook_size, torch.float32)
    length = batch.layout.length
    assert length == 16
    first, second = 7 - 1, length + 9 - 1
    assert batch.predict_at.tolist() == [*range(first, first + 4), *range(second, second + 6)]
    ends = [[*row.codes[:, 0].tolist(), SHAPE.codebook_size] for row in rows]
    assert batch.target.tolist() == ends[0] + ends[1]
    assert batch.frame_at.tolist() == [*range(first, first + 3), *range(second, second + 5)]
    assert batch.character_at.tolist() == [*range(2, 6), *range(length + 2, length + 8)]
    assert batch.character.tolist()[3] == 2 + 3


def test_what_is_not_known_is_not_asked():
    """A recording without an alignment has no phones to learn."""
    one = replace(random_sentence(1), text_phones=None, frame_phones=None)
    batch = collate([one], 40, SHAPE.codebook_size, torch.float32)
    assert (batch.text_phones == IGNORED).all()
    assert (batch.frame_phones == IGNORED).all()
