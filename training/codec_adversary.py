"""The codec's second training: its decoder learns to deceive discriminators. Encoder and codebooks stay as they are.

Codes therefore stay valid, so that the language model can be trained meanwhile.

Source: Vocos, arXiv:2306.00814, and HiFi-GAN, arXiv:2010.05646, for losses and their weights.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from daemon.errors import ModelError
from training.codec_config import CodecConfig
from training.codec_data import Cutter
from training.codec_look import Look
from training.codec_model import FRAME_SAMPLES, Codec
from training.codec_optimizer import move, optimizer
from training.compiling import compiled
from training.discriminators import Discriminators, feature_loss, fooling_loss, verdict_loss
from training.runner import Run
from training.spectra import Reconstruction
from training.speech import Speech

_Features = list[list[Tensor]]


class Deceiving:
    """A decoder in its second training.

    Args:
        run: this process.
        config: [codec].
        speech: to learn from.
        codes: of all speech, int16 [frames, Q].
        codec: after its first training.
        look: at held-out speech.
        repeats: how many times as often every speaker is heard.

    Raises:
        ModelError: the codes are not of this speech.
    """

    def __init__(
        self,
        run: Run,
        config: CodecConfig,
        speech: Speech,
        *,
        codes: NDArray[np.int16],
        codec: Codec,
        look: Look,
        repeats: Sequence[int],
    ) -> None:
        if codes.shape != (speech.num_frames, config.keep_codebooks):
            expected = (speech.num_frames, config.keep_codebooks)
            raise ModelError(f"codes: expected shape {expected}, found {codes.shape}; run the stage encode again")
        self._run, self._config, self._settings, self._look = run, config, config.adversary, look
        self._codes, self._codec = codes, codec
        torch.manual_seed(1)  # the same beginning in every process
        self._adversary = Discriminators(config.bandwidth_hz).to(run.device)
        self._optimizer = optimizer(codec.dec, self._settings.rate)
        self._adversary_optimizer = optimizer(self._adversary, self._settings.rate)
        self._decoder_parameters = list(codec.dec.parameters())
        self._adversary_parameters = list(self._adversary.parameters())
        self._compare = Reconstruction(config.bandwidth_hz).to(run.device)
        num_frames = self._settings.context_frames + self._settings.segment_frames
        self._cutter = Cutter(speech, "train", num_frames, repeats)
        (self._decode,) = compiled(run, codec.dec, wanted=config.compile)
        self.parts: dict[str, Any] = {
            "codec": codec,
            "discriminators": self._adversary,
            "optimizer": self._optimizer,
            "adversary_optimizer": self._adversary_optimizer,
        }
        self.facts: dict[str, Any] = {"sizes": asdict(codec.sizes)}
        self.otherwise = ""

    def judged_by(self, discriminators: dict[str, Tensor]) -> None:
        """Begin with discriminators that another decoder was trained against, given by their state."""
        self._adversary.load_state_dict(discriminators)

    def learn(self, step: int) -> dict[str, Tensor]:
        """Find the gradients of both sides, each against the other as it is; what was measured, by name."""
        settings = self._settings
        original, coded = self._speech()
        verdict, heard = self._judge(original, coded.detach())
        self._adversary_optimizer.zero_grad()
        torch.autograd.backward(verdict)
        say = min(1.0, (step + 1) / max(1, settings.warmup))
        loss, measured = self._deceive(original, coded, heard, say)
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        both = [*self._decoder_parameters, *self._adversary_parameters]
        self._run.average([each.grad for each in both if each.grad is not None])
        norm = nn.utils.clip_grad_norm_(self._decoder_parameters, settings.clip)
        other = nn.utils.get_total_norm([each.grad for each in self._adversary_parameters if each.grad is not None])
        return measured | {"verdict": verdict, "gradient": norm, "gradient_adversary": other}

    def move(self, step: int, factor: float) -> None:
        """Move the weights of both sides, at ``factor`` of the rate."""
        del step
        for each in (self._optimizer, self._adversary_optimizer):
            move(each, self._settings.rate * factor)

    def look(self) -> dict[str, float | str]:
        """Held-out speech through the codec as it is."""
        return {**self._look.at(self._codec)}

    def _speech(self) -> tuple[Tensor, Tensor]:
        """Original and coded speech, float32 [B, S], without the context."""
        settings, run = self._settings, self._run
        pieces = self._cutter.draw_coded(run.generator, settings.batch, self._codes)
        latents = self._codec.q.look_up(pieces.codes.to(run.device))
        with torch.autocast(run.device.type, torch.bfloat16):
            parts = self._decode(latents)
        begin = settings.context_frames * FRAME_SAMPLES
        return pieces.audio.to(run.device)[:, begin:], self._codec.dec.speech(parts)[:, begin:]

    def _judge(self, original: Tensor, coded: Tensor) -> tuple[Tensor, _Features]:
        """The adversary's loss, and what it sees in the original."""
        self._adversary.requires_grad_(True)
        seen = self._discriminate(torch.cat([original, coded]))
        halves = [[layer.chunk(2) for layer in one] for one in seen]
        ours, theirs = ([[layer[side] for layer in one] for one in halves] for side in (0, 1))
        return verdict_loss(ours, theirs), [[layer.detach() for layer in one] for one in ours]

    def _deceive(
        self, original: Tensor, coded: Tensor, heard: _Features, say: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The decoder's loss, and its parts; the adversary has ``say`` of its full weight."""
        settings = self._settings
        with torch.no_grad():
            wanted = self._compare.magnitudes(original)
        distances = self._compare(coded, wanted)
        self._adversary.requires_grad_(False)
        seen = self._discriminate(coded)
        fooling, features = fooling_loss(seen), feature_loss(heard, seen)
        adversary = settings.adversary_weight * fooling + settings.feature_weight * features
        loss = settings.mel_weight * distances.mel + settings.spectrum_weight * distances.spectrum + say * adversary
        measured = {"mel": distances.mel, "spectrum": distances.spectrum, "fooling": fooling, "features": features}
        return loss, measured

    def _discriminate(self, audio: Tensor) -> _Features:
        views = self._adversary.views(audio)
        with torch.autocast(self._run.device.type, torch.bfloat16):
            features: _Features = self._adversary(views)
        return features
