"""Spectra of speech, and how far apart two of them are.

Magnitudes are in units of a window's noise gain: white noise of root mean square 1 has magnitude 1 at any resolution.
The two transforms bring their own gradients, as the ones torch derives take five to ten times as long on a CPU.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from daemon.values import F32, SAMPLE_RATE

FLOOR = 3e-4
"""Magnitudes below it are alike: the noise under the speech of flite's slt."""
NUM_MELS = 80
MEL_SIZE, MEL_HOP = 960, 240
_TINY = 1e-12


def num_bins(size: int, bandwidth_hz: float) -> int:
    """Bins of a transform of ``size`` samples that lie below the bandwidth (and the one at it)."""
    return min(size // 2, round(bandwidth_hz / SAMPLE_RATE * size)) + 1


def mel_filters(size: int, bandwidth_hz: float) -> F32:
    """Triangles on the mel scale up to the bandwidth, each with sum 1, float32 [bins, NUM_MELS]."""
    hz = np.arange(num_bins(size, bandwidth_hz)) * SAMPLE_RATE / size
    top = 2595 * np.log10(1 + bandwidth_hz / 700)
    edges = 700 * (10 ** (np.linspace(0, top, NUM_MELS + 2) / 2595) - 1)
    rising = (hz[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hz[:, None]) / (edges[2:] - edges[1:-1])
    filters = np.clip(np.minimum(rising, falling), 0, None)
    filters /= np.maximum(filters.sum(0), 1e-3)  # the lowest ones may fall between two bins
    return filters.astype(np.float32)


class Magnitudes(nn.Module):
    """Magnitude spectra: Hann windows of ``size`` samples every quarter of it.

    Args:
        size: samples of a window; a multiple of 4.
        bandwidth_hz: bins above are left out.
    """

    window: Tensor

    def __init__(self, size: int, bandwidth_hz: float) -> None:
        super().__init__()
        self.hop = size // 4
        self.bins = num_bins(size, bandwidth_hz)
        window = torch.hann_window(size)
        self.register_buffer("window", window / window.square().sum().sqrt(), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """float32 [B, S] -> [B, S / hop, bins]; frame l is centred at sample (l + 1/2) hop."""
        margin = (len(self.window) - self.hop) // 2
        padded = functional.pad(audio, (margin, margin))
        magnitudes: Tensor = _Magnitudes.apply(padded, self.window, self.hop, self.bins)  # type: ignore[no-untyped-call]  # torch's has no types
        return magnitudes


class _Magnitudes(torch.autograd.Function):
    """sqrt(re^2 + im^2) of the windowed real Fourier transform."""

    @staticmethod
    def forward(ctx: Any, audio: Tensor, window: Tensor, hop: int, bins: int) -> Tensor:
        spectrum = torch.fft.rfft(audio.unfold(1, len(window), hop) * window)[..., :bins]
        parts = torch.view_as_real(spectrum)
        real, imaginary = parts.unbind(-1)
        magnitudes = torch.addcmul(real.square(), imaginary, imaginary).add_(_TINY).sqrt_()
        ctx.save_for_backward(parts, magnitudes, window)
        ctx.hop, ctx.num_samples = hop, audio.shape[1]
        return magnitudes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        parts, magnitudes, window = ctx.saved_tensors
        size = len(window)
        scaled = parts * (gradient / magnitudes)[..., None]
        # irfft doubles every bin but the first and the last, for the conjugate half; a gradient counts each once.
        scaled[:, :, 1 : size // 2] *= 0.5
        frames = torch.fft.irfft(torch.view_as_complex(scaled), size, norm="forward") * window
        summed = _overlap_add(frames, ctx.hop)
        return functional.pad(summed, (0, ctx.num_samples - summed.shape[1])), None, None, None


def synthesis(parts: Tensor, window: Tensor) -> Tensor:
    """Inverse transform with overlapping windows at a quarter of their size.

    Args:
        parts: real and imaginary parts, float32 [B, L, bins, 2]; bins that are missing at the top are 0.
        window: float32 [size].

    Returns:
        float32 [B, (L + 3) * size / 4].
    """
    audio: Tensor = _Synthesis.apply(parts, window)  # type: ignore[no-untyped-call]  # likewise
    return audio


class _Synthesis(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parts: Tensor, window: Tensor) -> Tensor:
        ctx.save_for_backward(window)
        ctx.bins = parts.shape[2]
        frames = torch.fft.irfft(torch.view_as_complex(parts.contiguous()), len(window))
        return _overlap_add(frames * window, len(window) // 4)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (window,) = ctx.saved_tensors
        size = len(window)
        spectrum = torch.fft.rfft(gradient.unfold(1, size, size // 4) * window, norm="forward")[..., : ctx.bins]
        parts = torch.view_as_real(spectrum)
        parts[:, :, 1 : size // 2] *= 2
        return parts, None


def _overlap_add(frames: Tensor, hop: int) -> Tensor:
    """Frames [B, L, 4 hop] -> their sum, each a hop after the one before, [B, (L + 3) hop]."""
    rows, length, _ = frames.shape
    total = frames.new_zeros(rows, length + 3, hop)
    for quarter in range(4):
        total[:, quarter : quarter + length] += frames[..., quarter * hop : (quarter + 1) * hop]
    return total.view(rows, -1)


class Distances(NamedTuple):
    """How far coded speech is from the original."""

    mel: Tensor
    """Mean difference of log-mel magnitudes, nepers."""
    spectrum: Tensor
    """Mean over the resolutions: half the relative error of magnitudes plus the mean difference of their logarithms."""


class Reconstruction(nn.Module):
    """Compares speech by log-mel spectra and by magnitudes of several resolutions.

    Args:
        bandwidth_hz: what lies above is not compared.
        sizes: window sizes of the resolutions beside the mel spectrum's own.

    Source: multi-resolution STFT loss: Parallel WaveGAN, arXiv:1910.11480.
    """

    filters: Tensor

    def __init__(self, bandwidth_hz: float, sizes: Sequence[int] = (2048, 512)) -> None:
        super().__init__()
        self.resolutions = nn.ModuleList(Magnitudes(size, bandwidth_hz) for size in (MEL_SIZE, *sizes))
        self.register_buffer("filters", torch.from_numpy(mel_filters(MEL_SIZE, bandwidth_hz)), persistent=False)

    def magnitudes(self, audio: Tensor) -> list[Tensor]:
        """Spectra of float32 [B, S], the mel spectrum's resolution first."""
        return [resolution(audio) for resolution in self.resolutions]

    def log_mel(self, magnitudes: Tensor) -> Tensor:
        """Magnitudes [B, L, bins] of the mel spectrum's resolution -> [B, L, NUM_MELS]."""
        return torch.log(magnitudes @ self.filters + FLOOR)

    def forward(self, audio: Tensor, wanted: Sequence[Tensor]) -> Distances:
        """Compare float32 [B, S] with the ``magnitudes`` of the original."""
        found = self.magnitudes(audio)
        mel = (self.log_mel(found[0]) - self.log_mel(wanted[0])).abs().mean()
        each = [_distance(a, b) for a, b in zip(found, wanted, strict=True)]
        return Distances(mel, torch.stack(each).mean())


def _distance(found: Tensor, wanted: Tensor) -> Tensor:
    size = wanted.square().sum((1, 2)).clamp(min=1e-4)
    relative = ((found - wanted).square().sum((1, 2)) / size + _TINY).sqrt().mean()
    return relative / 2 + (torch.log(found + FLOOR) - torch.log(wanted + FLOOR)).abs().mean()
