"""What is compared, and how far off it may be.

Every stage gets the reference's own input, so that an error is that stage's alone, and transformers run with float32
KV and without flash attention, so that the error is the file's. What must hold:

- float32: 1e-4 for every vector, and where all is float32 the codes of a greedy generation are the reference's. Of
  codes whose logits are closer than that 1e-4 the reference's is taken; the note counts such ties.
- Quantized transformers, and the codec stored as float16: ``SLACK`` times what rounding noise of the type's size does
  to the reference itself (``verify_noise`` derives that size).
- float16 transformers: 1e-3, or that, where the reference is so deep or attends so sharply that rounding costs more.
- float16 tables: 2**-11, the most that rounding one number costs.
- 8-bit heads, one matrix with nothing to add up: ``SLACK`` times the rounding of its weights and of its inputs.

How the engine runs a bundle that is not float32, with a float16 cache and flash attention, is told beside it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from daemon.config_sections import EngineConfig
from daemon.engine.bundle import Bundle, Role
from daemon.engine.codec import to_pcm16
from daemon.engine.engine import choose_threads
from daemon.errors import ModelError
from daemon.values import F32, Array
from quantize.codec_check import run_test_vector
from quantize.progress import Progress
from quantize.verify_bundle import BundleStages
from quantize.verify_truth import EIGHT_BITS, Storage, Truth, relative_error, worst_error

EXACT = 1e-4
HALF = 1e-3
TABLE = 2.0**-11
SLACK = 1.25
"""Weights are not quite normally distributed, and one noise is not another (2 % between draws)."""
CODES = 0.02
"""Share of an encoder's codes that may differ: two entries can be as good as equally near, and the codebooks after that
one refine what it left. Twice what rounding noise does comes on top: a few chances, not an average over many."""


@dataclass(frozen=True, slots=True)
class Row:
    """How one stage compares."""

    stage: str
    error: float
    """Norm of the difference over the norm of what was expected; of ids and codes, the share that differs."""
    worst: float | None
    """The same for the vector where it is largest."""
    threshold: float | None
    """None where the error is only told."""
    passed: bool
    note: str = ""


def compare(bundle: Bundle, storage: Storage, truth: Truth, progress: Progress) -> list[Row]:
    """All stages of a bundle against the reference's answers.

    Raises:
        ModelError: they are of another model altogether.
    """
    comparison = _Comparison(bundle, storage, truth)
    parts = (comparison.embeddings, comparison.backbone, comparison.depth, comparison.speech, comparison.codec)
    rows: list[Row] = []
    for number, part in enumerate(parts):
        progress("bundle", number, len(parts))
        rows += part()
    progress("bundle", len(parts), len(parts))
    return rows


def codec_rows(bundle: Bundle) -> list[Row]:
    """The codec against what it gave where the bundle was made; nothing where the bundle does not say what that was."""
    if "codec_test" not in bundle.manifest.files:
        return []
    return [
        _limited(f"test vector, {name}", error, CODES if "codes" in name else EXACT)
        for name, error in run_test_vector(bundle).items()
    ]


def _limited(stage: str, error: float, threshold: float, *, worst: float | None = None, note: str = "") -> Row:
    """A row that passes by its ``error``."""
    return Row(stage, error, worst, threshold, passed=error <= threshold, note=note)


class _Comparison:
    """The stages of one bundle and what they should give.

    Raises:
        ModelError: they are of another model altogether.
    """

    def __init__(self, bundle: Bundle, storage: Storage, truth: Truth) -> None:
        self._stages = BundleStages(bundle, num_threads=choose_threads(EngineConfig(), bundle))
        self._storage = storage
        self._truth = truth
        self._table_bound = TABLE if storage.half else EXACT
        self._num_codes = bundle.manifest.audio.codebook_size
        found = (self._stages.text.shape[1], self._stages.depth.shape[1], bundle.manifest.audio.num_codebooks)
        expected = (truth.inputs.shape[1], truth.projected.shape[1], truth.codes.shape[1])
        if found != expected:
            raise ModelError(f"{bundle.folder}: widths and codebooks are {found}, the reference's {expected}")

    def _row(self, stage: str, found: Array, expected: Array, threshold: float) -> Row:
        """A stage that gives vectors: where 1e-4 is asked for, of each of them, else of all together."""
        error, worst = relative_error(found, expected), worst_error(found, expected)
        passed = (worst if threshold == EXACT else error) <= threshold
        return Row(stage, error, worst, threshold, passed=passed)

    def _bound(self, part: str, kind: str) -> float:
        if kind == "f32":
            return EXACT
        bound = SLACK * self._truth.disturbance[part]
        return max(HALF, bound) if kind == "f16" else bound

    def _as_it_runs(self, role: Role, sequences: Sequence[F32], expected: F32, prefill: int) -> Iterator[Row]:
        """Hidden states in the engine's own arithmetic, where that is not the exact one."""
        if not self._storage.exact:
            states = self._stages.hidden_states(role, sequences, prefill, exact=False)
            error, worst = relative_error(states, expected), worst_error(states, expected)
            yield Row(f"{role.partition('_')[0]} as it runs", error, worst, None, passed=True)

    def embeddings(self) -> Iterator[Row]:
        """What the backbone reads."""
        stages, truth = self._stages, self._truth
        ids = truth.context_ids + truth.text_ids
        yield self._row("text embeddings", stages.text[ids], truth.inputs[~truth.is_frame], self._table_bound)
        frames = stages.frame_embeddings(truth.frames)
        yield self._row("frame embeddings", frames, truth.inputs[truth.is_frame], self._table_bound)

    def backbone(self) -> Iterator[Row]:
        """Hidden states, position by position and as one batch, and what is made of them."""
        stages, truth = self._stages, self._truth
        bound = self._bound("backbone", self._storage.backbone)
        states = stages.hidden_states("backbone", [truth.inputs], 1)[0]
        yield self._row("backbone hidden", states, truth.hidden, bound)
        yield from self._as_it_runs("backbone", [truth.inputs], truth.hidden[None], 1)
        length = truth.prompt_length
        prefilled = stages.hidden_states("backbone", [truth.inputs], length)[0]
        yield self._row("backbone prefilled", prefilled, truth.hidden[length - 1 :], bound)
        before = slice(length - 1, -1)
        logits, projected = zip(*(stages.head(0, hidden) for hidden in truth.hidden[before]), strict=True)
        yield self._row("codebook 0 logits", np.array(logits), truth.logits0, EXACT)
        yield self._row("projected hidden", np.array(projected), truth.projected, EXACT)
        chosen = np.array([stages.head(0, hidden)[0] for hidden in states[before]])
        yield self._choices("codebook 0 choices", chosen, truth.codes[:, 0])

    def depth(self) -> Iterator[Row]:
        """The depth decoder's inputs, hidden states and heads."""
        stages, truth = self._stages, self._truth
        embeddings = stages.depth_embeddings(truth.codes)
        yield self._row("depth embeddings", embeddings, truth.depth_inputs[:, 1:], self._table_bound)
        states = stages.hidden_states("depth_decoder", list(truth.depth_inputs), 2)
        bound = self._bound("depth_decoder", self._storage.depth_decoder)
        yield self._row("depth hidden", states, truth.depth_hidden, bound)
        yield from self._as_it_runs("depth_decoder", list(truth.depth_inputs), truth.depth_hidden, 2)
        yield self._depth_logits(stages.depth_logits(truth.depth_hidden))
        yield self._choices("depth choices", stages.depth_logits(states), truth.codes[:, 1:])

    def _depth_logits(self, logits: F32) -> Row:
        """The step that is furthest off: a step has its own head."""
        bound = SLACK * 2**0.5 * EIGHT_BITS if self._storage.quantized_heads else EXACT
        steps = [
            self._row("depth logits", found, expected, bound)
            for found, expected in zip(logits.swapaxes(0, 1), self._truth.depth_logits.swapaxes(0, 1), strict=True)
        ]
        step = int(np.argmax([row.error for row in steps]))
        return replace(steps[step], note=f"step {step + 1}, the worst of {len(steps)}")

    def _choices(self, stage: str, logits: F32, codes: Array) -> Row:
        """The likeliest codes after the reference's own codes so far; nothing is asked of them."""
        share = float((logits[..., : self._num_codes].argmax(axis=-1) != codes).mean())
        return Row(stage, share, None, None, passed=True, note=f"{1 - share:.1%} as the reference's")

    def speech(self) -> Iterator[Row]:
        """The engine as it is, from texts and a recording to codes."""
        truth = self._truth
        ids, codes, ties = self._stages.speak(truth)
        wanted = [truth.context_ids, truth.text_ids]
        note = "" if ids == wanted else f"expected {wanted[1]}, found {ids[1]}"
        yield _limited("prompt tokens", float(ids != wanted), 0.0, note=note)
        padded = np.full_like(truth.codes, -1)
        padded[: len(codes)] = codes
        same = padded == truth.codes
        first = "" if same.all() else "first at frame {}, codebook {}".format(*np.argwhere(~same)[0])
        note = (first or f"all {same.size} codes") + (f"; ties: {ties}" if ties else "")
        threshold = 0.0 if self._storage.exact else None
        share = float((~same).mean())
        yield Row("greedy codes", share, None, threshold, passed=threshold is None or share <= threshold, note=note)

    def codec(self) -> Iterator[Row]:
        """Samples of codes, frame by frame and at once, and codes of samples."""
        stages, truth = self._stages, self._truth
        streamed, at_once = (stages.decode(truth.codes, group) for group in (1, len(truth.codes)))
        bound = SLACK * truth.disturbance["codec"] if self._storage.half else EXACT
        yield self._pcm("codec PCM", streamed, truth.pcm, bound)
        yield self._pcm("codec PCM, streamed", streamed, at_once, EXACT)
        if "codec_encoder" in stages.bundle.manifest.files:
            share = float((stages.encode(truth.audio) != truth.audio_codes).mean())
            allowed = CODES + 2 * truth.disturbance["codec codes"]
            yield _limited("codec codes", share, allowed, note=f"{1 - share:.2%} equal")

    def _pcm(self, stage: str, found: F32, expected: F32, threshold: float) -> Row:
        """Where 1e-4 is asked for, so is PCM16 that is at most one step off."""
        if found.shape != expected.shape:
            note = f"{len(found)} samples, expected {len(expected)}"
            return Row(stage, 1.0, None, threshold, passed=False, note=note)
        error, steps = relative_error(found, expected), int(np.abs(_pcm16(found) - _pcm16(expected)).max())
        passed = error <= threshold and (steps <= 1 or threshold != EXACT)
        return Row(stage, error, None, threshold, passed=passed, note=f"PCM16 off by {steps} at most")


def _pcm16(samples: F32) -> Array:
    """As the engine rounds them, int32 [S]."""
    pcm = np.empty(len(samples), np.int16)
    to_pcm16(samples.copy(), pcm)
    return pcm.astype(np.int32)
