"""Speaking with the real flite: audio, phones, their alignment to the letters; going on where a run stopped."""

import json
import shutil

import numpy as np
import pytest

from daemon.errors import BadRequestError, ModelError
from training import align, speak
from training.config import Config, PathsConfig, SpeechConfig
from training.phones import PHONES, SILENCE, phone_id
from training.speech import FRAME_SAMPLES, Speech
from training.stopping import Stopped
from training.workspace import Workspace, hold

TEXTS = ["the cat sat on the mat.", "yes.", "the box is open, please close it."]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Two voices, three training texts and one held out, spoken."""
    if not shutil.which("flite"):
        pytest.skip("flite is not installed")
    config = Config(paths=PathsConfig(work=str(tmp_path_factory.mktemp("work"))))
    work = Workspace(config.paths.work)
    work.corpus.write_text(
        json.dumps({"held": [["good morning.", "sentences"]], "train": [[text, "sentences"] for text in TEXTS]}),
        encoding="utf-8",
    )
    speak.run(config)
    return config


def test_held_out_texts_are_said_by_all_and_training_texts_by_one(config):
    """The judge compares every voice with its own teacher; training alternates."""
    speech = Speech(Workspace(config.paths.work))
    assert [(item.split, item.speaker) for item in speech.utterances] == [
        ("held", 0),
        ("held", 1),
        ("train", 0),
        ("train", 1),
        ("train", 0),
    ]
    assert [item.first_frame for item in speech.utterances] == list(
        np.cumsum([0] + [item.num_frames for item in speech.utterances[:-1]])
    )


def test_level_and_margins_are_even(config):
    """Every utterance is as loud as the others, starts and ends with the margin, and does not clip."""
    speech = Speech(Workspace(config.paths.work))
    margin = round(SpeechConfig().margin_s * 24000)
    for number in range(len(speech.utterances)):
        audio = speech.audio(number)
        sounding = audio[np.abs(audio) > 0.01 * np.abs(audio).max()]
        assert 20 * np.log10(np.sqrt((sounding**2).mean())) == pytest.approx(-22, abs=1)
        assert np.abs(audio).max() < 1
        assert np.abs(audio[: margin // 2]).max() < 0.1 * np.abs(audio).max()
        assert len(speech.padded(number)) == speech.utterances[number].num_frames * FRAME_SAMPLES


def test_a_stopped_run_goes_on_to_the_same_files(config):
    """Half a line in the index and audio without a line are dropped and made again, bit for bit."""
    work = Workspace(config.paths.work)
    index, audio = work.index.read_bytes(), work.audio.read_bytes()
    work.index.write_bytes(index[: len(index) * 2 // 3])
    with pytest.raises(Stopped):
        speak.run(config, minutes=0)
    speak.run(config)
    assert (work.index.read_bytes(), work.audio.read_bytes()) == (index, audio)


def test_a_second_run_does_not_write_between_the_lines_of_the_first(config):
    """While one has the audio, another is refused and changes nothing."""
    work = Workspace(config.paths.work)
    index, size = work.index.read_bytes(), work.audio.stat().st_size
    with work.audio.open("ab") as audio:
        hold(audio)
        with pytest.raises(BadRequestError, match="another run of the same stage is at work"):
            speak.run(config)
    assert (work.index.read_bytes(), work.audio.stat().st_size) == (index, size)


def test_letters_are_laid_on_the_sounds_they_make(config):
    """Silent letters have none, x has two, and the reading position moves to the last character."""
    speech = Speech(Workspace(config.paths.work))
    said = {
        item.text: [[PHONES[phone] for phone in row if phone] for row in speech.character_phones(number)]
        for number, item in enumerate(speech.utterances)
    }
    assert said[TEXTS[0]][4:7] == [["k"], ["ae"], ["t"]]
    assert said[TEXTS[2]][6] == ["k", "s"]
    assert not said[TEXTS[0]][3]
    for number, item in enumerate(speech.utterances):
        position = speech.character(number)
        assert len(position) == item.num_frames + 1
        assert (np.diff(position) >= 0).all()
        assert position[-1] == len(item.text) - 1
        assert speech.frame_phones(number).shape == (item.num_frames, 4)
        assert speech.frame_phones(number)[0, 0] == SILENCE


def test_without_phones_the_alignment_is_unknown():
    """Recordings without times of phones train without being guided."""
    assert np.isnan(align.characters("hello.", [], 5)).all()
    assert not align.frame_phones([], 5).any()
    assert not align.character_phones("hello.", []).any()


def test_all_phones_of_flite_are_known(config):
    """Names of other phone sets and stress digits map to the same ids; unknown names are an error."""
    assert phone_id("AXR") == phone_id("er")
    assert phone_id("AH0") == phone_id("ah")
    with pytest.raises(KeyError):
        phone_id("click")


def test_nothing_spoken_yet_is_said_in_one_line(tmp_path):
    """The error names the stage to run."""
    with pytest.raises(ModelError, match="run the stage speak first"):
        Speech(Workspace(tmp_path))
    with pytest.raises(ModelError, match="run the stage corpus first"):
        speak.run(Config(paths=PathsConfig(work=str(tmp_path))))
