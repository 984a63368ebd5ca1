"""The codec's networks: an encoder that sees the future, a quantizer, and a causal decoder.

The decoder's parameter names and arithmetic are those that ``quantize.starter`` and ``quantize.codec_export`` read.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.quantizer import ResidualQuantizer
from training.spectra import FLOOR as MEL_FLOOR
from training.spectra import MEL_HOP, MEL_SIZE, NUM_MELS, Magnitudes, mel_filters, num_bins, synthesis

STEPS = 8
"""Codec steps (of 240 samples) in a frame."""
FRAME_SAMPLES = STEPS * MEL_HOP
_BINS = MEL_SIZE // 2 + 1
_DELAY = 3 * MEL_HOP // 2
"""Samples that the synthesis begins before the first step's centre of hearing; the daemon drops them too."""
_SILENT = -20.0
"""Log magnitude of bins above the bandwidth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What the networks' shapes follow from; kept in checkpoints."""

    num_codebooks: int
    codebook_size: int
    width_latent: int
    width: int
    hidden: int
    frame_blocks: int
    step_blocks: int
    bandwidth_hz: float


class ConvNext(nn.Module):
    """Depthwise convolution, normalisation and a two-layer perceptron, added to the input [B, L, D].

    Source: ConvNeXt, arXiv:2201.03545; as a vocoder: Vocos, arXiv:2306.00814.
    """

    def __init__(self, width: int, hidden: int, kernel: int, *, causal: bool) -> None:
        super().__init__()
        self.margins = (kernel - 1, 0) if causal else (kernel // 2, kernel // 2)
        self.dw = nn.Conv1d(width, width, kernel, groups=width)
        self.n = nn.LayerNorm(width)
        self.a = nn.Linear(width, hidden)
        self.b = nn.Linear(hidden, width)
        self.g = nn.Parameter(torch.full((width,), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        padded = functional.pad(x, (0, 0, *self.margins))
        # Shifted products: compiled, they take half the time of a depthwise conv1d, which wants channels first.
        y = self.dw.bias + sum(padded[:, k : k + x.shape[1]] * tap for k, tap in enumerate(self.dw.weight[:, 0].T))
        y = functional.gelu(self.a(self.n(y)), approximate="tanh")
        out: Tensor = x + self.g * self.b(y)
        return out


class _Halve(nn.Module):
    """Joins every two steps."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.n = nn.LayerNorm(width)
        self.l = nn.Linear(2 * width, out)

    def forward(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        y: Tensor = self.l(self.n(x).reshape(rows, length // 2, 2 * width))
        return y


class Encoder(nn.Sequential):
    """Log-mel spectra at 100 Hz [B, 8 T, NUM_MELS] -> latents at 12.5 Hz [B, T, E]."""

    def __init__(self, width_latent: int) -> None:
        super().__init__(
            nn.Linear(NUM_MELS, 160),
            ConvNext(160, 320, 7, causal=False),
            _Halve(160, 224),
            ConvNext(224, 512, 5, causal=False),
            _Halve(224, 256),
            ConvNext(256, 640, 5, causal=False),
            _Halve(256, 256),
            ConvNext(256, 768, 3, causal=False),
            ConvNext(256, 768, 3, causal=False),
            nn.LayerNorm(256),
            nn.Linear(256, width_latent),
            nn.LayerNorm(width_latent, elementwise_affine=False),  # else latents grow until the codebooks begin
        )


class Decoder(nn.Module):
    """Latents -> speech; no sample depends on a later frame.

    Args:
        sizes: of the codec.
    """

    window: Tensor

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.width = sizes.width
        self.bins = num_bins(MEL_SIZE, sizes.bandwidth_hz)
        self.i = nn.Linear(sizes.width_latent, sizes.width)
        self.pre = nn.Sequential(*(ConvNext(sizes.width, 768, 4, causal=True) for _ in range(sizes.frame_blocks)))
        self.up = nn.Linear(sizes.width, STEPS * sizes.width)
        self.bl = nn.Sequential(
            *(ConvNext(sizes.width, sizes.hidden, 7, causal=True) for _ in range(sizes.step_blocks))
        )
        self.n = nn.LayerNorm(sizes.width)
        self.o = nn.Linear(sizes.width, 2 * _BINS)
        self.register_buffer("window", torch.hann_window(MEL_SIZE) / 1.5, persistent=False)
        with torch.no_grad():
            self.o.bias.zero_()
            self.o.weight[self.bins : _BINS] = 0
            self.o.bias[self.bins : _BINS] = _SILENT

    def forward(self, latents: Tensor) -> Tensor:
        """[B, T, E] -> real and imaginary parts of the bins below the bandwidth, float32 [B, 8 T, bins, 2]."""
        rows, frames, _ = latents.shape
        x = self.up(self.pre(self.i(latents))).reshape(rows, frames * STEPS, self.width)
        x = self.n(self.bl(x))
        # The rows of silent bins are left alone: a third of the product, and no gradient ever reaches them.
        used = [slice(self.bins), slice(_BINS, _BINS + self.bins)]
        weight = torch.cat([self.o.weight[part] for part in used])
        bias = torch.cat([self.o.bias[part] for part in used])
        log_magnitude, phase = functional.linear(x, weight, bias).float().view(rows, -1, 2, self.bins).unbind(-2)
        magnitude = torch.exp(log_magnitude.clamp(max=6.0) - 1.0)
        return torch.stack([magnitude * torch.cos(phase), magnitude * torch.sin(phase)], dim=-1)

    def speech(self, parts: Tensor) -> Tensor:
        """What ``forward`` gave -> float32 [B, 1920 T]."""
        return synthesis(parts, self.window)[:, _DELAY : _DELAY + parts.shape[1] * MEL_HOP]


class Codec(nn.Module):
    """Speech to codes and back.

    Args:
        sizes: of the networks.
    """

    filters: Tensor

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.enc = Encoder(sizes.width_latent)
        self.q = ResidualQuantizer(sizes.num_codebooks, sizes.codebook_size, sizes.width_latent)
        self.dec = Decoder(sizes)
        self.magnitudes = Magnitudes(MEL_SIZE, sizes.bandwidth_hz)
        self.register_buffer("filters", torch.from_numpy(mel_filters(MEL_SIZE, sizes.bandwidth_hz)), persistent=False)

    def features(self, magnitudes: Tensor) -> Tensor:
        """Magnitudes [B, 8 T, bins] -> what the encoder takes, about -1..1, [B, 8 T, NUM_MELS]."""
        return (torch.log(magnitudes @ self.filters + MEL_FLOOR) + 5) / 2

    @torch.no_grad()
    def encode(self, audio: Tensor, num_codebooks: int | None = None) -> Tensor:
        """Speech float32 [B, S], S a multiple of 1920 -> codes int64 [B, T, Q] of the first codebooks, or of all."""
        features = self.features(self.magnitudes(audio))
        with torch.autocast(audio.device.type, torch.bfloat16):  # as in training
            latents = self.enc(features)
        codes = self.q.codes(latents.reshape(-1, latents.shape[-1]), num_codebooks or self.sizes.num_codebooks)
        return codes.view(*latents.shape[:2], -1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes int64 [B, T, Q] of any number of first codebooks -> speech float32 [B, 1920 T]."""
        return self.dec.speech(self.dec(self.q.look_up(codes)))

    def exported(self, num_codebooks: int) -> dict[str, Tensor]:
        """What speaking needs, by the names that ``quantize.starter`` reads: the first codebooks and the decoder."""
        state = {name: value for name, value in self.state_dict().items() if name.startswith("dec.")}
        return {"q.e": self.q.e[:num_codebooks], **state}
