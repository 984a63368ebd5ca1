"""Own recordings: what can be used of them, when their phones are said, and what is done again when they change."""

import json
import shutil
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from recording_scene import FLITE, TEXTS, config_of, folder, record

from daemon.errors import BadRequestError, ModelError
from training import forced_alignment, jobs, recordings, speak
from training.config import Config, SpeakerConfig
from training.phones import PHONES, phone_id
from training.recordings import Limits, Recording, hold_out
from training.speech import Speech
from training.text import spoken
from training.workspace import Workspace

LIMITS = Limits(characters=120, positions=256)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The recordings of one speaker."""
    return folder(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def made(own, tmp_path_factory):
    """A workspace in which flite spoke first and the recordings came later, and flite's part of the files."""
    work = tmp_path_factory.mktemp("work")
    speak.run(config_of(work, None))
    before = Workspace(work).index.read_bytes(), Workspace(work).audio.read_bytes()
    config = config_of(work, own, repeats=3)
    speak.run(config)
    return config, before


@pytest.fixture
def copied(made, own, tmp_path):
    """The same with a workspace and a folder of its own."""
    shutil.copytree(made[0].paths.work, tmp_path / "work")
    return config_of(tmp_path / "work", shutil.copytree(own, tmp_path / "own"))


def entries(config: Config) -> list[dict]:
    return [json.loads(line) for line in Workspace(config.paths.work).index.read_text().splitlines()]


def test_recordings_are_added_to_what_flite_has_spoken(made):
    """Nothing of flite's changes; every recording is there, normalised, some are held out."""
    config, (index, audio) = made
    work = Workspace(config.paths.work)
    assert work.index.read_bytes().startswith(index)
    assert work.audio.read_bytes().startswith(audio)
    added = [item for item in Speech(work).utterances if item.speaker == 1]
    assert [item.text for item in added] == [spoken(text) for text in TEXTS]
    assert {item.source for item in added} == {"recordings"}
    assert [item.split for item in added].count("held") == 3


def test_recordings_sound_like_the_rest(made):
    """At the same level, without the half second of noise around them, whatever the file's rate."""
    speech = Speech(Workspace(made[0].paths.work))
    for number, item in enumerate(speech.utterances):
        audio = speech.audio(number)
        loud = audio[np.abs(audio) > 0.01 * np.abs(audio).max()]
        assert 20 * np.log10(np.sqrt((loud**2).mean())) == pytest.approx(-22, abs=1)
        assert len(audio) / 24_000 < 0.1 * len(item.text) + 0.7


def test_phones_are_where_flite_said_them(tmp_path):
    """Nine boundaries of phones in ten are within 30 ms of flite's, nearly all within a frame."""
    same = {phone_id("ax"): phone_id("ah")}  # the dictionary has no schwa
    off_s, number = [], 0
    for voice in ("kal16", "awb"):
        for count, text in enumerate(TEXTS):
            path = tmp_path / f"{voice}{count}.wav"
            expected = record(path, text, voice=voice)
            found = forced_alignment.phones(*recordings.load(Recording("", "", str(path), "")), spoken(text))
            names = [[same.get(phone, phone) for phone, _ in side] for side in (expected, found)]
            for block in SequenceMatcher(None, *names, autojunk=False).get_matching_blocks():
                pairs = zip(expected[block.a :][: block.size], found[block.b :][: block.size], strict=True)
                off_s += [abs(ours - theirs) for (phone, theirs), (_, ours) in pairs if PHONES[phone] != "pau"]
            number += sum(PHONES[phone] != "pau" for phone, _ in expected)
    assert len(off_s) > 0.9 * number
    assert np.mean(np.array(off_s) < 0.03) > 0.9
    assert np.mean(np.array(off_s) < 0.08) > 0.95


def test_unknown_words_leave_the_phones_unknown(tmp_path):
    """So does speech that is too short for the text; what comes after is aligned as before."""
    record(tmp_path / "a.wav", TEXTS[0])
    audio, rate = recordings.load(Recording("", "", str(tmp_path / "a.wav"), ""))
    before = forced_alignment.phones(audio, rate, spoken(TEXTS[0]))
    for text in ("the blorple has boiled.", "?", " ".join([spoken(TEXTS[0])] * 5)):
        assert forced_alignment.phones(audio, rate, text) == []
    assert forced_alignment.phones(audio, rate, spoken(TEXTS[0])) == before != []


