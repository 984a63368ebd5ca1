"""From trained models to bundles: the daemon's engine says what PyTorch says."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_stages import StarterStages

from daemon.config_sections import EngineConfig
from daemon.engine.bundle import load_bundle
from daemon.engine.engine import Engine
from daemon.errors import ModelError, StoreError
from daemon.values import Segment
from quantize.verify_truth import relative_error
from training import export
from training.checkpoint import load, save
from training.codec_config import CodecConfig
from training.codec_model import Codec, Sizes
from training.codec_store import load_codec, print_of
from training.config import Config, PathsConfig
from training.export_config import ExportConfig
from training.lm import shape_of
from training.lm_config import LmConfig
from training.lm_generate import generate
from training.lm_model import SpeechLm, load_lm
from training.text import encode
from training.workspace import Workspace

pytestmark = pytest.mark.engine

BOOKS = 3
FRAMES = 10
TEXTS = ("the kettle has boiled.", "yes.", "dinner is ready, and the lights in the hall are off.")


class OneSegment:
    """Everything pushed is a segment."""

    def push(self, text):
        return [Segment(text, 0)]

    def flush(self):
        return []


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A workspace as the stages before leave it, with random weights, exported."""
    root = tmp_path_factory.mktemp("voice")
    config = Config(
        paths=PathsConfig(work=str(root / "work"), bundle=str(root / "models" / "mine")),
        codec=CodecConfig(
            num_codebooks=BOOKS + 1, keep_codebooks=BOOKS, codebook_size=64, width_latent=16, width=32, hidden=48,
            frame_blocks=1, step_blocks=2,
        ),
        lm=LmConfig(
            width=128, layers=3, ffn=96, depth_width=64, depth_layers=2, depth_ffn=96, phone_layer=1, guide_layer=1
        ),
        export=ExportConfig(name="mine", description="a test", default_voice="rms"),
    )  # fmt: skip
    work = Workspace(config.paths.work)
    write_speech(work)
    torch.manual_seed(5)
    model = SpeechLm(shape_of(config, BOOKS))
    for name, weights in model.named_parameters():
        if name.endswith((".w", "h0.weight")):
            torch.nn.init.normal_(weights, 1.0 if name.endswith(".w") else 0.0, 0.1)
    codec = Codec(sizes_of(config.codec))
    torch.nn.init.normal_(codec.q.e)
    language = {"model": model.state_dict(), "shape": dataclasses.asdict(model.shape), "codec": print_of(codec)}
    save(work.lm / "last.pt", language)
    save(work.codec / "recon.pt", {"sizes": dataclasses.asdict(codec.sizes), "codec": codec.state_dict()})
    export.run(config, device="cpu", processes=1, minutes=None)
    return config


def sizes_of(config):
    """Of the networks, as configured."""
    return Sizes(**{field.name: getattr(config, field.name) for field in dataclasses.fields(Sizes)})


def write_speech(work):
    """Silence instead of speech: the limits are measured on its length."""
    work.index.parent.mkdir(parents=True)
    start, lines = 0, []
    for speaker in (0, 1):
        for text in TEXTS:
            num_samples = 9600 + 1500 * len(text)
            entry = {"text": text, "source": "sentences", "split": "train" if speaker else "held", "speaker": speaker}
            lines.append(json.dumps(entry | {"start": start, "num_samples": num_samples, "phones": []}))
            start += num_samples
    lines.append(lines[0].replace("held", "train"))
    work.index.write_text("\n".join(lines) + "\n", encoding="utf-8")
    np.zeros(start, np.int16).tofile(work.audio)


@pytest.fixture(scope="module")
def work(config):
    """Its workspace."""
    return Workspace(config.paths.work)


@pytest.fixture(scope="module")
def engine(work):
    """The daemon's engine with the float32 bundle."""
    with Engine(EngineConfig(bundle=str(work.bundles / "mine-f32"))) as opened:
        yield opened


def spoken(engine, text, voice):
    """The first codes [FRAMES, Q] of a text."""
    session = engine.session(OneSegment(), voice=voice)
    session.push_text(text)
    session.flush()
    codes = []
    while len(codes) < FRAMES and session.next_audio_chunk() is not None:
        codes.append(session.codes.copy())
    return np.array(codes)


def test_the_engine_says_what_the_model_says(work, engine):
    """Every text in either voice, code by code, as the trainer's own generation."""
    model = load_lm(work.lm / "last.pt", "cpu")
    for speaker, voice in enumerate(("slt", "rms")):
        for text in TEXTS:
            codes = spoken(engine, text, voice)
            made = generate(model, [encode(text, speaker)], [len(codes)])[0].codes
            assert len(codes)
            np.testing.assert_array_equal(codes, made.numpy())


def test_voices_differ_and_the_default_is_the_configured_one(engine):
    """By name, in the order of the configuration."""
    assert [voice.name for voice in engine.voices.all()] == ["slt", "rms"]
    said = [spoken(engine, TEXTS[0], voice) for voice in ("slt", "rms", None)]
    assert not np.array_equal(said[0], said[1])
    np.testing.assert_array_equal(said[1], said[2])


