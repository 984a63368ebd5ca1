"""Bundles against the architecture in PyTorch, stage by stage, and against the golden codes and PCM."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_stages import StarterStages
from reference_starter import SMALL, Reference, Shape, random_checkpoint, save_checkpoint, text_ids

from daemon.engine.bundle import load_bundle
from daemon.engine.tokenizer import PromptTokenizer
from quantize.convert import convert, read_checkpoint, write_bundle
from quantize.verify_truth import relative_error
from quantize.weights import SpeechModel

pytestmark = pytest.mark.engine

TEXT = "the kettle has boiled."
FRAMES = 5
STARTER = Path(__file__).parents[2] / "models" / "starter"
GOLDEN = Path(__file__).with_name("starter_golden.npz")

# Bounds for random weights, which are harder than trained ones; float16 keeps 11 bits (2.4e-4 a number), Q8_0 and the
# 8-bit heads about 8 (4e-3 a number, several layers deep), Q4_0 4. Each is about twice what was measured.
BOUNDS = {
    "f32": dict.fromkeys(("tables", "transformers", "codebook 0", "depth logits", "pcm"), 1e-4),
    "f16": {"tables": 5e-4, "transformers": 3e-3, "codebook 0": 1e-5, "depth logits": 1e-5, "pcm": 2e-3},
    "q8_0": {"tables": 5e-4, "transformers": 7e-2, "codebook 0": 1e-5, "depth logits": 2e-2, "pcm": 2e-3},
    "q4_0": {"tables": 5e-4, "transformers": 7e-1, "codebook 0": 1e-5, "depth logits": 2e-2, "pcm": 2e-3},
}
BOUND_OF = {
    "text embeddings": "tables",
    "frame embeddings": "tables",
    "depth embeddings": "tables",
    "backbone hidden": "transformers",
    "depth hidden": "transformers",
    "codebook 0 logits": "codebook 0",
    "projected hidden": "codebook 0",
    "depth logits": "depth logits",
    "pcm": "pcm",
}


def ignore_progress(*_step: object) -> None:
    """No bar."""


def random_codes(shape: Shape) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(shape.codebook_size, (FRAMES, shape.codebooks), generator=generator)


def errors_of(checkpoint: Path, reference: Reference, folder: Path, quant: str) -> dict[str, float]:
    convert(checkpoint, folder / quant, quant, ignore_progress)
    return StarterStages(folder / quant).errors(reference, text_ids(TEXT), random_codes(reference.shape))


def test_every_recipe_stays_within_its_bounds_of_the_reference(tmp_path, capsys):
    """Converted by the real converter, each stage of each recipe is as close to PyTorch as its storage allows."""
    shape = Shape()
    tensors = random_checkpoint(shape, seed=11)
    checkpoint, reference = save_checkpoint(tensors, tmp_path / "checkpoint"), Reference(tensors, shape)
    errors = {quant: errors_of(checkpoint, reference, tmp_path, quant) for quant in BOUNDS}
    with capsys.disabled():
        print("\nrelative error by stage " + "".join(f"{quant:>10}" for quant in errors))
        for stage in BOUND_OF:
            print(f"{stage:<24}" + "".join(f"{errors[quant][stage]:10.1e}" for quant in errors))
    for quant, stages in errors.items():
        for stage, error in stages.items():
            assert error < BOUNDS[quant][BOUND_OF[stage]], (quant, stage)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[SpeechModel, Reference]:
    """A small random model, as read by the converter and as PyTorch."""
    tensors = random_checkpoint(SMALL, seed=3)
    return read_checkpoint(save_checkpoint(tensors, tmp_path_factory.mktemp("small"))), Reference(tensors, SMALL)


def faulty_errors(small: tuple[SpeechModel, Reference], folder: Path, **fault: object) -> dict[str, float]:
    """Errors of a float32 bundle of the small model with some parts replaced."""
    speech, reference = small
    write_bundle(dataclasses.replace(speech, **fault), folder / "faulty", "f32", ignore_progress)
    return StarterStages(folder / "faulty").errors(reference, text_ids(TEXT), random_codes(SMALL))


def test_small_model_without_a_fault_has_parity(small, tmp_path):
    """The tests of planted faults below start from a model that is right."""
    assert max(faulty_errors(small, tmp_path).values()) < 1e-4


@pytest.mark.parametrize("bidirectional", [True, False])
def test_text_is_read_as_it_was_trained(small, tmp_path, bidirectional):
    """In both directions or one, as the manifest says, hidden states are PyTorch's; the other way differs."""
    speech, reference = small
    prompt = speech.manifest["prompt"]
    for flag in (bidirectional, not bidirectional):
        manifest = speech.manifest | {"prompt": prompt | {"bidirectional": flag}}
        write_bundle(dataclasses.replace(speech, manifest=manifest), tmp_path / str(flag), "f32", ignore_progress)
    ids, codes = text_ids(TEXT), random_codes(SMALL)
    inputs = torch.cat([reference.text_embeddings(ids), reference.frame_embeddings(codes)])
    expected = reference.backbone(inputs, len(ids) if bidirectional else 0)[len(ids) - 1 :].numpy()
    right, wrong = (
        StarterStages(tmp_path / str(flag)).hidden_states("backbone", [inputs.float().numpy()], len(ids))[0]
        for flag in (bidirectional, not bidirectional)
    )
    assert relative_error(right, expected) < 1e-5
    assert relative_error(wrong, expected) > 1e-2


