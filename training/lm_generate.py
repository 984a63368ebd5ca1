"""Speaking with the language model in PyTorch: many sentences at once, greedily."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from training.lm_layers import HEAD_DIM, attend, finish, layout, project, rms_norm
from training.lm_model import SpeechLm


@dataclass(frozen=True, slots=True)
class Spoken:
    """What became of a sentence.

    Attributes:
        codes: int64 [T, Q].
        ended: whether it came to an end by itself; else it was cut off at its limit.
    """

    codes: Tensor
    ended: bool


class _Cache:
    """Keys and values of one layer, [B, heads, length, 64], the prompts before the frames."""

    def __init__(self, qkv: Tensor, rows: int, prompt: int, length: int) -> None:
        keys, values = qkv.view(rows, prompt, 3, -1, HEAD_DIM).permute(2, 0, 3, 1, 4)[1:]
        room = (0, 0, 0, length - prompt)
        self.keys, self.values = functional.pad(keys, room), functional.pad(values, room)

    def attend(self, qkv: Tensor, place: int, mask: Tensor) -> Tensor:
        """Add one position of every row, [B, 3, heads, 64], at ``place``; what it gathers from all before, [B, D]."""
        query, self.keys[:, :, place], self.values[:, :, place] = qkv.unbind(dim=1)
        until = place + 1
        logits = torch.matmul(query[:, :, None], self.keys[:, :, :until].transpose(2, 3)) * HEAD_DIM**-0.5
        attention = (logits + mask[:, None, None, :until]).softmax(dim=-1)
        return torch.matmul(attention, self.values[:, :, :until]).flatten(1)


class _Rows:
    """The backbone in the midst of a batch of sentences."""

    def __init__(self, model: SpeechLm, prompts: Sequence[Sequence[int]], most: int) -> None:
        self._model = model
        device = model.te.weight.device
        self._num_text = torch.tensor([len(prompt) for prompt in prompts], device=device)
        rows, self._prompt = len(prompts), int(self._num_text.max())
        tokens = torch.zeros(rows, self._prompt, dtype=torch.int64, device=device)
        for row, prompt in zip(tokens, prompts, strict=True):
            row[: len(prompt)] = torch.tensor(prompt)
        places = torch.arange(self._prompt + most, device=device)
        unseen = (places >= self._num_text[:, None]) & (places < self._prompt)
        self._mask = torch.zeros(unseen.shape, dtype=model.dtype, device=device).masked_fill_(unseen, -1e9)
        self._caches: list[_Cache] = []
        self._frames = 0
        self.hidden = self._prefill(tokens)
        """float32 [B, D]: predicts the next frame."""

    def _prefill(self, tokens: Tensor) -> Tensor:
        model, (rows, length) = self._model, tokens.shape
        prompt = layout(self._num_text, self._num_text, length, tokens.numel(), model.dtype)
        x, rope = model.te(tokens.flatten()), model.rope[prompt.positions]
        for layer in model.bl.layers():
            qkv = project(x, layer.n1.w, layer.qkv.weight, rope, model.dtype)
            self._caches.append(_Cache(qkv, rows, length, self._mask.shape[1]))
            mixed, _ = attend(qkv, rows, length, prompt.mask.repeat_interleave(qkv.shape[2], dim=0))
            x = finish(x, mixed, layer.finishing, None, model.dtype)
        last = torch.arange(rows, device=x.device) * length + self._num_text - 1
        return rms_norm(x[last], model.n.w)

    def step(self, codes: Tensor) -> None:
        """Take in one frame of every row, int64 [B, Q]."""
        model = self._model
        x, rope = model.embed_frames(codes), model.rope[self._num_text + self._frames]
        for layer, cache in zip(model.bl.layers(), self._caches, strict=True):
            qkv = project(x, layer.n1.w, layer.qkv.weight, rope, model.dtype)
            mixed = cache.attend(qkv, self._prompt + self._frames, self._mask)
            x = finish(x, mixed, layer.finishing, None, model.dtype)
        self._frames += 1
        self.hidden = rms_norm(x, model.n.w)


@torch.no_grad()
def generate(model: SpeechLm, prompts: Sequence[Sequence[int]], most: Sequence[int]) -> list[Spoken]:
    """Speak sentences; the likeliest code every time.

    Args:
        model: in whatever mode; nothing is dropped.
        prompts: token ids of each, as ``training.text.encode`` gives them.
        most: frames of each, at most.
    """
    rows = _Rows(model, prompts, max(most))
    left = torch.tensor(most)
    frames: list[Tensor] = []
    num_frames = torch.zeros(len(prompts), dtype=torch.int64)
    going = torch.ones(len(prompts), dtype=torch.bool)
    ended = torch.zeros(len(prompts), dtype=torch.bool)
    while True:
        first = model.logits(rows.hidden)[:, : model.shape.codebook_size + 1].argmax(dim=-1)
        end = (first == model.shape.codebook_size).cpu()
        ended |= going & end
        going &= ~end & (num_frames < left)
        if not going.any():
            break
        frames.append(_frame(model, rows.hidden, first.clamp(max=model.shape.codebook_size - 1)))
        num_frames += going
        rows.step(frames[-1])
    codes = torch.stack(frames, dim=1).cpu() if frames else torch.zeros(len(prompts), 0, model.shape.num_codebooks)
    return [Spoken(row[:count].long(), bool(whole)) for row, count, whole in zip(codes, num_frames, ended, strict=True)]


def _frame(model: SpeechLm, hidden: Tensor, first: Tensor) -> Tensor:
    """All codes of a frame whose codebook 0 is known: int64 [B, Q]."""
    codes = first[:, None]
    for head in model.hk:
        state = model.depth(hidden, codes)[:, -1].to(model.dtype)
        codes = torch.cat([codes, (state @ head.to(model.dtype)).argmax(dim=-1, keepdim=True)], dim=1)
    return codes
