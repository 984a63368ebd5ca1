"""The starter voice's architecture in PyTorch, in float64: what conversions are compared with.

Weights are a dictionary by the checkpoint's tensor names; they are random (seeded) and can be saved as a checkpoint.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

HEAD_DIM = 64
ALPHABET = "abcdefghijklmnopqrstuvwxyz' ,.?!"
BOS, EOT = 32, 33
SPEAKERS = 2
CONFIG = {
    "name": "starter",
    "description": "random weights",
    "licence": "none",
    "source": "tests",
    "alphabet": ALPHABET,
    "bidirectional": True,
    "default_voice": "first",
    "speakers": [{"name": name, "description": f"{name} voice", "language": "en"} for name in ("first", "second")],
    "sampling": {"temperature": 0.0, "top_k": 50, "depth_temperature": 0.0, "depth_top_k": 50},
    "limits": {
        "context": 256,
        "max_text_tokens": 87,
        "seconds_per_token": 0.058,
        "min_ratio": 0.5,
        "max_ratio": 2.2,
        "slack_s": 0.8,
        "max_utterance_s": 90.0,
    },
}
"""config.json beside the tensors."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a model; the defaults are the starter voice's."""

    width: int = 256
    ffn: int = 704
    layers: int = 6
    depth_width: int = 192
    depth_ffn: int = 512
    depth_layers: int = 3
    codebooks: int = 8
    codebook_size: int = 512
    latent: int = 96
    codec_width: int = 256
    codec_ffn: tuple[int, int] = (768, 704)
    codec_blocks: tuple[int, int] = (2, 6)
    kernels: tuple[int, int] = (4, 7)
    steps: int = 8
    fft_size: int = 960


SMALL = Shape(
    width=128, ffn=96, layers=2, depth_width=64, depth_ffn=96, depth_layers=2, codebooks=3, codebook_size=32, latent=16,
    codec_width=32, codec_ffn=(64, 48), codec_blocks=(1, 2), fft_size=96,
)  # fmt: skip


def text_ids(text: str, speaker: int = 0) -> list[int]:
    """The prompt of a text."""
    return [BOS, EOT + 1 + speaker, *(ALPHABET.index(letter) for letter in text), EOT]


