"""How the language model does on sentences it is not trained on."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch

from training import plots, text
from training.lm_config import LmConfig
from training.lm_data import PROMPT_BEFORE_TEXT, Batch, Sentence, collate, plan
from training.lm_generate import generate
from training.lm_loss import embed, losses
from training.lm_model import SpeechLm
from training.runner import Run
from training.speech import evenly

_LOOKED_AT = 400
"""Sentences whose losses are measured, by all processes together."""
_SPOKEN = 32
"""Sentences that are also spoken, by all processes together."""


class Check:
    """The held-out sentences, divided among the processes.

    Args:
        run: this process.
        config: [lm].
        held: the sentences of all processes; some are picked, evenly.
        folder: for the picture of the alignment.
    """

    def __init__(self, run: Run, config: LmConfig, held: Sequence[Sentence], folder: Path) -> None:
        self._run, self._config, self._folder = run, config, folder
        held = evenly(held, _LOOKED_AT)
        steps = plan([len(one) for one in held], config.positions, run.world, None)
        self._shares = [[held[number] for number in members[run.rank :: run.world]] for members in steps]
        self._to_speak = evenly(held, _SPOKEN)[run.rank :: run.world]
        aligned = (one for one in held if one.text_phones is not None)
        self._pictured = max(aligned, key=len, default=None)

    @torch.no_grad()
    def look(self, model: SpeechLm) -> dict[str, float]:
        """Losses and shares by name, the same in every process; draws the alignment of one sentence.

        Raises:
            StoreError: the picture cannot be written.
        """
        model.eval()
        sums: defaultdict[str, float] = defaultdict(float)
        for share in self._shares:
            batch = self._batch(share, model)
            for name, value in losses(model, batch, self._config, None).metrics().items():
                sums[f"held_{name}"] += float(value) * len(batch.codes)
            sums["frames"] += len(batch.codes)
        self._speak(model, sums)
        if self._run.rank == 0 and self._pictured is not None:
            self._draw(model, self._pictured)
        return self._mean(sums)

    def _mean(self, sums: dict[str, float]) -> dict[str, float]:
        """Sums over all processes, divided by what they are sums over."""
        if not self._shares:
            return {}
        names = sorted(sums)
        values = torch.tensor([sums[name] for name in names], device=self._run.device)
        self._run.average([values])
        means = dict(zip(names, values.tolist(), strict=True))
        frames, sentences = means.pop("frames"), means.pop("sentences")
        return {name: value / (frames if name.startswith("held_") else sentences) for name, value in means.items()}

    def _batch(self, rows: Sequence[Sentence], model: SpeechLm) -> Batch:
        return collate(rows, self._config.positions, model.shape.codebook_size, model.dtype).to(self._run.device)

    def _speak(self, model: SpeechLm, sums: dict[str, float]) -> None:
        """How many run away, and how long the others are as a share of the truth."""
        sums.update(runaway=0.0, duration=0.0, sentences=0.0)
        if not self._to_speak:
            return
        limits = [2 * len(one.codes) + 8 for one in self._to_speak]
        spoken = generate(model, [one.tokens.tolist() for one in self._to_speak], limits)
        for one, said in zip(self._to_speak, spoken, strict=True):
            sums["runaway"] += not said.ended
            sums["duration"] += len(said.codes) / len(one.codes)
            sums["sentences"] += 1

    def _draw(self, model: SpeechLm, one: Sentence) -> None:
        batch = self._batch([one], model)
        attention = model.backbone(embed(model, batch, batch.codes), batch.layout).guided[0, 0].float().cpu().numpy()
        characters = range(PROMPT_BEFORE_TEXT, len(one.tokens) - 1)
        said = "".join(text.ALPHABET[one.tokens[place]] for place in characters)
        frames = batch.frame_at.cpu().numpy()
        plots.alignment(attention[frames][:, characters], said, self._folder / "alignment.png")
