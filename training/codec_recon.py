"""The codec's first training: encoder, codebooks and decoder learn to give back what they hear."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from training.classify import classify
from training.codec_config import CodecConfig
from training.codec_data import Cutter
from training.codec_look import Look
from training.codec_model import Codec, Sizes
from training.codec_optimizer import move, optimizer
from training.codec_store import PHONE_NAMES
from training.compiling import compiled
from training.phones import PHONES
from training.runner import Run
from training.spectra import Reconstruction
from training.speech import Speech

_QUARTERS = 4
_START_BATCHES = 40
"""Batches whose latents the codebooks begin with."""


def sizes_of(config: CodecConfig) -> Sizes:
    """The sizes that a configuration asks for."""
    return Sizes(**{name: getattr(config, name) for name in Sizes.__dataclass_fields__})


class Reconstructing:
    """A codec in its first training.

    Args:
        run: this process.
        config: [codec].
        speech: to learn from.
        look: at held-out speech.
        repeats: how many times as often every speaker is heard.
    """

    def __init__(self, run: Run, config: CodecConfig, speech: Speech, look: Look, repeats: Sequence[int]) -> None:
        self._run, self._config, self._look = run, config, look
        torch.manual_seed(0)  # the same beginning in every process
        sizes = sizes_of(config)
        self.codec = Codec(sizes).to(run.device)
        # Normalised, because the commitment loss makes the latents ever smaller.
        self._phones = nn.Sequential(
            nn.LayerNorm(sizes.width_latent), nn.Linear(sizes.width_latent, _QUARTERS * len(PHONES))
        ).to(run.device)
        self._trained = nn.ModuleList([self.codec, self._phones])
        self._parameters = list(self._trained.parameters())
        self._optimizer = optimizer(self._trained, config.rate)
        self._compare = Reconstruction(config.bandwidth_hz).to(run.device)
        self._cutter = Cutter(speech, "train", config.segment_frames, repeats)
        self._encode, self._decode = compiled(run, self.codec.enc, self.codec.dec, wanted=config.compile)
        self.parts: dict[str, Any] = {"codec": self.codec, PHONE_NAMES: self._phones, "optimizer": self._optimizer}
        self.facts: dict[str, Any] = {"sizes": asdict(sizes)}
        self.otherwise = ""

    def begin_with(self, state: dict[str, Any]) -> None:
        """Begin with another codec: states of ``codec`` and, if there is one, of what names its ``phones``."""
        self.codec.load_state_dict(state["codec"])
        if PHONE_NAMES in state:
            self._phones.load_state_dict(state[PHONE_NAMES])

    def learn(self, step: int) -> dict[str, Tensor]:
        """Find the gradients; what was measured, by name."""
        config, quantizer = self._config, self.codec.q
        if step >= config.start_codebooks and not quantizer.started:
            self._start_codebooks()
        loss, measured = self._losses()
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        gradients = [each.grad for each in self._parameters if each.grad is not None]
        self._run.average([*gradients, *quantizer.new])
        return measured | {"gradient": nn.utils.clip_grad_norm_(self._parameters, config.clip)}

    def move(self, step: int, factor: float) -> None:
        """Move weights and codebooks by what ``learn`` found, the former at ``factor`` of the rate."""
        quantizer = self.codec.q
        move(self._optimizer, self._config.rate * factor)
        if quantizer.started:
            quantizer.update()
            if step % self._config.restart_every == 0:
                quantizer.restart()
                self._run.broadcast(quantizer.kept)

    def look(self) -> dict[str, float | str]:
        """Held-out speech through the codec as it is."""
        return {**self._look.at(self.codec), "used": " ".join(map(str, self.codec.q.used()))}

    def _losses(self) -> tuple[Tensor, dict[str, Tensor]]:
        config, run = self._config, self._run
        pieces = self._cutter.draw(run.generator, config.batch)
        audio = pieces.audio.to(run.device)
        with torch.no_grad():
            wanted = self._compare.magnitudes(audio)
            features = self.codec.features(wanted[0])
        with torch.autocast(run.device.type, torch.bfloat16):
            latents = self._encode(features)
        latents = latents.float()
        quantized = self.codec.q(latents, self._depths())
        started = bool(self.codec.q.started)
        with torch.autocast(run.device.type, torch.bfloat16):
            parts = self._decode(quantized.latents if started else latents)
        distances = self._compare(self.codec.dec.speech(parts), wanted)
        phones = self._phones(quantized.first if started else latents).unflatten(2, (_QUARTERS, -1))
        named, right = classify(phones, pieces.phones.to(run.device))
        loss = config.mel_weight * distances.mel + distances.spectrum + config.phone_weight * named
        if started:
            loss = loss + config.commitment_weight * quantized.commitment
        return loss, {
            "mel": distances.mel,
            "spectrum": distances.spectrum,
            "commitment": quantized.commitment,
            "phones": named,
            "phones_right": right,
        }

    def _depths(self) -> Tensor:
        """How many codebooks each row of a batch uses: half of them as many as are kept, else any number."""
        config, batch = self._config, self._config.batch
        some = torch.randint(1, config.num_codebooks + 1, (batch,))
        return torch.where(torch.rand(batch) < 0.5, config.keep_codebooks, some).to(self._run.device)

    @torch.no_grad()
    def _start_codebooks(self) -> None:
        config, run = self._config, self._run
        latents = []
        for _ in range(_START_BATCHES):
            audio = self._cutter.draw(run.generator, config.batch).audio.to(run.device)
            features = self.codec.features(self.codec.magnitudes(audio))
            with torch.autocast(run.device.type, torch.bfloat16):
                latents.append(self.codec.enc(features).float().flatten(0, 1))
        self.codec.q.start(torch.cat(latents), config.batch * config.segment_frames)
        run.broadcast(self.codec.q.kept)