def random_checkpoint(shape: Shape, seed: int) -> dict[str, Tensor]:
    """Seeded weights, scaled so that signals keep their size on the way through."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int, scale: float, mean: float = 0.0) -> Tensor:
        return torch.randn(*size, generator=generator) * scale + mean

    def linear(name: str, out: int, width: int, *, bias: bool = False) -> dict[str, Tensor]:
        made = {f"{name}.weight": normal(out, width, scale=width**-0.5)}
        return made | ({f"{name}.bias": normal(out, scale=0.1)} if bias else {})

    def layer(name: str, width: int, ffn: int) -> dict[str, Tensor]:
        return {
            **linear(f"{name}.qkv", 3 * width, width),
            **linear(f"{name}.o", width, width),
            **linear(f"{name}.gu", 2 * ffn, width),
            **linear(f"{name}.dn", width, ffn),
            f"{name}.n1.w": normal(width, scale=0.1, mean=1),
            f"{name}.n2.w": normal(width, scale=0.1, mean=1),
        }

    def layer_norm(name: str, width: int) -> dict[str, Tensor]:
        return {f"{name}.weight": normal(width, scale=0.1, mean=1), f"{name}.bias": normal(width, scale=0.1)}

    def block(name: str, width: int, ffn: int, kernel: int) -> dict[str, Tensor]:
        return {
            f"{name}.dw.weight": normal(width, 1, kernel, scale=kernel**-0.5),
            f"{name}.dw.bias": normal(width, scale=0.1),
            **layer_norm(f"{name}.n", width),
            **linear(f"{name}.a", ffn, width, bias=True),
            **linear(f"{name}.b", width, ffn, bias=True),
            f"{name}.g": normal(width, scale=0.1, mean=0.3),
        }

    s = shape
    tensors = {
        "te.weight": normal(EOT + 1 + SPEAKERS, s.width, scale=0.7),
        "ae.weight": normal(s.codebooks * s.codebook_size, s.width, scale=0.25),
        "n.w": normal(s.width, scale=0.1, mean=1),
        "dn.w": normal(s.depth_width, scale=0.1, mean=1),
        **linear("h0", s.codebook_size + 8, s.width),
        **linear("pj", s.depth_width, s.width),
        "hk": normal(s.codebooks - 1, s.depth_width, s.codebook_size, scale=s.depth_width**-0.5),
        "q.e": normal(s.codebooks, s.codebook_size, s.latent, scale=0.4),
        **linear("dec.i", s.codec_width, s.latent, bias=True),
        **linear("dec.up", s.steps * s.codec_width, s.codec_width, bias=True),
        **layer_norm("dec.n", s.codec_width),
        **linear("dec.o", s.fft_size + 2, s.codec_width, bias=True),
    }
    for n in range(s.layers):
        tensors |= layer(f"bl.{n}", s.width, s.ffn)
    for n in range(s.depth_layers):
        tensors |= layer(f"db.{n}", s.depth_width, s.depth_ffn)
    for part, blocks, ffn, kernel in zip(("pre", "bl"), s.codec_blocks, s.codec_ffn, s.kernels, strict=True):
        for n in range(blocks):
            tensors |= block(f"dec.{part}.{n}", s.codec_width, ffn, kernel)
    return tensors


def save_checkpoint(tensors: dict[str, Tensor], folder: Path, **config: object) -> Path:
    """Write the three files of a checkpoint, with ``config`` in place of some of CONFIG; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config), encoding="utf-8")
    codec = {name: value for name, value in tensors.items() if name.startswith(("dec.", "q."))}
    save_file({name: value for name, value in tensors.items() if name not in codec}, folder / "lm.safetensors")
    save_file(codec, folder / "codec.safetensors")
    return folder


