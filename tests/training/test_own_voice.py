"""A voice of one's own, quickly: recordings, another voice's codec, and its language model as a beginning."""

from pathlib import Path

import torch
from codec_scene import CODEC
from recording_scene import TEXTS, config_of, folder

from daemon.engine.bundle import load_bundle
from training import codec, export, lm, speak
from training.config import load as load_config
from training.encode import read_codes
from training.export_config import ExportConfig
from training.lm_config import LmConfig
from training.lm_model import load_lm
from training.speech import Speech
from training.workspace import Workspace

REPOSITORY = Path(__file__).parents[2]
LM = LmConfig(
    width=128, layers=2, ffn=96, depth_width=64, depth_layers=1, depth_ffn=96, phone_layer=1, guide_layer=1,
    positions=272, steps=6, warmup=2, evaluate_every=3, compile=False,
)  # fmt: skip
MEANS = {"device": "cpu", "processes": 1, "minutes": None}


def test_from_a_finished_voice_to_one_with_another_speaker(tmp_path):
    """Codes and embeddings go on from what was there, and the bundle has both voices."""
    first = config_of(tmp_path / "first", None).model_copy(update={"lm": LM})
    speak.run(first)
    for stage in (codec, lm):
        stage.run(first, **MEANS)
    begin = {
        "codec": CODEC.model_copy(update={"init": first.paths.work, "steps": 0}),
        "lm": LM.model_copy(update={"init": str(Workspace(first.paths.work).lm / "last.pt"), "steps": 4}),
        "export": ExportConfig(name="own", default_voice="me", recipes=("f32",)),
    }
    own = config_of(tmp_path / "second", folder(tmp_path / "recordings", TEXTS[:4]), repeats=3).model_copy(update=begin)
    speak.run(own)
    for stage in (codec, lm, export):
        stage.run(own, **MEANS)
    work, before = Workspace(own.paths.work), Workspace(first.paths.work)
    known = Speech(before).num_frames
    assert (read_codes(work, Speech(work))[:known] == read_codes(before, Speech(before))).mean() > 0.95
    tables = [load_lm(place.lm / "last.pt", "cpu").te.weight for place in (before, work)]
    assert len(tables[1]) == len(tables[0]) + 1
    assert torch.nn.functional.cosine_similarity(*(table[:35] for table in tables)).mean() > 0.9
    manifest = load_bundle(work.bundles / "own-f32", verify="full").manifest
    assert [(name, voice.speaker) for name, voice in manifest.voices.items()] == [("slt", 0), ("me", 1)]


def test_the_example_configuration_is_one():
    """It adds a recorded speaker to those of the starter voice, which it begins with."""
    starter = load_config(REPOSITORY / "training" / "starter.toml")
    own = load_config(REPOSITORY / "training" / "own-voice.toml")
    assert own.speech.speakers[:-1] == starter.speech.speakers
    assert own.speech.speakers[-1].recordings
    assert own.codec.init == starter.paths.work
    assert own.lm.init == f"{starter.paths.work}/lm/last.pt"
    assert own.paths.work != starter.paths.work