@pytest.mark.parametrize(("part", "stage"), [("backbone", "backbone hidden"), ("depth_decoder", "depth hidden")])
def test_wrong_head_permutation_breaks_parity(small, tmp_path, part, stage):
    """Rotate-half weights written as if their pairs were neighbours are noticed."""
    wrong = dataclasses.replace(getattr(small[0], part), rotate_half=False)
    assert faulty_errors(small, tmp_path, **{part: wrong})[stage] > 1e-2


def test_wrong_codebook_offset_breaks_parity(small, tmp_path):
    """Tables shifted by one codebook are noticed, for the backbone and for the depth decoder."""
    shifted = np.roll(small[0].audio_embeddings, SMALL.codebook_size, axis=0)
    errors = faulty_errors(small, tmp_path, audio_embeddings=shifted)
    assert errors["frame embeddings"] > 0.1
    assert errors["depth embeddings"] > 0.1


def test_wrong_head_index_breaks_parity(small, tmp_path):
    """Depth heads off by one are noticed."""
    shifted = np.roll(small[0].depth_heads, 1, axis=0)
    assert faulty_errors(small, tmp_path, depth_heads=shifted)["depth logits"] > 0.1


@pytest.fixture(scope="module")
def starter() -> StarterStages:
    """The bundle that is shipped."""
    return StarterStages(STARTER)


@pytest.fixture(scope="module")
def golden() -> list[tuple[list[int], np.ndarray, np.ndarray]]:
    """Prompts, PyTorch's greedy codes [T, Q] and its PCM of them (``training.golden`` writes them)."""
    arrays, tokenizer = np.load(GOLDEN), PromptTokenizer(load_bundle(STARTER))
    prompts = [tokenizer.encode(str(arrays[f"text{n}"]), int(arrays.get(f"speaker{n}", 0))) for n in range(3)]
    return [(prompt, arrays[f"codes{n}"], arrays[f"pcm{n}"]) for n, prompt in enumerate(prompts)]


def test_golden_codes_decode_to_the_golden_pcm(starter, golden):
    """The shipped codec gives PyTorch's PCM but for its float16 storage: 4e-4 measured, 68 dB below the speech."""
    for _, codes, pcm in golden:
        assert relative_error(starter.decode(codes, 1), pcm) < 1e-3


@pytest.mark.parametrize("group", [1, 2, 7])
def test_shipped_codec_gives_the_same_samples_in_groups(starter, golden, group):
    """Frames one at a time, in groups or all at once: the same PCM16, to one step."""
    for _, codes, _ in golden:
        whole, pieces = (starter.decode(codes, n) for n in (len(codes), group))
        assert np.abs(np.rint(whole * 32767) - np.rint(pieces * 32767)).max() <= 1


def test_shipped_voice_chooses_the_golden_codes(starter, golden):
    """Given PyTorch's greedy codes so far, the Q8_0 voice mostly chooses the same next code."""
    choices = [agreement(starter, prompt, codes) for prompt, codes, _ in golden]
    c0, depth = (np.concatenate(part).mean() for part in zip(*choices, strict=True))
    assert c0 > 0.9
    assert depth > 0.85


def agreement(stages: StarterStages, ids: list[int], codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each choice is the golden one: codebook 0 [T + 1] with the end of speech, the others [T * (Q - 1)]."""
    size = stages.bundle.manifest.audio.codebook_size
    inputs = np.concatenate([stages.text[ids], stages.frame_embeddings(codes)], dtype=np.float32)
    embeddings = stages.depth_embeddings(codes)
    c0, depth = [], []
    states = stages.hidden_states("backbone", [inputs], len(ids))[0]
    for number, (hidden, frame) in enumerate(zip(states, [*codes, None], strict=True)):
        logits, projected = stages.head(0, hidden)
        c0.append(logits.argmax() == (size if frame is None else frame[0]))
        if frame is not None:
            found = stages.hidden_states("depth_decoder", [np.vstack([projected, embeddings[number]])], 2)
            chosen = stages.depth_logits(found)[0][:, :size].argmax(axis=1)
            depth += list(chosen == frame[1:])
    return np.array(c0), np.array(depth)