class Reference:
    """The model's stages, each from its true inputs; float64 throughout."""

    def __init__(self, tensors: dict[str, Tensor], shape: Shape) -> None:
        self.shape = shape
        self._w = {name: value.double() for name, value in tensors.items()}

    def text_embeddings(self, ids: list[int]) -> Tensor:
        """[n, D]."""
        return self._w["te.weight"][ids]

    def frame_embeddings(self, codes: Tensor) -> Tensor:
        """``codes`` [T, Q] -> [T, D]."""
        rows = codes + torch.arange(self.shape.codebooks) * self.shape.codebook_size
        return self._w["ae.weight"][rows].sum(dim=1)

    def depth_inputs(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """One frame: ``hidden`` [D] and ``codes`` [Q] -> [Q, Dd], positions 0 (hidden) to Q - 1."""
        rows = codes[:-1] + torch.arange(self.shape.codebooks - 1) * self.shape.codebook_size
        return torch.cat([hidden[None], self._w["ae.weight"][rows]]) @ self._w["pj.weight"].T

    def backbone(self, x: Tensor, prefix: int) -> Tensor:
        """[n, D] -> normalised hidden states [n, D]; the first ``prefix`` positions see all of each other."""
        return self._transformer(x, "bl", self.shape.layers, "n.w", prefix)

    def depth_decoder(self, x: Tensor) -> Tensor:
        """[n, Dd] -> normalised hidden states [n, Dd]."""
        return self._transformer(x, "db", self.shape.depth_layers, "dn.w")

    def codebook0_logits(self, hidden: Tensor) -> Tensor:
        """[..., D] -> [..., C + 1]: the last class ends speech."""
        return hidden @ self._w["h0.weight"][: self.shape.codebook_size + 1].T

    def depth_logits(self, hidden: Tensor) -> Tensor:
        """Depth hidden states [Q, Dd] of one frame -> logits of codebooks 1 to Q - 1, [Q - 1, C]."""
        return torch.einsum("kd,kdc->kc", hidden[1:], self._w["hk"])

    def _transformer(self, x: Tensor, name: str, layers: int, norm: str, prefix: int = 0) -> Tensor:
        seen = torch.ones(len(x), len(x), dtype=torch.bool).tril()
        seen[:prefix, :prefix] = True
        for n in range(layers):
            x = self._layer(x, f"{name}.{n}", seen)
        return _rms_norm(x, self._w[norm])

    def _layer(self, x: Tensor, name: str, seen: Tensor) -> Tensor:
        w = self._w
        projected = _rms_norm(x, w[f"{name}.n1.w"]) @ w[f"{name}.qkv.weight"].T
        q, k, v = (part.unflatten(1, (-1, HEAD_DIM)).transpose(0, 1) for part in projected.chunk(3, dim=1))
        mixed = functional.scaled_dot_product_attention(_rotate(q), _rotate(k), v, attn_mask=seen)
        x = x + mixed.transpose(0, 1).flatten(1) @ w[f"{name}.o.weight"].T
        gate, up = (_rms_norm(x, w[f"{name}.n2.w"]) @ w[f"{name}.gu.weight"].T).chunk(2, dim=1)
        return x + (functional.silu(gate) * up) @ w[f"{name}.dn.weight"].T

    def decode(self, codes: Tensor) -> Tensor:
        """The codec: ``codes`` [T, Q] -> PCM [T * samples a frame]."""
        w, width = self._w, self.shape.codec_width
        x = sum(w["q.e"][k][codes[:, k]] for k in range(self.shape.codebooks))
        x = self._linear(x, "dec.i")
        for n in range(self.shape.codec_blocks[0]):
            x = self._convnext(x, f"dec.pre.{n}")
        x = self._linear(x, "dec.up").reshape(-1, width)
        for n in range(self.shape.codec_blocks[1]):
            x = self._convnext(x, f"dec.bl.{n}")
        x = self._linear(functional.layer_norm(x, (width,), w["dec.n.weight"], w["dec.n.bias"]), "dec.o")
        return self._inverse_stft(x)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return functional.linear(x, self._w[f"{name}.weight"], self._w[f"{name}.bias"])

    def _convnext(self, x: Tensor, name: str) -> Tensor:
        w = self._w
        width, kernel = w[f"{name}.dw.weight"].shape[::2]
        y = functional.conv1d(
            functional.pad(x.T, (kernel - 1, 0)), w[f"{name}.dw.weight"], w[f"{name}.dw.bias"], groups=width
        ).T
        y = functional.layer_norm(y, (width,), w[f"{name}.n.weight"], w[f"{name}.n.bias"])
        return x + w[f"{name}.g"] * self._linear(
            functional.gelu(self._linear(y, f"{name}.a"), approximate="tanh"), f"{name}.b"
        )

    def _inverse_stft(self, x: Tensor) -> Tensor:
        size, steps = self.shape.fft_size, len(x)
        hop = size // 4
        log_magnitude, phase = x.chunk(2, dim=1)
        spectrum = torch.polar(torch.exp(log_magnitude.clamp(max=6) - 1), phase)
        windows = torch.fft.irfft(spectrum, size) * torch.hann_window(size, dtype=x.dtype)
        length = (steps - 1) * hop + size
        signal = functional.fold(windows.T[None], (1, length), (1, size), stride=(1, hop)).flatten()
        delay = (size - hop) // 2
        return signal[delay : delay + steps * hop] / 1.5


def _rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + 1e-5) * weight


def _rotate(x: Tensor) -> Tensor:
    """Rotary positions on [heads, n, head_dim]: dimension i pairs with i + head_dim / 2."""
    half = HEAD_DIM // 2
    frequency = torch.exp(-math.log(10_000) * torch.arange(half, dtype=x.dtype) / half)
    angle = torch.arange(x.shape[1], dtype=x.dtype)[:, None] * frequency
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag], dim=-1)
