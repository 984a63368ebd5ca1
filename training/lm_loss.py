"""What the language model is trained to minimise."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from training.classify import classify
from training.lm_config import LmConfig
from training.lm_data import Batch
from training.lm_model import FRAME_QUARTERS, PHONE_SLOTS, SpeechLm

_AHEAD = (0.0, 2.5)
"""How many characters ahead of the one being said each guided head looks."""
_LEAST_MASS = 1e-3


@dataclass(frozen=True, slots=True)
class Losses:
    """Means over what they are about; cross-entropies in nats.

    Attributes:
        c0: of codebook 0 and the end of speech.
        depth: of the other codebooks, on average.
        guide: minus the log of the attention that falls where it is asked to.
        text_phones: of the phones of characters.
        frame_phones: of the phones of frames.
        right: what was right of codebook 0, the other codebooks, characters' phones, frames' phones, and the share of
            attention where it is asked to be; 0..1.
    """

    c0: Tensor
    depth: Tensor
    guide: Tensor
    text_phones: Tensor
    frame_phones: Tensor
    right: dict[str, Tensor]

    def total(self, config: LmConfig, guide_weight: float) -> Tensor:
        """What is minimised."""
        phones = self.text_phones + self.frame_phones
        return self.c0 + self.depth + guide_weight * self.guide + config.phone_weight * phones

    def metrics(self) -> dict[str, Tensor]:
        """All of it by name, without gradients."""
        losses = {
            "c0": self.c0,
            "depth": self.depth,
            "guide": self.guide,
            "phones_text": self.text_phones,
            "phones_frame": self.frame_phones,
        }
        return {name: value.detach() for name, value in (losses | self.right).items()}


def losses(model: SpeechLm, batch: Batch, config: LmConfig, depth_frames: int | None) -> Losses:
    """Run a batch; noise and dropout where ``model.training``.

    Args:
        model: the model.
        batch: on its device.
        config: noise, dropout and the width of the guide.
        depth_frames: how many frames, drawn at random, the depth decoder is run on; None: all of them, once.
    """
    codes, dropout = batch.codes, 0.0
    if model.training:
        codes, dropout = noisy(batch, config.noise, model.shape.codebook_size), config.dropout
    hidden = model.backbone(embed(model, batch, codes), batch.layout, dropout)
    c0, right_c0 = classify(model.logits(hidden.final[batch.predict_at]), batch.target)
    chosen = _choose(len(codes), depth_frames, codes.device)
    known = batch.codes[chosen]
    depth, right_depth = classify(model.depth_logits(hidden.final[batch.frame_at[chosen]], known), known[:, 1:])
    heard = functional.rms_norm(hidden.text[batch.character_at], hidden.text.shape[1:])
    text = model.aux["text"](heard).unflatten(1, (PHONE_SLOTS, -1))
    text_phones, right_text = classify(text, batch.text_phones)
    frame = model.aux["frame"](hidden.final[batch.frame_at]).unflatten(1, (FRAME_QUARTERS, -1))
    frame_phones, right_frame = classify(frame, batch.frame_phones)
    guide, focus = _guide(hidden.guided, batch, config.guide_width)
    right = {
        "right_c0": right_c0,
        "right_depth": right_depth,
        "right_text": right_text,
        "right_frame": right_frame,
        "focus": focus,
    }
    return Losses(c0, depth, guide, text_phones, frame_phones, right)


def embed(model: SpeechLm, batch: Batch, codes: Tensor) -> Tensor:
    """The backbone's input, float32 [N, D], with ``codes`` (int64 [F, Q], perhaps noisy) for the frames."""
    x = torch.zeros(len(batch.layout.positions), model.shape.width, device=codes.device)
    x = x.index_copy(0, batch.token_at, model.te(batch.tokens))
    return x.index_copy(0, batch.frame_at + 1, model.embed_frames(codes))


def noisy(batch: Batch, noise: float, codebook_size: int) -> Tensor:
    """The codes with some replaced at random, a share of ``noise`` on average and up to twice that in each sentence.

    The model thus learns to go on after its own mistakes.
    """
    device = batch.codes.device
    share = torch.rand(batch.layout.rows, device=device) * 2 * noise
    row = batch.frame_at // batch.layout.length
    replaced = torch.rand(batch.codes.shape, device=device) < share[row, None]
    return torch.where(replaced, torch.randint_like(batch.codes, codebook_size), batch.codes)


def _choose(frames: int, wanted: int | None, device: torch.device) -> Tensor:
    if wanted is None:
        return torch.arange(frames, device=device)
    return torch.randperm(max(frames, wanted), device=device)[:wanted] % frames


def _guide(attention: Tensor, batch: Batch, width: float) -> tuple[Tensor, Tensor]:
    """Draw each guided head to a bump about the character that is being said, or that comes a little later.

    Args:
        attention: [B, heads, T, T].
        batch: what is said where; where that is not known nothing is asked.
        width: of the bump, characters.

    Returns:
        The loss, and the share of attention that falls on the bump (a flat one would be as wide as 2.5 ``width``).

    Source: "Efficiently Trainable Text-to-Speech System Based on Deep Convolutional Networks with Guided Attention",
    arXiv:1710.08969, with the true place instead of the diagonal.
    """
    is_known = ~batch.character.isnan()
    at, said = batch.predict_at[is_known], batch.character[is_known]
    length = batch.layout.length
    num_text = batch.num_text[at // length]
    # Keys past the longest prompt are no characters.
    keys = int(batch.num_text.max())
    seen = attention[..., :keys].transpose(1, 2).flatten(0, 1)[at].float()
    place = torch.arange(keys, device=at.device)
    ahead = torch.tensor(_AHEAD, device=at.device)
    centre = torch.minimum(said[:, None] + ahead, num_text[:, None] - 2.0)
    bump = torch.exp((place - centre[..., None]).square() / (-2 * width**2)) * (place < num_text[:, None, None])
    mass = (seen * bump).sum(dim=-1)
    count = max(1, mass.numel())
    return -(mass + _LEAST_MASS).log().sum() / count, mass.detach().sum() / count
