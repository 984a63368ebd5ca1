"""The stages codec and encode, on a few real sentences."""

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from codec_scene import CODEC, Interrupted, codec, spoken
from pydantic import ValidationError

from daemon.errors import ModelError, StoreError
from training import codec as stage
from training import codec_adversary, codec_recon, encode
from training.checkpoint import load
from training.classify import IGNORED
from training.codec_config import CodecConfig
from training.codec_data import Cutter, held_batch
from training.codec_model import Codec
from training.codec_recon import sizes_of
from training.codec_store import load_codec
from training.encode import read_codes
from training.journal import read_log
from training.speech import FRAME_SAMPLES, Speech
from training.workspace import Workspace


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Two voices, five texts, spoken."""
    return spoken(tmp_path_factory.mktemp("codec") / "work")


@pytest.fixture
def fresh(config, tmp_path):
    """The same in a workspace of its own."""
    work = tmp_path / "work"
    shutil.copytree(Path(config.paths.work) / "speech", work / "speech")
    return config.model_copy(update={"paths": config.paths.model_copy(update={"work": str(work)})})


def weights(config, name: str) -> dict[str, torch.Tensor]:
    state = load(Workspace(config.paths.work).codec / name)
    assert state is not None
    return state["codec"]


def test_pieces_are_cut_with_their_phones(config):
    """Audio and phones of a piece begin at the same quarter of a frame; unknown phones are said to be so."""
    speech = Speech(Workspace(config.paths.work))
    pieces = Cutter(speech, "train", 40).draw(np.random.default_rng(0), 6)
    assert pieces.audio.shape == (6, 40 * 1920)
    assert pieces.phones.shape == (6, 40, 4)
    sounds = pieces.audio.view(6, 160, 480).square().mean(2).sqrt()
    spoken_now = pieces.phones.view(6, 160) > 0
    assert sounds[spoken_now].mean() > 10 * sounds[~spoken_now].mean()
    for number, item in enumerate(speech.utterances):
        speech.utterances[number] = type(item)(
            **{name: getattr(item, name) for name in item.__slots__} | {"phones": ()}
        )
    assert (Cutter(speech, "train", 4).draw(np.random.default_rng(0), 2).phones == IGNORED).all()


def test_a_speaker_can_be_heard_more_often(config):
    """In proportion to his repeats; with one repeat each, what is drawn is what was drawn without any."""
    speech = Speech(Workspace(config.paths.work))
    frames = [0, 0]
    for number in speech.split("train"):
        frames[speech.utterances[number].speaker] += speech.utterances[number].num_frames
    drawn = {}
    for repeats in ((), (1, 1), (1, 9)):
        numbers = Cutter(speech, "train", 6, repeats)._choose(np.random.default_rng(0), 2000)
        drawn[repeats] = [speech.utterances[number].speaker for number in numbers]
    assert drawn[()] == drawn[1, 1]
    expected = 9 * frames[1] / (frames[0] + 9 * frames[1])
    assert np.mean(drawn[1, 9]) == pytest.approx(expected, abs=0.05)


def test_both_trainings_run_and_leave_what_comes_next(fresh):
    """Checkpoints, codes, logs and pictures are there; the second training changes the decoder alone."""
    stage.run(fresh, device="cpu", processes=1, minutes=None)
    work = Workspace(fresh.paths.work)
    before, after = weights(fresh, "recon.pt"), weights(fresh, "adversary.pt")
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"dec"}
    for name in ("codec_recon", "codec_adversary"):
        assert (work.plots / f"{name}_spectrogram.png").exists()
        last = read_log(work.log(name))[-1]
        assert last["held_mel"] > 0
    learned = [line for line in read_log(work.log("codec_recon")) if "phones_right" in line]
    assert len(learned) == CODEC.steps
    assert torch.equal(load_codec(work, "cpu").state_dict()["dec.o.weight"], after["dec.o.weight"])
    stage.run(fresh, device="cpu", processes=1, minutes=None)  # nothing is left to do
    assert all(torch.equal(value, weights(fresh, "adversary.pt")[name]) for name, value in after.items())


def test_a_longer_first_training_begins_the_second_anew(fresh, capsys):
    """The second keeps encoder and codebooks of the first as it is now, not as it was."""
    stage.run(fresh, device="cpu", processes=1, minutes=None)
    before = weights(fresh, "recon.pt")
    longer = fresh.model_copy(update={"codec": CODEC.model_copy(update={"steps": 12})})
    stage.run(longer, device="cpu", processes=1, minutes=None)
    after = weights(longer, "recon.pt")
    assert changed(before, after) >= {"enc", "q"}
    assert changed(after, weights(longer, "adversary.pt")) == {"dec"}
    assert "adversary.pt: the first training has gone on since: the second begins anew\n" in capsys.readouterr().err


def test_a_gradient_that_is_no_number_spoils_neither_training(fresh, monkeypatch):
    """Whichever of the losses it comes from, all weights stay."""
    with monkeypatch.context() as patch:
        patch.setattr(codec_recon, "classify", lambda phones, _wanted: (phones.sum() * torch.nan, phones.sum()))
        stage.reconstruct(Interrupted(1), fresh)
    torch.manual_seed(0)
    assert not changed(Codec(sizes_of(CODEC)).state_dict(), weights(fresh, "recon.pt"))
    stage.reconstruct(Interrupted(), fresh)
    encode.encode(Interrupted(), fresh)
    for loss in ("verdict_loss", "fooling_loss"):
        with monkeypatch.context() as patch:
            patch.setattr(codec_adversary, loss, lambda seen, *_: seen[0][0].sum() * torch.nan)
            stage.deceive(Interrupted(1), fresh)
        assert not changed(weights(fresh, "recon.pt"), weights(fresh, "adversary.pt"))
        (Workspace(fresh.paths.work).codec / "adversary.pt").unlink()


def test_an_interrupted_training_comes_to_the_same(config, tmp_path):
    """Stopped and started again, both trainings end with the same weights, bit for bit."""
    ends = []
    for name, stops in (("whole", (None,)), ("parts", (2, 3, None))):
        work = tmp_path / name
        shutil.copytree(Path(config.paths.work) / "speech", work / "speech")
        own = config.model_copy(update={"paths": config.paths.model_copy(update={"work": str(work)})})
        for after in stops:
            stage.reconstruct(Interrupted(after), own)
        encode.encode(Interrupted(), own)
        for after in stops:
            stage.deceive(Interrupted(after), own)
        ends.append(weights(own, "adversary.pt"))
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """Another voice, whose codec is trained."""
    work = tmp_path_factory.mktemp("finished")
    shutil.copytree(Path(config.paths.work) / "speech", work / "speech")
    other = config.model_copy(update={"paths": config.paths.model_copy(update={"work": str(work)})})
    stage.run(other, device="cpu", processes=1, minutes=None)
    return other


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


def test_a_codec_can_be_taken_over(finished, fresh):
    """With no steps of its own, encoder and codebooks stay, and so do the codes; the decoder goes on learning."""
    own = fresh.model_copy(update={"codec": CODEC.model_copy(update={"init": finished.paths.work, "steps": 0})})
    for _ in range(2):  # the second time, nothing is left to do
        stage.run(own, device="cpu", processes=1, minutes=None)
    before = weights(finished, "adversary.pt")
    assert not changed(before, weights(own, "recon.pt"))
    assert changed(before, weights(own, "adversary.pt")) == {"dec"}
    codes = [read_codes(work, Speech(work)) for work in (Workspace(item.paths.work) for item in (own, finished))]
    assert (codes[0] == codes[1]).mean() > 0.95


def test_trainings_can_begin_with_another_codec(finished, fresh):
    """Codebooks, what names the phones and discriminators too are where the other's were, until they learn more."""
    slow = {"init": finished.paths.work, "rate": 1e-9, "steps": 2, "start_codebooks": 100}
    adversary = CODEC.adversary.model_copy(update={"rate": 1e-9, "steps": 2})
    own = fresh.model_copy(update={"codec": CODEC.model_copy(update=slow | {"adversary": adversary})})
    stage.run(own, device="cpu", processes=1, minutes=None)
    before, after = weights(finished, "adversary.pt"), weights(own, "adversary.pt")
    assert after["q.started"]
    for name, value in before.items():
        if not name.startswith("q."):
            torch.testing.assert_close(after[name], value, rtol=0, atol=1e-6)
    for place, key in (("recon.pt", "phones"), ("adversary.pt", "discriminators")):
        states = [load(Workspace(item.paths.work).codec / place)[key] for item in (own, finished)]
        for name, value in states[1].items():
            torch.testing.assert_close(states[0][name], value, rtol=0, atol=1e-6)


