"""Chimes: the sounds themselves, the files they may come from, and how they stand around the speech."""

import time
import wave

import numpy as np
import pytest
import soundfile
from playback_rig import BLOCK, LEAD, Rig, speech
from service_scene import CONFIG, open_engine, request, run_service
from soundcard import wait_until

from daemon.audio.chimes import Chimes
from daemon.audio.utterance import Hold, PlayOutcome
from daemon.config_sections import ChimesConfig, ChimesOf
from daemon.errors import BadRequestError, ConfigError
from daemon.values import SAMPLE_RATE, EventType, Priority, Reason, SettingsChange

BUILT_IN = ["alarm", "ding", "dingdong", "gong"]


@pytest.fixture(scope="module")
def engine():
    """The starter voice."""
    with open_engine() as opened:
        yield opened


def chime(name):
    """A built-in one."""
    return Chimes(ChimesConfig()).before(request(chime=name))


def with_chimes(**fields):
    """The scene's configuration with these."""
    return CONFIG.model_copy(update={"chimes": ChimesConfig(**fields)})


def sound_file(path, rate=SAMPLE_RATE, seconds=0.5, channels=1, peak=0.5):
    """A tone of 440 Hz."""
    tone = peak * np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate)
    soundfile.write(path, np.stack([tone] * channels, axis=1), rate)
    return str(path)


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_chimes_are_short_soft_and_do_not_click(name):
    """0.3 to 1.2 s, a peak of -9 dBFS, silence at either end, and no jump within."""
    pcm = chime(name).astype(float) / 32768
    assert 0.3 <= len(pcm) / SAMPLE_RATE <= 1.2
    assert 20 * np.log10(np.abs(pcm).max()) == pytest.approx(-9, abs=0.1)
    assert max(abs(pcm[0]), abs(pcm[-1])) < 0.001
    assert np.abs(np.diff(pcm, 2)).max() < 0.15
    assert len(np.unique([chime(other).tobytes() for other in BUILT_IN])) == len(BUILT_IN)


def test_each_priority_has_its_chimes_and_a_request_may_have_another():
    """A name in the request replaces the one before, "none" leaves it out; the one after stays."""
    config = ChimesConfig(before=ChimesOf(critical="alarm", normal="ding"), after=ChimesOf(low="gong"))
    chimes = Chimes(config)
    assert chimes.names == BUILT_IN
    assert np.array_equal(chimes.before(request(priority=Priority.CRITICAL)), chime("alarm"))
    assert np.array_equal(chimes.before(request()), chime("ding"))
    assert np.array_equal(chimes.before(request(chime="gong")), chime("gong"))
    assert len(chimes.before(request(chime="none"))) == 0
    assert len(chimes.before(request(priority=Priority.LOW))) == 0
    assert np.array_equal(chimes.after(request(priority=Priority.LOW, chime="none")), chime("gong"))


