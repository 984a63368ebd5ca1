"""How a codec does on speech it was not trained on."""

from pathlib import Path

import torch

from daemon.values import SAMPLE_RATE
from training.codec_config import CodecConfig
from training.codec_data import held_batch
from training.codec_model import Codec
from training.plots import spectrogram
from training.runner import Run
from training.spectra import Reconstruction
from training.speech import FRAME_SAMPLES, Speech

_SENTENCES = 16
_FRAMES = 32


class Look:
    """Codes held-out sentences and draws one of them.

    Args:
        run: this process.
        config: [codec].
        speech: all of it.
        plots: the folder of pictures.
        name: of the training.
    """

    def __init__(self, run: Run, config: CodecConfig, speech: Speech, plots: Path, name: str) -> None:
        self._rank, self._config, self._name = run.rank, config, name
        self._plot = plots / f"{name}_spectrogram.png"
        self._compare = Reconstruction(config.bandwidth_hz).to(run.device)
        self._audio = torch.from_numpy(held_batch(speech, _SENTENCES, _FRAMES)).to(run.device)

    @torch.no_grad()
    def at(self, codec: Codec) -> dict[str, float]:
        """Distances of coded to original speech, with the codebooks that are kept; in the process of rank 0 alone."""
        if self._rank or not len(self._audio):
            return {}
        coded = codec.decode(codec.encode(self._audio, self._config.keep_codebooks))
        distances = self._compare(coded, self._compare.magnitudes(self._audio))
        pairs = {"original": self._audio[0].cpu().numpy(), "coded": coded[0].cpu().numpy()}
        spectrogram(pairs, self._plot, title=f"{self._name}: held-out, {_FRAMES * FRAME_SAMPLES / SAMPLE_RATE:.1f} s")
        return {"held_mel": float(distances.mel), "held_spectrum": float(distances.spectrum)}
