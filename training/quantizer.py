"""The residual vector quantizer: every codebook codes what the ones before left over."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

_KEEP = 0.99
"""Of the running means at every step."""
_DEAD = 0.05
"""An entry chosen less often than this share of the mean is begun anew."""
_ROUNDS = 12
"""Of k-means."""


class Quantized(NamedTuple):
    """What became of latents [B, T, E]."""

    latents: Tensor
    """The chosen entries' sum, [B, T, E]; the gradient goes straight through to the latents."""
    first: Tensor
    """The first codebook's entry, the same way."""
    commitment: Tensor
    """Mean squared distance of what was left over to the chosen entries, summed over the codebooks used."""


class ResidualQuantizer(nn.Module):
    """Codebooks whose entries are running means of what chose them.

    Attributes:
        e: entries, float32 [Q, C, E].
        new: counts and sums of the last batch, to be averaged over processes before ``update``.

    Source: VQ-VAE-2's running means, arXiv:1906.00446; SoundStream's residual quantizer with k-means start, restart of
        dead entries and a random number of codebooks, arXiv:2107.03312.
    """

    e: Tensor
    started: Tensor
    _counts: Tensor
    _sums: Tensor
    _new_counts: Tensor
    _new_sums: Tensor
    _left: Tensor

    def __init__(self, num_codebooks: int, codebook_size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("e", torch.zeros(num_codebooks, codebook_size, width))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))
        self.register_buffer("_counts", torch.ones(num_codebooks, codebook_size))
        self.register_buffer("_sums", torch.zeros(num_codebooks, codebook_size, width))
        self.register_buffer("_new_counts", torch.zeros(num_codebooks, codebook_size), persistent=False)
        self.register_buffer("_new_sums", torch.zeros(num_codebooks, codebook_size, width), persistent=False)
        self.register_buffer("_left", torch.zeros(num_codebooks, 1, width), persistent=False)

    @property
    def new(self) -> list[Tensor]:
        """Counts [Q, C] and sums [Q, C, E] of the last batch."""
        return [self._new_counts, self._new_sums]

    @property
    def kept(self) -> list[Tensor]:
        """What all processes must agree on."""
        return [self.e, self._counts, self._sums]

    def used(self) -> list[int]:
        """How many entries of each codebook are alive."""
        return [int(number) for number in (self._counts > _DEAD * self._counts.mean(1, keepdim=True)).sum(1)]

    def look_up(self, codes: Tensor) -> Tensor:
        """Codes int64 [..., Q] of the first codebooks -> the sums of their entries [..., E]."""
        books = torch.arange(codes.shape[-1], device=codes.device)
        return self.e[books, codes].sum(-2)

    @torch.no_grad()
    def codes(self, latents: Tensor, num_codebooks: int) -> Tensor:
        """Latents float32 [N, E] -> the nearest entries, int64 [N, Q]."""
        left, codes = latents.float(), []
        for entries in self.e[:num_codebooks]:
            codes.append(_nearest(left, entries))
            left = left - entries[codes[-1]]
        return torch.stack(codes, 1)

    def forward(self, latents: Tensor, depth: Tensor) -> Quantized:
        """Quantize for training, and note what chose which entry.

        Args:
            latents: float32 [B, T, E].
            depth: how many codebooks each row uses, int64 [B].
        """
        rows, frames, width = latents.shape
        flat = latents.reshape(-1, width)
        fixed = flat.detach()
        codes = self.codes(fixed, len(self.e))
        chosen = self.e[torch.arange(len(self.e), device=codes.device)[:, None], codes.T]  # [Q, N, E]
        sums = chosen.cumsum(0)
        self._left = fixed - torch.cat([torch.zeros_like(sums[:1]), sums[:-1]])
        uses = depth.repeat_interleave(frames) > torch.arange(len(self.e), device=depth.device)[:, None]  # [Q, N]
        self._note(codes, uses)
        # The distance of what is left to an entry is that of the latent to the sum so far.
        commitment = ((flat - sums).square().mean(-1) * uses).sum(0).mean()
        total = sums.gather(0, (depth - 1).repeat_interleave(frames)[None, :, None].expand(1, -1, width))[0]
        straight = [(flat + (value - fixed)).view(rows, frames, width) for value in (total, sums[0])]
        return Quantized(straight[0], straight[1], commitment)

    def _note(self, codes: Tensor, uses: Tensor) -> None:
        weights = uses.float()
        self._new_counts.zero_().scatter_add_(1, codes.T, weights)
        index = codes.T[..., None].expand_as(self._left)
        self._new_sums.zero_().scatter_add_(1, index, self._left * weights[..., None])

    @torch.no_grad()
    def update(self) -> None:
        """Move the entries by ``new``."""
        self._counts.lerp_(self._new_counts, 1 - _KEEP)
        self._sums.lerp_(self._new_sums, 1 - _KEEP)
        torch.div(self._sums, self._counts.clamp(min=1e-5)[..., None], out=self.e)

    @torch.no_grad()
    def restart(self) -> None:
        """Put entries that are hardly chosen where something of the last batch is."""
        usual = self._counts.mean(1, keepdim=True)
        book, entry = torch.nonzero(self._counts < _DEAD * usual, as_tuple=True)
        pick = torch.randint(self._left.shape[1], book.shape, device=book.device)
        self._counts[book, entry] = usual[book, 0] / 2
        self._sums[book, entry] = self._left[book, pick] * (usual[book] / 2)
        self.e[book, entry] = self._left[book, pick]

    @torch.no_grad()
    def start(self, latents: Tensor, batch: int) -> None:
        """Begin as the clusters of latents float32 [N, E]; a step of training brings ``batch`` of them."""
        left = latents.float()
        for book in range(len(self.e)):
            entries, counts = _cluster(left, self.e.shape[1])
            self.e[book] = entries
            self._counts[book] = counts * (batch / len(latents))
            self._sums[book] = entries * self._counts[book][:, None]
            left = left - entries[_nearest(left, entries)]
        self.started.fill_(True)


def _nearest(points: Tensor, entries: Tensor) -> Tensor:
    """The entry nearest to each point: float32 [N, E], [C, E] -> int64 [N]."""
    return torch.addmm(entries.square().sum(1), points, entries.T, alpha=-2).argmin(1)


def _cluster(points: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """k-means: float32 [N, E] -> centres [number, E] and how many points each has, float32 [number]."""
    entries = points[torch.randint(len(points), (number,), device=points.device)]
    for _ in range(_ROUNDS):
        codes = _nearest(points, entries)
        counts = torch.bincount(codes, minlength=number).float()
        means = torch.zeros_like(entries).index_add_(0, codes, points) / counts.clamp(min=1)[:, None]
        others = points[torch.randint(len(points), (number,), device=points.device)]
        entries = torch.where(counts[:, None] > 0, means, others)
    return entries, counts.clamp(min=0.1)
