"""What the language model is trained on: sentences with their codes, and batches of them.

A row is [BOS, speaker, characters, EOT, frames]. The position of EOT predicts codebook 0 of the first frame, each frame
that of the next, and the last frame the end of speech.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from daemon.values import F32
from training import text
from training.classify import IGNORED
from training.lm_layers import Layout, layout
from training.speech import Speech

PROMPT_BEFORE_TEXT = 2
"""BOS and the speaker."""
_LENGTH_STEP = 8


@dataclass(frozen=True, slots=True)
class Sentence:
    """One utterance.

    Attributes:
        tokens: int64 [P], the prompt.
        codes: int16 [T, Q].
        character: float32 [T + 1], the character said in each frame and at the end; nan where that is not known.
        text_phones: int8 [N, 2], phones of each character, or None.
        frame_phones: int8 [T, 4], the phone of each quarter of a frame, or None.
    """

    tokens: NDArray[np.int64]
    codes: NDArray[np.int16]
    character: F32
    text_phones: NDArray[np.int8] | None
    frame_phones: NDArray[np.int8] | None

    def __len__(self) -> int:
        return len(self.tokens) + len(self.codes)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of sentences, laid flat; frames and characters of all rows are in one line, row after row.

    Attributes:
        layout: where the rows are.
        num_text: int64 [B], positions of each prompt.
        tokens: int64 [sum P]; ``token_at`` int64 [sum P], their positions.
        codes: int64 [F, Q]; ``frame_at`` int64 [F], the position that predicts each; its own is the next.
        predict_at: int64 [F + B], the positions that predict codebook 0; ``target`` int64 [F + B], what (C is the end).
        character: float32 [F + B], the character said there, from the start of the prompt, nan where not known.
        character_at: int64 [sum N], positions of the characters; ``text_phones`` int64 [sum N, 2].
        frame_phones: int64 [F, 4].
    """

    layout: Layout
    num_text: Tensor
    tokens: Tensor
    token_at: Tensor
    codes: Tensor
    frame_at: Tensor
    predict_at: Tensor
    target: Tensor
    character: Tensor
    character_at: Tensor
    text_phones: Tensor
    frame_phones: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same on ``device``."""
        rows = Layout(
            self.layout.rows, self.layout.length, self.layout.positions.to(device), self.layout.mask.to(device)
        )
        tensors = [getattr(self, field.name).to(device) for field in fields(self)[1:]]
        return Batch(rows, *tensors)


def sentence(speech: Speech, number: int, codes: NDArray[np.int16]) -> Sentence:
    """One utterance of ``speech`` with its part of the codes of all."""
    item = speech.utterances[number]
    known = bool(item.phones)
    return Sentence(
        tokens=np.array(text.encode(item.text, item.speaker), np.int64),
        codes=np.array(codes[item.first_frame : item.first_frame + item.num_frames]),
        character=speech.character(number),
        text_phones=speech.character_phones(number) if known else None,
        frame_phones=speech.frame_phones(number) if known else None,
    )


def sentences(
    speech: Speech, codes: NDArray[np.int16], split: str, longest: int, repeats: Sequence[int] = ()
) -> list[Sentence]:
    """The utterances of a split, without those of more than ``longest`` positions; ``repeats`` of each, by speaker."""
    found: list[Sentence] = []
    for number in speech.split(split):
        one = sentence(speech, number, codes)
        if len(one) <= longest:
            found += [one] * (repeats[speech.utterances[number].speaker] if repeats else 1)
    return found


def plan(lengths: Sequence[int], positions: int, world: int, rng: np.random.Generator | None) -> list[list[int]]:
    """Divide sentences into steps of ``world`` batches of like lengths.

    Every sentence is in one step (a few are in two of the last, where it has fewer sentences than there are processes).

    Args:
        lengths: of the sentences, positions.
        positions: of a batch, at most; no sentence is longer.
        world: processes; the one of rank r takes every ``world``-th sentence of a step from the r-th.
        rng: the order; None: as they come, the shortest first.
    """
    order = range(len(lengths)) if rng is None else rng.permutation(len(lengths)).tolist()
    steps: list[list[int]] = []
    waiting: list[int] = []
    length = 0
    for number in sorted(order, key=lambda one: -(-lengths[one] // _LENGTH_STEP)):
        longer = -(-lengths[number] // _LENGTH_STEP) * _LENGTH_STEP
        # The rows that are left of a length wait for the next one: they fit there.
        if waiting and (len(waiting) + 1 > positions // max(length, longer) * world):
            steps.append(waiting)
            waiting = []
        length = longer
        waiting.append(number)
    if waiting:
        steps.append([waiting[k % len(waiting)] for k in range(max(world, len(waiting)))])
    return steps if rng is None else [steps[k] for k in rng.permutation(len(steps))]


def batches(
    data: Sequence[Sentence], *, positions: int, rank: int, world: int, seed: int, start: int = 0
) -> Iterator[list[Sentence]]:
    """One process's share of each step, for ever; ``start`` steps are passed over."""
    lengths = [len(one) for one in data]
    epoch = 0
    while True:
        steps = plan(lengths, positions, world, np.random.default_rng((seed, epoch)))
        for members in steps[start:]:
            yield [data[number] for number in members[rank::world]]
        start = max(0, start - len(steps))
        epoch += 1


def collate(rows: Sequence[Sentence], flat: int, codebook_size: int, dtype: torch.dtype) -> Batch:
    """Lay sentences into a batch of ``flat`` positions.

    Args:
        rows: the sentences; ``flat`` holds them all at the length of the longest.
        flat: N.
        codebook_size: C.
        dtype: of the attention's mask.
    """
    length = -(-max(map(len, rows)) // _LENGTH_STEP) * _LENGTH_STEP
    num_text = np.array([len(row.tokens) for row in rows])
    num_frames = np.array([len(row.codes) for row in rows])
    first = np.arange(len(rows)) * length
    predict_at = _runs(first + num_text - 1, num_frames + 1)
    is_frame = np.ones(len(predict_at), bool)
    is_frame[np.cumsum(num_frames + 1) - 1] = False
    codes = np.concatenate([row.codes for row in rows]).astype(np.int64)
    target = np.full(len(predict_at), codebook_size)
    target[is_frame] = codes[:, 0]
    prompts = torch.from_numpy(num_text)
    return Batch(
        layout(prompts, torch.from_numpy(num_text + num_frames), length, flat, dtype),
        prompts,
        *map(
            torch.from_numpy,
            (
                np.concatenate([row.tokens for row in rows]),
                _runs(first, num_text),
                codes,
                predict_at[is_frame],
                predict_at,
                target,
                np.concatenate([row.character for row in rows]) + np.float32(PROMPT_BEFORE_TEXT),
                _runs(first + PROMPT_BEFORE_TEXT, num_text - PROMPT_BEFORE_TEXT - 1),
                np.concatenate([_known(row.text_phones, len(row.tokens) - PROMPT_BEFORE_TEXT - 1, 2) for row in rows]),
                np.concatenate([_known(row.frame_phones, len(row.codes), 4) for row in rows]),
            ),
        ),
    )


def _known(phones: NDArray[np.int8] | None, count: int, slots: int) -> NDArray[np.int64]:
    return np.full((count, slots), IGNORED) if phones is None else phones.astype(np.int64)


def _runs(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """start, start + 1, ... ``count`` numbers for each start, in one line."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(counts.sum())