@pytest.mark.parametrize(("rate", "channels"), [(24_000, 1), (44_100, 2), (8_000, 1), (48_000, 2)])
def test_sound_files_become_24_khz_mono(tmp_path, rate, channels):
    """By name or by path, of any rate: the tone, its length and its level stay."""
    path = sound_file(tmp_path / "tone.wav", rate, channels=channels, peak=0.1)
    chimes = Chimes(ChimesConfig(sounds={"tone": path}, before=ChimesOf(normal=path, low="tone")))
    assert "tone" in chimes.names
    pcm = chimes.before(request(chime="tone")).astype(float)
    assert np.array_equal(chimes.before(request()), pcm)
    assert len(pcm) == pytest.approx(SAMPLE_RATE // 2, abs=2)
    assert np.abs(pcm).max() == pytest.approx(0.1 * 32767, rel=0.05)
    assert np.argmax(np.abs(np.fft.rfft(pcm))) * SAMPLE_RATE / len(pcm) == pytest.approx(440, abs=2)
    assert max(abs(pcm[0]), abs(pcm[-1])) < 400


def loudness(pcm):
    """Root mean square of the loudest 200 ms, in a slow way."""
    padded = np.pad(pcm.astype(float), 4800)
    return max(np.sqrt(np.mean(padded[at : at + 4800] ** 2)) for at in range(0, len(padded) - 4800, 240))


@pytest.mark.parametrize(("seconds", "peak"), [(2.0, 0.99), (2.0, 0.3), (0.02, 0.99), (0.02, 3.0), (0.5, 0.05)])
def test_a_sound_of_ones_own_is_no_louder_than_those_built_in(tmp_path, seconds, peak):
    """Neither its peak nor its loudest 200 ms, be it mastered to full scale or beyond; a soft one is not amplified."""
    tone = peak * np.sin(2 * np.pi * 440 * np.arange(round(SAMPLE_RATE * seconds)) / SAMPLE_RATE)
    soundfile.write(tmp_path / "a.wav", tone, SAMPLE_RATE, subtype="FLOAT")
    pcm = Chimes(ChimesConfig(sounds={"a": str(tmp_path / "a.wav")})).before(request(chime="a"))
    allowed = max(loudness(chime(name)) for name in BUILT_IN)
    assert np.abs(pcm).max() <= 0.3551 * 32768
    assert loudness(pcm) <= 1.01 * allowed
    softened = min(1, 0.355 / peak, allowed / max(loudness(32767 * tone), 1))
    assert np.abs(pcm).max() == pytest.approx(32767 * peak * softened, rel=0.03)


def test_a_sound_may_be_in_a_home_folder(tmp_path, monkeypatch):
    """~ is the home folder of who runs the daemon, for names and for paths."""
    monkeypatch.setenv("HOME", str(tmp_path))
    sound_file(tmp_path / "a.wav")
    chimes = Chimes(ChimesConfig(sounds={"a": "~/a.wav"}, before=ChimesOf(normal="~/a.wav")))
    assert len(chimes.before(request())) == len(chimes.before(request(chime="a"))) > 0


def test_what_is_no_audio_is_one_line_and_libraries_are_silent(tmp_path, capfd):
    """libmpg123 would tell its troubles on the terminal, and libsndfile says that the file is not there."""
    (tmp_path / "a.mp3").write_bytes(b"not audio " * 500)
    with pytest.raises(ConfigError, match=r"\[chimes.sounds\] a: .*a\.mp3: not audio that can be read: Format not rec"):
        Chimes(ChimesConfig(sounds={"a": str(tmp_path / "a.mp3")}))
    assert capfd.readouterr().err == ""


def test_bad_sounds_are_named_with_their_key(tmp_path):
    """No such name, no such file or user, no audio, too long, nothing in it, a name that cannot be asked for."""
    (tmp_path / "text.wav").write_text("no sound")
    with wave.open(str(tmp_path / "empty.wav"), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
    long = sound_file(tmp_path / "long.wav", seconds=10.1)
    for config, words in [
        (ChimesConfig(before=ChimesOf(normal="dong")), [r"\[chimes.before\] normal", "dong", "dingdong"]),
        (ChimesConfig(after=ChimesOf(low="/no/such.wav")), [r"\[chimes.after\] low", "/no/such.wav", "no such file"]),
        (ChimesConfig(before=ChimesOf(normal="d" * 300)), [r"\[chimes.before\] normal", "no chime"]),
        (ChimesConfig(sounds={"a": "~no-such-user/a.wav"}), [r"\[chimes.sounds\] a", "~no-such-user", "no such file"]),
        (ChimesConfig(sounds={"a": str(tmp_path / "text.wav")}), [r"\[chimes.sounds\] a", "text.wav", "not audio"]),
        (ChimesConfig(sounds={"a": str(tmp_path / "empty.wav")}), [r"\[chimes.sounds\] a", "empty.wav"]),
        (ChimesConfig(sounds={"a": long}), [r"\[chimes.sounds\] a", "long.wav", "10 s"]),
        (ChimesConfig(sounds={"none": long}), [r"\[chimes.sounds\] 'none'"]),
        (ChimesConfig(sounds={"a\nb": long}), [r"\[chimes.sounds\] 'a\\nb'"]),
    ]:
        with pytest.raises(ConfigError, match=".*".join(words)) as caught:
            Chimes(config)
        assert "\n" not in str(caught.value)


def test_a_chime_plays_at_once_and_speech_follows_without_a_gap():
    """It does not wait for the speech; if that is there in time, no silence parts them, else no underrun is counted."""
    for late in (False, True):
        rig, ding, said = Rig(), speech(3 * BLOCK + 50), speech(4 * BLOCK, seed=2)
        rig.begin("a", ding, finish=False, chime_samples=len(ding))
        rig.steps(LEAD // BLOCK + 3)
        assert rig.sink.got[-1].all()
        assert rig.events == []
        if late:
            rig.steps(5)
            assert not rig.sink.got[-1].any()
        rig.ring.write(said, 0)
        rig.playback.finish("a", rig.ring.total_written)
        rig.rest()
        heard = rig.sink.pcm[LEAD:]
        assert np.array_equal(heard[: len(ding)], ding)
        start = 8 * BLOCK if late else len(ding)
        assert np.array_equal(heard[start : start + len(said)], said)
        assert rig.events == [("started", "a"), ("a", PlayOutcome.FINISHED, len(ding) + len(said))]
        assert rig.playback.underrun_count == 0


def test_prebuffer_holds_the_speech_behind_a_chime():
    """The chime is heard at once, or with the speech when that is made slower than it plays."""
    for waits in (False, True):
        rig, ding = Rig(), speech(2 * BLOCK)
        rig.begin("a", ding, finish=False, chime_samples=len(ding), hold=Hold(1000), chime_waits=waits)
        rig.ring.write(speech(900, seed=2), 0)
        rig.steps(LEAD // BLOCK + 6)
        assert np.count_nonzero(rig.sink.pcm) == (0 if waits else len(ding))
        rig.ring.write(speech(200, seed=3), 0)
        rig.playback.finish("a", rig.ring.total_written)
        rig.rest()
        assert np.count_nonzero(rig.sink.pcm) == len(ding) + 1100


def test_a_chime_can_be_cut_and_paused_like_speech():
    """A cut fades it within 5 ms, a pause holds it; who was cut in its chime has not started."""
    rig, ding = Rig(), speech(20 * BLOCK)
    rig.begin("a", ding, finish=False, chime_samples=len(ding))
    rig.steps(LEAD // BLOCK + 2)
    rig.playback.paused = True
    rig.steps(3)
    assert not rig.sink.got[-1].any()
    rig.playback.paused = False
    rig.steps(2)
    rig.cut()
    rig.rest()
    assert np.count_nonzero(rig.sink.pcm) <= 4 * BLOCK + 120
    assert [event[:2] for event in rig.events] == [("a", PlayOutcome.CUT)]
    rig.begin("b", speech(BLOCK, seed=4))
    rig.rest()
    assert rig.events[1] == ("started", "b")


@pytest.mark.engine
def test_chimes_are_heard_around_the_speech(engine, tmp_path):
    """Before, speech, after, in this order and whole; audio_s counts them, ttfa_ms does not."""
    config = with_chimes(before=ChimesOf(normal="ding"), after=ChimesOf(normal="gong"))
    with run_service(engine, tmp_path, config) as made:
        made.service.say(request(chime="none"))
        plain_s = made.final("a").audio_s - len(chime("gong")) / SAMPLE_RATE
        plain = np.trim_zeros(made.sink.heard())
        made.sink.blocks.clear()
        made.service.say(request(request_id="b"))
        done = made.final("b")
        heard = np.trim_zeros(made.sink.heard())
        ding, gong = np.trim_zeros(chime("ding")), chime("gong")
        assert np.array_equal(heard[: len(ding)], ding)
        assert np.array_equal(heard[-len(plain) :], plain)
        assert done.audio_s == pytest.approx(plain_s + (len(chime("ding")) + len(gong)) / SAMPLE_RATE, abs=0.001)
        assert made.wait("b", EventType.STARTED).ttfa_ms > 0
        assert made.metrics.snapshot()["underruns"] == 0
        assert made.service.status()["chimes"] == BUILT_IN


@pytest.mark.engine
def test_a_slow_voice_chimes_right_before_it_speaks(engine, tmp_path):
    """Both wait until there is speech enough; no silence parts them."""
    with run_service(engine, tmp_path) as made:
        made.service.say(request(chime="none"))
        made.final("a")
        plain = np.trim_zeros(made.sink.heard())
        made.sink.blocks.clear()
        engine.rtf = 2.0
        made.service.say(request(request_id="b", chime="ding"))
        made.final("b")
        heard, ding = np.trim_zeros(made.sink.heard()), np.trim_zeros(chime("ding"))
        assert np.array_equal(heard[: len(ding)], ding)
        assert np.array_equal(heard[-len(plain) :], plain)
        assert len(heard) - len(ding) - len(plain) < 0.1 * SAMPLE_RATE


@pytest.mark.engine
def test_unknown_chimes_and_paths_are_refused(engine, tmp_path, monkeypatch):
    """A request names a chime that the daemon knows, never a file."""
    monkeypatch.chdir(tmp_path)
    sound_file(tmp_path / "a.wav")
    with run_service(engine, tmp_path, with_chimes(before=ChimesOf(low="a.wav"))) as made:
        for name in ("dong", "a.wav", "./a.wav", ""):
            with pytest.raises(BadRequestError, match="no chime") as caught:
                made.service.say(request(chime=name))
            assert caught.value.code == "bad_request"
        assert [event.reason for event in made.events] == [Reason.BAD_JSON] * 4


@pytest.mark.engine
def test_a_repeat_has_the_chime_speed_and_voice_of_the_first(engine, tmp_path):
    """Bit for bit what was heard before, whatever has been set since; so it is with SSML."""
    ssml = "<speak>Dinner <break time='200ms'/> is ready.</speak>"
    for text in ("Dinner is ready.", ssml):
        with run_service(engine, tmp_path) as made:
            made.service.say(request(text, voice="rms", chime="ding", speed=1.2, volume=60))
            made.final("a")
            first = np.trim_zeros(made.sink.heard())
            made.sink.blocks.clear()
            made.service.set(SettingsChange(voice="slt", speed=0.8, volume=90))
            again = made.service.repeat()
            made.final(again.id)
            assert np.array_equal(np.trim_zeros(made.sink.heard()), first)


@pytest.mark.engine
@pytest.mark.parametrize(
    ("fields", "blocks"),
    [
        ({"chime": "gong"}, 10),
        ({"text": "Yes. [pause 8s] No."}, 90),
        ({"text": "The washing machine has finished its work.", "speed": 0.5}, 40),
    ],
    ids=["chime", "pause", "stretched"],
)
def test_a_stop_is_obeyed_in_whatever_is_heard(engine, tmp_path, fields, blocks):
    """At most 150 ms follow it, counted in samples: in a chime, in a pause, in speech at half its speed."""
    with run_service(engine, tmp_path, with_chimes(after=ChimesOf(normal="gong"))) as made:
        made.service.say(request(**fields))
        wait_until(lambda: len(made.sink.blocks) >= blocks)
        made.sink.gate.clear()
        before = len(made.sink.blocks)
        made.service.stop("all")
        made.sink.gate.set()
        wait_until(lambda: made.service.state().id is None)
        time.sleep(0.1)
        assert len(np.concatenate([*made.sink.blocks[before:], np.zeros(0)])) <= 0.15 * SAMPLE_RATE
        assert made.final("a").reason is Reason.STOPPED


@pytest.mark.engine
def test_who_is_interrupted_in_the_chime_is_heard_whole_afterwards(engine, tmp_path):
    """A critical one cuts it; then chime and speech come again, bit for bit, and it started once."""
    with run_service(engine, tmp_path) as made:
        made.service.say(request(chime="none"))
        made.final("a")
        plain = np.trim_zeros(made.sink.heard())
        made.sink.blocks.clear()
        made.service.say(request(request_id="b", chime="gong"))
        wait_until(lambda: len(made.sink.blocks) >= 10)
        made.service.say(request("Fire.", "c", priority=Priority.CRITICAL))
        assert made.final("c").reason is None
        assert made.final("b").reason is None
        heard = np.trim_zeros(made.sink.heard())
        assert np.array_equal(heard[-len(plain) :], plain)
        assert heard.tobytes().count(np.trim_zeros(chime("gong")).tobytes()) == 1
        assert [e.event_type for e in made.events if e.id == "b"] == [
            EventType.QUEUED,
            EventType.STARTED,
            EventType.FINISHED,
        ]