def test_a_codec_that_cannot_be_begun_with_is_refused(finished, fresh, tmp_path):
    """None there, one that is still in training, one of other sizes, and where this voice has one of its own."""

    def refused(said, source, **changes):
        codec = CODEC.model_copy(update={"init": str(source)} | changes)
        with pytest.raises(ModelError, match=said):
            stage.reconstruct(Interrupted(), fresh.model_copy(update={"codec": codec}))

    refused("run the stage codec there first", tmp_path / "nowhere")
    sizes = r"codec\.init: expected a codec of .*'width': 32"
    refused(sizes, finished.paths.work, width=32)
    refused(sizes, finished.paths.work, width=32, steps=0)
    stage.reconstruct(Interrupted(2), fresh)
    begun = shutil.copytree(fresh.paths.work, tmp_path / "begun")
    refused(r"recon\.pt: expected the codec of .* \(codec\.init\); remove", finished.paths.work, steps=0)
    Path(fresh.paths.work, "codec", "recon.pt").unlink()
    refused(r"codec\.init: its first training is at step 2 of 8", begun)
    with pytest.raises(ValidationError, match="where init names no codec"):
        CodecConfig(steps=0)


def test_codes_lie_in_the_order_of_the_utterances(fresh):
    """Row first_frame + t is frame t; an interrupted stage goes on; other codecs' codes are made anew."""
    work = Workspace(fresh.paths.work)
    with pytest.raises(ModelError, match="run the stage codec"):
        encode.encode(Interrupted(), fresh)
    stage.reconstruct(Interrupted(), fresh)
    encode.encode(Interrupted(2), fresh)
    assert not work.codes.exists()
    encode.encode(Interrupted(), fresh)
    speech, codes = Speech(work), read_codes(work, Speech(work))
    assert codes.dtype == np.int16
    assert codes.shape == (speech.num_frames, CODEC.keep_codebooks)
    made = load_codec(work, "cpu")
    for number, item in enumerate(speech.utterances):
        audio = torch.from_numpy(speech.padded(number))[None]
        found = made.encode(audio, CODEC.keep_codebooks)[0].numpy()
        assert (found == codes[item.first_frame : item.first_frame + item.num_frames]).mean() > 0.95
    written = work.codes.stat().st_mtime_ns
    encode.encode(Interrupted(), fresh)
    assert work.codes.stat().st_mtime_ns == written
    state = load(work.codec / "recon.pt")
    torch.save({**state, "codec": codec(5).state_dict()}, work.codec / "recon.pt")
    encode.encode(Interrupted(), fresh)
    assert json.loads(work.codes.with_suffix(".json").read_text()) != {}
    assert work.codes.stat().st_mtime_ns != written


