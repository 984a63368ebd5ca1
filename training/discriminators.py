"""The adversary: networks that tell coded speech from original, by waveform and by spectrum.

All layers are products of joined steps instead of convolutions: on a CPU in bfloat16 five times as fast.

Source: HiFi-GAN's periods, arXiv:2010.05646; multi-resolution spectra as in UnivNet, arXiv:2106.07889.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.spectra import Magnitudes, num_bins

_PERIODS = (2, 3, 5, 7)
_SIZES = (1024, 512, 256)
_STRIDE = 3
_PERIOD_WIDTHS = (1, 16, 32, 64, 128)
_SPECTRUM_WIDTH = 192
_SPECTRUM_LAYERS = 3
_SPECTRUM_KERNEL = 3


class _Strided(nn.Module):
    """Convolution of kernel 2 s and stride s over [N, L, D]: the sum of products of two neighbouring patches."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.here = nn.Linear(stride * width, out)
        self.next = nn.Linear(stride * width, out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1] // self.stride
        patches = x[:, : length * self.stride].reshape(len(x), length, -1)
        y: Tensor = self.here(patches[:, :-1]) + self.next(patches[:, 1:])
        return y


class _Joined(nn.Module):
    """Convolution of kernel k and stride 1 over [N, L, D], without padding."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.product = nn.Linear(_SPECTRUM_KERNEL * width, out)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1] - _SPECTRUM_KERNEL + 1
        y: Tensor = self.product(torch.cat([x[:, k : k + length] for k in range(_SPECTRUM_KERNEL)], dim=-1))
        return y


class _Layers(nn.Module):
    """Layers with leaky ReLUs, and a verdict."""

    def __init__(self, layers: list[nn.Module], width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.verdict = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        """[N, L, D] -> what every layer gives, and last the verdicts [N, L', 1]."""
        found = []
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), 0.1)
            found.append(x)
        return [*found, self.verdict(x)]


class PeriodDiscriminator(nn.Module):
    """Looks at every p-th sample.

    Args:
        period: p.
    """

    def __init__(self, period: int) -> None:
        super().__init__()
        self.period = period
        self.body = _Layers([_Strided(a, b, _STRIDE) for a, b in pairwise(_PERIOD_WIDTHS)], _PERIOD_WIDTHS[-1])

    def forward(self, audio: Tensor) -> list[Tensor]:
        """Speech [B, S] -> features, the verdicts last."""
        length = audio.shape[1] // self.period
        columns = audio[:, : length * self.period].reshape(-1, length, self.period).transpose(1, 2)
        found: list[Tensor] = self.body(columns.reshape(-1, length, 1))
        return found


class SpectrumDiscriminator(nn.Module):
    """Looks at log magnitudes [B, L, bins].

    Args:
        bins: of the spectrum.
    """

    def __init__(self, bins: int) -> None:
        super().__init__()
        widths = (bins, *[_SPECTRUM_WIDTH] * _SPECTRUM_LAYERS)
        self.body = _Layers([_Joined(a, b) for a, b in pairwise(widths)], _SPECTRUM_WIDTH)

    def forward(self, magnitudes: Tensor) -> list[Tensor]:
        """Magnitudes [B, L, bins] -> features, the verdicts last."""
        found: list[Tensor] = self.body(torch.log(magnitudes + 1e-4) / 4 + 1)
        return found


class Discriminators(nn.Module):
    """All of them.

    Args:
        bandwidth_hz: spectra are looked at up to here.
    """

    def __init__(self, bandwidth_hz: float) -> None:
        super().__init__()
        self.periods = nn.ModuleList(PeriodDiscriminator(period) for period in _PERIODS)
        self.spectra = nn.ModuleList(Magnitudes(size, bandwidth_hz) for size in _SIZES)
        self.bodies = nn.ModuleList(SpectrumDiscriminator(num_bins(size, bandwidth_hz)) for size in _SIZES)

    def views(self, audio: Tensor) -> list[Tensor]:
        """What the networks are given of speech float32 [B, S]: in single precision, and not to be compiled."""
        return [audio, *(spectrum(audio) for spectrum in self.spectra)]

    def forward(self, views: list[Tensor]) -> list[list[Tensor]]:
        """Features of every discriminator, its verdicts last."""
        audio, *spectra = views
        seen = [(body, spectrum) for body, spectrum in zip(self.bodies, spectra, strict=True)]
        return [period(audio) for period in self.periods] + [body(spectrum) for body, spectrum in seen]


def verdict_loss(original: list[list[Tensor]], coded: list[list[Tensor]]) -> Tensor:
    """Hinge loss of the discriminators."""
    each = [
        functional.relu(1 - a[-1].float()).mean() + functional.relu(1 + b[-1].float()).mean()
        for a, b in zip(original, coded, strict=True)
    ]
    return torch.stack(each).mean()


def fooling_loss(coded: list[list[Tensor]]) -> Tensor:
    """What the decoder pays for being told apart."""
    return torch.stack([-features[-1].float().mean() for features in coded]).mean()


def feature_loss(original: list[list[Tensor]], coded: list[list[Tensor]]) -> Tensor:
    """Mean distance of features, relative to their size."""
    each = [
        (a.float() - b.float()).abs().mean() / a.float().abs().mean().clamp(min=1e-3)
        for one, other in zip(original, coded, strict=True)
        for a, b in zip(one[:-1], other[:-1], strict=True)
    ]
    return torch.stack(each).mean()
