"""The backbone: text and frames in, one hidden state a frame out."""

from collections.abc import Sequence

import numpy as np

from daemon.engine.bundle import Bundle
from daemon.engine.governor import ThreadGovernor
from daemon.engine.lane import Lane
from daemon.engine.llama import LlamaModel
from daemon.engine.prompt_segment import PromptSegment
from daemon.errors import BadRequestError, ModelError
from daemon.values import F32, I32

PREFILL_BATCH = 64
"""Positions read at once: a quarter of a second of CSM-1B on two cores, so that a stop is not kept waiting."""
_FRAMES_AT_ONCE = 32
"""Frames whose gathered rows are in memory together: 8 MB for CSM-1B."""


class Backbone:
    """The temporal transformer with its input tables.

    Attributes:
        model: the KV cache and its owner; ``model.hiddens`` is float32 [N, D], after the final norm.

    Source: SesameAILabs/csm models.py ``Model._embed_audio`` and ``generate_frame`` (revision 2d72082).
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        num_threads: int,
        num_lanes: int,
        governor: ThreadGovernor | None = None,
        exact: bool,
    ) -> None:
        limits, audio = bundle.manifest.limits, bundle.manifest.audio
        self._bidirectional = bundle.manifest.prompt.bidirectional
        at_once = max(PREFILL_BATCH, limits.max_text_tokens) if self._bidirectional else PREFILL_BATCH
        self.model = LlamaModel(
            bundle.path("backbone"),
            num_positions=limits.context,
            max_batch=max(min(at_once, limits.context), num_lanes),
            num_threads=num_threads,
            num_sequences=num_lanes,
            governor=governor,
            exact=exact,
        )
        try:
            width = self.model.width
            self._text = bundle.table("text_embeddings", rows=1, width=width)
            rows = audio.num_codebooks * audio.codebook_size
            self._audio = bundle.table("audio_embeddings", rows=rows, width=width)
        except ModelError:
            self.model.close()
            raise
        self._offsets = np.arange(audio.num_codebooks, dtype=np.int64) * (len(self._audio) // audio.num_codebooks)
        self._rows = np.zeros(audio.num_codebooks, np.int64)
        self._inputs = list(self.model.inputs[:num_lanes])
        self._alone: list[Sequence[int]] = [
            (number,) for number in range(num_lanes)
        ]  # sequences, as one lane's step wants them
        self._end = np.zeros(audio.num_codebooks, np.int32)
        self._gathered = np.zeros((audio.num_codebooks, width), self._audio.dtype)
        self._widened = np.zeros((audio.num_codebooks, width), np.float32)

    def prefill_text(self, tokens: list[int], sequence: int = 0) -> F32:
        """Append text positions; returns the last hidden state, float32 [D] (a view).

        Raises:
            BadRequestError: more than a model that reads in both directions can take at once.
            ModelError: the tokenizer gives an id that the table does not have.
        """
        if max(tokens) >= len(self._text):
            raise ModelError(f"tokenizer gives id {max(tokens)}, text_embeddings has {len(self._text)} rows")
        if not self._bidirectional:
            return self.model.prefill(self._text[tokens], sequence)
        if len(tokens) > self.model.max_batch:
            message = f"a text of {len(tokens)} tokens; this voice takes at most {self.model.max_batch}"
            raise BadRequestError("too_long", message)
        return self.model.prefill_bidirectional(self._text[tokens], sequence)

    def prefill(self, segment: PromptSegment) -> None:
        """Append a segment: its text, its frames and the frame of zeros that ends them."""
        self.prefill_text(segment.tokens)
        if segment.codes is not None:
            frames = np.zeros((len(segment.codes) + 1, len(self._offsets)), np.int64)
            frames[:-1] = segment.codes
            embeddings = np.empty((len(frames), self.model.width), np.float32)
            for start in range(0, len(frames), _FRAMES_AT_ONCE):
                rows = frames[start : start + _FRAMES_AT_ONCE] + self._offsets
                self._audio[rows].astype(np.float32).sum(axis=1, out=embeddings[start : start + len(rows)])
            self.model.prefill(embeddings)

    def end_speech(self) -> None:
        """Append the frame of zeros that the model was trained to see after lane."""
        self._embed(self._end, 0)
        self.model.decode(1)

    def step(self, lanes: Sequence[Lane]) -> None:
        """Append the newest frame of each: the sum of its codebooks' embeddings. ``model.hiddens`` follows."""
        sequences = self._alone[lanes[0].number]
        if len(lanes) > 1:
            lanes = [lane for lane in lanes if lane.frames]
            sequences = [lane.number for lane in lanes]
        row = 0
        for lane in lanes:
            if lane.frames:
                self._embed(lane.codes, row)
                row += 1
        if row:
            self.model.decode(1, sequences)

    def _embed(self, codes: I32, row: int) -> None:
        """Put the embedding of a frame, int32 [Q], into a row of the model's inputs."""
        np.add(codes, self._offsets, out=self._rows)
        np.take(self._audio, self._rows, axis=0, out=self._gathered, mode="clip")
        np.copyto(self._widened, self._gathered)  # reducing float16 into float32 would allocate a buffer
        np.add.reduce(self._widened, axis=0, out=self._inputs[row])
