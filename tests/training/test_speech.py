"""Speaking with the real flite: audio, phones, their alignment to the letters; going on where a run stopped."""

import json
import os
import resource
import shutil
import signal
import time
from threading import Thread

import numpy as np
import pytest

from daemon.errors import BadRequestError, ConfigError, ModelError, StoreError
from training import align, speak
from training.config import Config, PathsConfig, SpeakerConfig, SpeechConfig
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


@pytest.fixture
def copied(config, tmp_path):
    """The same in a workspace of its own."""
    shutil.copytree(config.paths.work, tmp_path / "work")
    return config.model_copy(update={"paths": PathsConfig(work=str(tmp_path / "work"))})


def with_speech(config, **changes):
    return config.model_copy(update={"speech": config.speech.model_copy(update=changes)})


def flite(*voices):
    return tuple(SpeakerConfig(name=f"voice{n}", description="flite's", flite=voice) for n, voice in enumerate(voices))


def files(work):
    return work.index.read_bytes(), work.audio.read_bytes()


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


def test_processes_speak_as_one_does(config, tmp_path):
    """The same files, in the same order."""
    Workspace(tmp_path).corpus.write_bytes(Workspace(config.paths.work).corpus.read_bytes())
    speak.run(config.model_copy(update={"paths": PathsConfig(work=str(tmp_path))}), processes=2)
    assert files(Workspace(tmp_path)) == files(Workspace(config.paths.work))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_was_spoken(copied, number):
    """As many whole utterances as the index has lines; then it goes on to the same files."""
    work = Workspace(copied.paths.work)
    before = files(work)
    shutil.rmtree(work.index.parent)

    def interrupt():
        while not (work.index.exists() and work.index.stat().st_size):
            time.sleep(0.001)
        os.kill(os.getpid(), number)

    thread = Thread(target=interrupt)
    thread.start()
    with pytest.raises(Stopped):
        speak.run(copied)
    thread.join()
    assert before[0].startswith(work.index.read_bytes())
    speak.run(copied)
    assert files(work) == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"speakers": flite("awb", "slt")}, r"made\.json: flite: expected .*awb.*, found .*rms"),
        ({"level_db": -30.0}, r"made\.json: level_db: expected -30\.0, found -22\.0"),
        ({"margin_s": 0.2}, r"made\.json: margin_s: expected 0\.2, found 0\.08"),
    ],
)
def test_what_was_spoken_in_another_way_is_not_gone_on_with(copied, changes, said):
    """Other voices, another level: the speech there is stays, and its maker is told what to do."""
    work = Workspace(copied.paths.work)
    before = files(work)
    with pytest.raises(ModelError, match=f"{said}.*; take another"):
        speak.run(with_speech(copied, **changes))
    assert files(work) == before


def test_what_has_no_note_is_taken_to_be_as_configured(copied):
    """Hours of speech from before there were notes are kept, and have one from then on."""
    work = Workspace(copied.paths.work)
    note = work.index.with_name("made.json")
    before, told = files(work), note.read_text()
    note.unlink()
    assert len(Speech(work).utterances) == 5
    speak.run(copied)
    assert (files(work), note.read_text()) == (before, told)
    with pytest.raises(ModelError, match="flite: expected"):
        speak.run(with_speech(copied, speakers=flite("slt", "awb")))
    note.write_text("[]")
    with pytest.raises(ModelError, match=r"made\.json: damaged"):
        Speech(work)


def test_a_voice_that_flite_does_not_have_is_refused(copied):
    """flite itself would speak with its default voice."""
    shutil.rmtree(Workspace(copied.paths.work).index.parent)
    with pytest.raises(ConfigError, match=r"flite has no voice stl, expected one of kal, .*slt"):
        speak.run(with_speech(copied, speakers=flite("rms", "stl")))
    for voice in ("./mine.flitevox", "mine.flitevox", "voices/mine"):
        with pytest.raises(ConfigError, match=f"flite's voice {voice}: no such file"):
            speak.run(with_speech(copied, speakers=flite(voice)))


def test_a_full_disk_is_said_in_one_line(copied, monkeypatch):
    """And nothing else is raised by closing the files; there is room later, and it goes on."""
    work = Workspace(copied.paths.work)
    before = files(work)
    shutil.rmtree(work.index.parent)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with monkeypatch.context() as patch:
        patch.setattr(speak, "_say", lambda _speech, _job: (np.zeros(3000, np.int16), []))
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        try:
            with pytest.raises(StoreError, match=r"speech: File too large$"):
                speak.run(copied)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(work.index.read_bytes().splitlines()) == 1
    shutil.rmtree(work.index.parent)
    work.index.parent.touch()
    with pytest.raises(StoreError, match=r"speech: File exists$"):
        speak.run(copied)
    work.index.parent.unlink()
    speak.run(copied)
    assert files(work) == before


def test_half_of_the_speech_is_not_trained_on(copied):
    """The error says how much there is; nor is none of it, beside audio without an index."""
    work = Workspace(copied.paths.work)
    whole = work.index.read_bytes()
    work.index.write_bytes(b"".join(whole.splitlines(keepends=True)[:3]))
    with pytest.raises(ModelError, match=r"index\.jsonl: 3 of 5 utterances are spoken; run the stage speak"):
        Speech(work)
    work.index.write_bytes(b"")
    work.index.with_name("made.json").unlink()
    with pytest.raises(ModelError, match=r"index\.jsonl: nothing is spoken yet; run the stage speak"):
        Speech(work)
    work.index.write_bytes(whole)
    assert len(Speech(work).utterances) == 5


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