def test_what_cannot_be_used_is_named(tmp_path, capsys):
    """Each with its reason; the others are used, in either place, with and without the file's ending."""
    place = folder(tmp_path / "own", TEXTS[:2])
    good, rate = soundfile.read(place / "wavs" / "0.flac", always_2d=True)
    soundfile.write(place / "quiet.wav", 0.001 * good, rate)
    soundfile.write(place / "loud.wav", (40 * good).clip(-1, 1), rate)
    soundfile.write(place / "short.wav", good[rate : rate + rate // 10], rate)
    soundfile.write(place / "other.wav", np.tile(good, (4, 1)), rate)
    soundfile.write(place / "nothing.wav", good[:0], rate)
    soundfile.write(place / "hour.wav", np.zeros(121 * 8000), 8000)
    soundfile.write(place / "nan.wav", np.full(rate, np.nan), rate, subtype="FLOAT")
    (place / "text.wav").write_text("this is no sound", encoding="utf-8")
    long = "one two three four five six seven eight nine " * 4
    said = {
        "gone": "Hello.", "quiet": "Hello.", "loud": TEXTS[0], "short": TEXTS[0], "other": "Yes.", "nothing": "Yes.",
        "hour": "Yes.", "nan": "Yes.", "text": "Yes.", "0.flac": long, "wavs": "a folder", "": "no name",
    }  # fmt: skip
    with (place / "metadata.csv").open("a", encoding="utf-8") as lines:
        lines.writelines(f"{name}|{text}\r\n" for name, text in said.items())
        lines.write(f"1|{TEXTS[1]}\n\nempty|\nsymbols|***\nonly\n1.flac|30 min.|Thirty minutes and a half are left.\n")
    config = config_of(tmp_path / "work", place)
    used = [job.text for job in jobs.plan(Workspace(config.paths.work), config, map) if job.speaker == 1]
    assert used == [*map(spoken, TEXTS[:2]), "thirty minutes and a half are left."]
    lines = Workspace(config.paths.work).skipped("me").read_text(encoding="utf-8").splitlines()
    reasons = dict(line.split(": ", 1) for line in lines if ": " in line and not line.startswith("1: "))
    for name, reason in {
        "gone": "no such file", "quiet": "silent: its peak is -71 dBFS", "loud": "clipped: ", "short": "0.1 s of sound",
        "other": "not what the text says", "nothing": "silent", "hour": "121 s long, at most 120", "nan": "no numbers",
        "text": "cannot be read", "0.flac": "180 characters as spoken, at most 120 (corpus.max_characters)",
        "wavs": "no such file", "empty": "no text", "symbols": "no text", "only": "no text",
    }.items():  # fmt: skip
        assert reason in reasons.pop(name), name
    assert not reasons
    assert "1: named twice in metadata.csv; the first is used" in lines
    assert "line 14 of metadata.csv names no file" in lines
    said_so = capsys.readouterr().err
    assert "me: 3 recordings can be used, 16 cannot" in said_so
    assert f"and 11 more: {Workspace(config.paths.work).skipped('me')}" in said_so


def test_too_long_for_the_language_model_is_skipped(tmp_path):
    """Text and sound together have to fit into lm.longest positions."""
    place = folder(tmp_path / "own", TEXTS[:2])
    with pytest.raises(BadRequestError, match=r"first of 2: 0: too long: 2\.\d s and 43 characters .*lm\.longest"):
        recordings.read(place, Limits(characters=120, positions=64))


def test_nothing_that_can_be_used_is_refused(tmp_path):
    """In one line: no metadata.csv, one that is empty or no text, one of which every file is missing."""
    with pytest.raises(BadRequestError, match=r"metadata\.csv: No such file or directory; expected a line"):
        recordings.read(tmp_path, LIMITS)
    path = tmp_path / "metadata.csv"
    for content, said in ((b"", "it is empty"), (b"a|b\xff", "not UTF-8"), (b"a|hello", "first of 1: a: no such file")):
        path.write_bytes(content)
        with pytest.raises(BadRequestError, match=said):
            recordings.read(tmp_path, LIMITS)


def test_a_stopped_run_goes_on_to_the_same_files(copied):
    """In the middle of the recordings, with half a line written."""
    work = Workspace(copied.paths.work)
    index, audio = work.index.read_bytes(), work.audio.read_bytes()
    work.index.write_bytes(b"".join(index.splitlines(keepends=True)[:5]) + b'{"text": "the')
    speak.run(copied)
    assert (work.index.read_bytes(), work.audio.read_bytes()) == (index, audio)


def test_changed_recordings_are_read_again(copied, capsys):
    """A sentence recorded anew, and one that is taken away; codes of the old ones go, flite's speech is kept."""
    work, place = Workspace(copied.paths.work), Path(copied.speech.speakers[1].recordings)
    before = entries(copied)
    work.codes.parent.mkdir()
    work.codes.touch()
    record(place / "wavs" / "4.flac", TEXTS[4], voice="awb", rate=22_050)
    speak.run(copied)
    after = entries(copied)
    assert after[:7] == before[:7]
    assert after[7]["recording"] != before[7]["recording"]
    assert after[8] | {"start": 0} == before[8] | {"start": 0}
    assert "the recordings have changed: 2 are read again" in capsys.readouterr().err
    assert not work.codes.exists()
    metadata = (place / "metadata.csv").read_text().splitlines(keepends=True)
    (place / "metadata.csv").write_text("".join(metadata[:-1]))
    speak.run(copied)
    assert [item["text"] for item in entries(copied)] == [item["text"] for item in after[:-1]]
    last = entries(copied)[-1]
    assert work.audio.stat().st_size == 2 * (last["start"] + last["num_samples"])


def test_other_speakers_of_flite_are_refused(copied):
    """Hours of speech are not thrown away for a line in the configuration."""
    work = Workspace(copied.paths.work)
    index = work.index.read_bytes()
    third = SpeakerConfig(name="rms", description="flite's", flite="rms")
    for speakers in ((*copied.speech.speakers, third), (copied.speech.speakers[1], FLITE)):
        speech = copied.speech.model_copy(update={"speakers": speakers})
        planned = jobs.plan(work, copied.model_copy(update={"speech": speech}), map)
        with pytest.raises(ModelError, match=r"index\.jsonl: line \d: expected .* by speaker \d, .* have changed"):
            jobs.done(work, planned)
    assert work.index.read_bytes() == index


def test_damaged_files_are_named(copied):
    """Not continued with silence."""
    work = Workspace(copied.paths.work)
    planned = jobs.plan(work, copied, map)
    with work.audio.open("ab") as audio:
        audio.truncate(9000)
    with pytest.raises(ModelError, match=r"audio\.i16: shorter than"):
        jobs.done(work, planned)
    work.index.write_text("{}\nnothing\n", encoding="utf-8")
    with pytest.raises(ModelError, match=r"index\.jsonl: damaged"):
        jobs.done(work, planned)


@given(
    texts=st.lists(st.integers(0, 3000), min_size=2, max_size=1500),
    never=st.sets(st.integers(0, 3000), max_size=5),
)
def test_held_out_texts_are_never_trained(texts, never):
    """A share of the texts, ten to fifty of twenty or more; something is left to learn from."""
    said = [Recording(str(n), f"{text}.", "", "") for n, text in enumerate(texts)]
    kept = {f"{text}." for text in never}
    if not {item.text for item in said} - kept:
        with pytest.raises(BadRequestError, match="every text is held out"):
            hold_out(said, kept)
        return
    held = hold_out(said, kept)
    trained = {item.text for item in said} - held
    assert trained
    assert not trained & kept
    count = len({item.text for item in said} - kept)
    assert min(10, count // 2) <= len(held - kept) <= min(50, count // 2)


@given(texts=st.lists(st.integers(0, 3000), min_size=20, max_size=1500, unique=True), added=st.integers(0, 1000))
def test_what_is_learned_from_is_never_held_out_later(texts, added):
    """However many recordings are added: the figures of a voice that has gone on learning stay true."""
    said = [Recording(str(n), f"{text}.", "", "") for n, text in enumerate(texts)]
    before = said[: max(20, len(said) - added)]
    trained = {item.text for item in before} - hold_out(before, set())
    assert not trained & hold_out(said, set())


def test_what_was_held_out_stays_so_with_other_names():
    """The choice is by the text, so that a second take of a held-out sentence is not learned from."""
    said = [Recording(str(n), f"{n}.", "", "") for n in range(200)]
    again = [Recording(f"again{n}", f"{n}.", "", "x") for n in range(200)]
    assert hold_out(said, set()) == hold_out(said[::-1], set()) == hold_out(again, set())
    assert 10 <= len(hold_out(said, set())) <= 20
    assert hold_out(said * 10, set()) == hold_out(said, set())


def test_two_takes_of_a_text_are_on_one_side(tmp_path):
    """Nobody is judged by a text that the same speaker was trained on, however it is written in metadata.csv."""
    place = folder(tmp_path / "own")
    with (place / "metadata.csv").open("a", encoding="utf-8") as lines:
        lines.writelines(f"wavs/{number}|{text.upper()}\n" for number, text in enumerate(TEXTS))
    config = config_of(tmp_path / "work", place)
    own = [job for job in jobs.plan(Workspace(config.paths.work), config, map) if job.speaker == 1]
    sides = [{job.text for job in own if job.split == split} for split in ("held", "train")]
    assert [len(side) for side in sides] == [3, 3]
    assert len(own) == 12