def test_the_bundle_sounds_as_the_codec(work):
    """Codes to samples, one frame at a time, as PyTorch decodes them at once."""
    codes = np.random.default_rng(1).integers(0, 64, (FRAMES, BOOKS))
    expected = load_codec(work, "cpu").decode(torch.from_numpy(codes)[None])[0].numpy()
    found = StarterStages(work.bundles / "mine-f32").decode(codes, 1)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    half = StarterStages(work.bundles / "mine-q8_0").decode(codes, 1)
    assert relative_error(half, expected) < 5e-3


def test_bundles_say_what_was_trained(work):
    """Every recipe is there and whole, with the sizes, limits and voices of the models."""
    for recipe in ExportConfig().recipes:
        manifest = load_bundle(work.bundles / f"mine-{recipe}", verify="full").manifest
        assert (manifest.name, manifest.description, manifest.recipe) == ("mine", "a test", recipe)
        assert (manifest.audio.num_codebooks, manifest.audio.codebook_size, manifest.stop.code) == (BOOKS, 64, 64)
        assert (manifest.prompt.template, manifest.prompt.bidirectional) == ("[{speaker}]{text}", True)
        assert manifest.limits.max_text_tokens == max(map(len, TEXTS)) + 3
        assert manifest.limits.seconds_per_token == pytest.approx(0.0625 + 0.2 / 20, rel=0.2)


def test_what_pytorch_says_is_kept(work):
    """Held-out texts with codes and samples; the float32 engine agrees with all of them."""
    golden = np.load(work.export / "golden.npz")
    assert [str(golden[f"text{number}"]) for number in range(3)] == sorted(TEXTS, key=len)
    assert all(len(golden[f"pcm{number}"]) == 1920 * len(golden[f"codes{number}"]) for number in range(3))
    total = sum(golden[f"codes{number}"].size for number in range(3))
    assert export.agreement(work.export / "golden.npz", work.bundles / "mine-f32") == (total, total)


def test_installing_replaces_the_bundle_in_use(config, capsys):
    """Only where asked for, and also in place of another voice."""
    assert not Path(config.paths.bundle).exists()
    for source in ("x", "y"):
        changed = config.export.model_copy(update={"install": "q8_0", "source": source, "recipes": ("q8_0",)})
        export.run(config.model_copy(update={"export": changed}), device="cpu", processes=1, minutes=None)
        assert load_bundle(Path(config.paths.bundle), verify="full").manifest.source == source
    assert f"training: {config.paths.bundle}: " in capsys.readouterr().err


@pytest.mark.parametrize(("lost", "said"), [("lm", "run the stage lm first"), ("codec", "codec"), ("speech", "speak")])
def test_what_was_not_made_before_is_named(config, work, tmp_path, lost, said):
    """In one line, with the stage to run."""
    shutil.copytree(work.root, tmp_path / "work")
    shutil.rmtree(tmp_path / "work" / lost)
    moved = config.model_copy(update={"paths": PathsConfig(work=str(tmp_path / "work"))})
    with pytest.raises(ModelError, match=said):
        export.run(moved, device="cpu", processes=1, minutes=None)


def test_a_language_model_of_other_codes_is_refused(config, work, tmp_path):
    """Where the codec was trained on since, or where nobody noted which one it was."""
    shutil.copytree(work.root, tmp_path / "work")
    moved = config.model_copy(update={"paths": PathsConfig(work=str(tmp_path / "work"))})
    last = tmp_path / "work" / "lm" / "last.pt"
    for codec in ("other", None):
        save(last, load(last) | {"codec": codec})
        with pytest.raises(ModelError, match="found one of other codes; run the stages codec and lm"):
            export.run(moved, device="cpu", processes=1, minutes=None)


def test_what_is_unfinished_is_said(config, work, tmp_path, capsys):
    """How far either model is; nothing where they are finished."""
    moved = config.model_copy(update={"paths": PathsConfig(work=str(tmp_path / "work"))})
    shutil.copytree(work.root, tmp_path / "work")
    export.write_checkpoint(moved, Workspace(moved.paths.work))
    assert not capsys.readouterr().err
    for name, step in (("lm/last.pt", 5400), ("codec/recon.pt", 300)):
        path = tmp_path / "work" / name
        save(path, load(path) | {"step": step, "steps": 7000})
    export.write_checkpoint(moved, Workspace(moved.paths.work))
    said = capsys.readouterr().err
    assert said == "training: language model: step 5400 of 7000\ntraining: codec: step 300 of 7000\n"


def test_a_place_that_cannot_be_written_is_said(config, work, tmp_path):
    """A file where the folder of the checkpoint should be."""
    shutil.copytree(work.root, tmp_path / "work", ignore=shutil.ignore_patterns("export", "bundles"))
    (tmp_path / "work" / "export").touch()
    moved = config.model_copy(update={"paths": PathsConfig(work=str(tmp_path / "work"))})
    with pytest.raises(StoreError, match="cannot be written"):
        export.run(moved, device="cpu", processes=1, minutes=None)