def test_codes_of_other_speech_are_made_anew(fresh):
    """Also where the same is said, as long, and only the level is another one."""
    work = Workspace(fresh.paths.work)
    stage.reconstruct(Interrupted(), fresh)
    encode.encode(Interrupted(), fresh)
    before = np.array(read_codes(work, Speech(work)))
    (np.fromfile(work.audio, np.int16) // 8).tofile(work.audio)
    encode.encode(Interrupted(), fresh)
    assert (read_codes(work, Speech(work)) != before).any()


def test_a_full_disk_is_said_before_anything_is_coded(fresh, monkeypatch):
    """Room for all codes is taken at the start; what there was of them is removed."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    work = Workspace(fresh.paths.work)
    stage.reconstruct(Interrupted(), fresh)
    monkeypatch.setattr(encode.os, "posix_fallocate", full)
    with pytest.raises(StoreError, match=r"codes\.part\.npy: codes cannot be written: No space left"):
        encode.encode(Interrupted(), fresh)
    assert not list(work.codes.parent.iterdir())


def test_a_checkpoint_of_other_sizes_is_refused(fresh):
    """The message names both and what to do."""
    stage.reconstruct(Interrupted(1), fresh)
    other = fresh.model_copy(update={"codec": CODEC.model_copy(update={"width": 32})})
    with pytest.raises(ModelError, match="remove it to begin anew"):
        stage.reconstruct(Interrupted(1), other)


def test_every_speaker_is_looked_at_and_the_last_one_drawn(finished):
    """One's own recordings come after flite's voices, and are what one wants to see."""
    speech = Speech(Workspace(finished.paths.work))
    batch = held_batch(speech, 2, 3)
    beginnings = [speech.padded(number)[: 3 * FRAME_SAMPLES] for number in speech.split("held")]
    assert [speech.utterances[number].speaker for number in speech.split("held")] == [0, 1]
    assert (batch == np.stack(beginnings[::-1])).all()
