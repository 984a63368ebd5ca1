"""crier render and doctor: the commands that need no daemon."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from daemon.client import main
from daemon.engine.bundle import load_bundle

ROOT = Path(__file__).resolve().parents[2]
TEXT = "Dinner is ready. Good night."

pytestmark = pytest.mark.engine


def run(*words, stdin=None):
    """crier in a process of its own."""
    command = [sys.executable, "-m", "daemon.client", *words]
    return subprocess.run(command, cwd=ROOT, input=stdin, capture_output=True, check=False)


def in_process(*words):
    """crier here; returns exit code and the last line of stdout as JSON."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(list(words))
    return code, json.loads(out.getvalue().splitlines()[-1])


def test_render_writes_a_wav_and_reports(tmp_path):
    """The file holds the samples that are reported, 24 kHz mono 16 bit; codes are int32 [T, Q]."""
    wav, codes = tmp_path / "a.wav", tmp_path / "a.npy"
    code, report = in_process("render", TEXT, "--out", str(wav), "--codes", str(codes), "--json")
    assert code == 0
    info = soundfile.info(wav)
    assert (info.samplerate, info.channels, info.subtype) == (24_000, 1, "PCM_16")
    assert info.frames == round(report["audio_s"] * 24_000)
    frames = np.load(codes)
    assert frames.dtype == np.int32
    assert frames.shape == (report["frames"], load_bundle(ROOT / "models" / "starter").manifest.audio.num_codebooks)
    assert report["frames"] * 1920 == info.frames
    wanted = {"audio_s", "rtf", "ttfa_ms", "frames", "sample_rate", "pcm_sha256", "bundle", "voice", "seed"}
    assert wanted | {"peak_rss_bytes"} <= report.keys()
    assert (report["bundle"], report["voice"], report["sample_rate"]) == ("starter", "slt", 24_000)


def test_stdin_to_stdout_is_a_wav_stream_of_the_same_samples(tmp_path):
    """crier render - --out -: the header says the length is open, and --json goes to stderr."""
    wav = tmp_path / "a.wav"
    in_process("render", TEXT, "--out", str(wav), "--json")
    done = run("render", "-", "--out", "-", "--json", stdin=TEXT.encode())
    assert done.returncode == 0
    assert done.stdout[:4] == b"RIFF"
    assert int.from_bytes(done.stdout[40:44], "little") > 2**31
    samples, _rate = soundfile.read(wav, dtype="int16")
    assert done.stdout[44:] == samples.tobytes()
    assert json.loads(done.stderr.splitlines()[-1])["frames"] > 0


def test_a_stream_starts_before_its_text_ends():
    """The first sentence comes out while the second has not been written yet."""
    command = [sys.executable, "-m", "daemon.client", "render", "-", "--out", "-"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as process:
        process.stdin.write(b"Dinner is ready.\nThe front ")
        process.stdin.flush()
        assert len(process.stdout.read(44 + 2 * 12_000)) == 44 + 2 * 12_000
        process.stdin.write(b"door is open.\n")
        process.stdin.close()
        assert len(process.stdout.read()) > 2 * 24_000
        assert process.wait(20) == 0


def test_raw_is_not_normalised(tmp_path):
    """--raw hands the text to the model as it is."""
    options = ["--out", str(tmp_path / "a.wav"), "--json"]
    plain = in_process("render", "dinner is ready.", *options)[1]["pcm_sha256"]
    assert in_process("render", "dinner is ready.", "--raw", *options)[1]["pcm_sha256"] == plain
    assert in_process("render", "Dinner is ready", *options)[1]["pcm_sha256"] == plain
    assert in_process("render", "dinner is ready", "--raw", *options)[1]["pcm_sha256"] != plain


def test_speed_pauses_and_ssml(tmp_path):
    """--speed changes how long speech takes and not how many frames it is; pauses are as long as they say."""
    options = ["--out", str(tmp_path / "a.wav"), "--json"]
    plain = in_process("render", TEXT, *options)[1]
    fast = in_process("render", TEXT, "--speed", "1.5", *options)[1]
    assert plain["audio_s"] / fast["audio_s"] == pytest.approx(1.5, rel=0.03)
    assert plain["frames"] == fast["frames"]
    assert soundfile.info(tmp_path / "a.wav").duration == pytest.approx(fast["audio_s"], abs=0.001)
    paused = in_process("render", "Dinner is ready. [pause 2s] Good night.", *options)[1]
    assert paused["audio_s"] == pytest.approx(plain["audio_s"] + 2)
    marked = '<speak><s>Dinner is ready.</s><break time="2s"/><s>Good night.</s></speak>'
    assert in_process("render", marked, *options)[1]["pcm_sha256"] == paused["pcm_sha256"]


def test_the_lexicon_of_the_configuration_counts(tmp_path):
    """--config names it; without, words are read as ever."""
    (tmp_path / "lexicon.toml").write_text('[words]\nnginx = "engine x"\n')
    (tmp_path / "config.toml").write_text(f'[text]\nlexicon = "{tmp_path / "lexicon.toml"}"\n')
    options = ["--out", str(tmp_path / "a.wav"), "--json"]
    wanted = in_process("render", "Engine x is up.", *options)[1]["pcm_sha256"]
    with_it = in_process("render", "Nginx is up.", "--config", str(tmp_path / "config.toml"), *options)[1]
    assert with_it["pcm_sha256"] == wanted
    assert in_process("render", "Nginx is up.", *options)[1]["pcm_sha256"] != wanted


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["<speak>Dinner is"], 65, "SSML"),
        (["[pause 2s]"], 65, "nothing in the text can be spoken"),
        (["😀"], 65, "nothing in the text can be spoken"),
        (["hello", "--bundle", "nosuch"], 66, "no bundle named nosuch"),
        (["hello", "--voice", "bob"], 65, "no voice 'bob'"),
        (["hello", "--temperature", "3"], 65, "temperature must be 0..2"),
        (["hello", "--out", "/nosuch/a.wav"], 74, "/nosuch/a.wav"),
        (["hello", "--config", "/nosuch.toml"], 78, "/nosuch.toml"),
    ],
)
def test_what_cannot_be_done_is_one_line(capsys, words, code, message):
    """Bad input has its exit code and one line that says what is wrong."""
    assert main(["render", *words, "--json"]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_read_prints_how_a_text_is_read(tmp_path, capsys):
    """A segment a line, as the lexicon has it, with pauses between; no audio is made."""
    (tmp_path / "lexicon.toml").write_text('[words]\nnginx = "engine x"\n')
    config = tmp_path / "config.toml"
    config.write_text(f'[text]\nemoji = "name"\nlexicon = "{tmp_path / "lexicon.toml"}"\n')
    text = "Nginx is up at 7:30. [pause 500ms] Well done 👍"
    assert main(["render", text, "--read", "--config", str(config)]) == 0
    read = "engine x is up at seven thirty.\n[pause 0.5 s]\nwell done, thumbs up.\n"
    assert capsys.readouterr().out == read
    done = run("render", "-", "--read", "--config", str(config), stdin=text.encode())
    assert (done.returncode, done.stdout.decode()) == (0, read)
    segments = in_process("render", "Hi. [pause 2s]", "--read", "--json")[1]["segments"]
    assert [(segment["text"], segment["pause_s"]) for segment in segments] == [("hi.", 0), ("", 2)]
    assert main(["render", "[pause 1s]", "--read"]) == 65
    assert main(["render", "hi", "--read", "--out", str(tmp_path / "a.wav")]) == 2
    assert not (tmp_path / "a.wav").exists()


def test_a_full_disk_leaves_no_file(tmp_path):
    """/dev/full takes nothing: one line, exit code 74, and no half a file under the name."""
    target = tmp_path / "a.wav"
    (tmp_path / "a.wav.part").symlink_to("/dev/full")
    done = run("render", TEXT, "--out", str(target))
    assert done.returncode == 74
    assert b"No space left" in done.stderr
    assert not target.exists()


def test_without_an_output_there_is_nothing_to_do(capsys):
    """A usage error, before anything is loaded."""
    assert main(["render", "hello"]) == 2
    assert "--out FILE, --play or --read" in capsys.readouterr().err


def test_a_player_that_leaves_is_no_error():
    """crier render - --out - | head: quiet, exit code 0."""
    script = f"{sys.executable} -m daemon.client render '{TEXT} {TEXT}' --out - | head -c 100 >/dev/null"
    script += "; exit ${PIPESTATUS[0]}"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, b"rror" in done.stderr) == (0, False)


def test_what_cannot_be_played_is_told_and_the_file_is_there(tmp_path, monkeypatch):
    """--play without a device: exit code 74, and --out is whole all the same."""
    (tmp_path / "asound.conf").write_text("pcm.!default { type hw card 99 }\n")
    monkeypatch.setenv("ALSA_CONFIG_PATH", str(tmp_path / "asound.conf"))
    wav = tmp_path / "a.wav"
    done = run("render", TEXT, "--play", "--out", str(wav))
    assert done.returncode == 74
    assert b"not played: no sound device" in done.stderr
    assert soundfile.info(wav).frames > 24_000


def test_doctor_reports_machine_and_problems(tmp_path):
    """With a sink that needs no device all is well; a missing bundle is a problem with its exit code."""
    config = tmp_path / "config.toml"
    config.write_text('[audio]\nsink = "null"\n')
    code, report = in_process("doctor", "--config", str(config), "--json")
    assert code == 0, report
    assert report["configured"]["keeps_up"]
    assert report["libsonic"].startswith("libsonic.so.0")
    assert "starter" in [bundle.get("name") for bundle in report["bundles"]]
    config.write_text('[audio]\nsink = "null"\n[engine]\nbundle = "nosuch"\n')
    code, report = in_process("doctor", "--config", str(config), "--json")
    assert code == 66
    assert "no bundle named nosuch" in report["problems"][0]
    config.write_text('[audio]\nsink = "null"\n[text]\nlexicon = "/nosuch/lexicon.toml"\n')
    code, report = in_process("doctor", "--config", str(config), "--json")
    assert code == 78
    assert "/nosuch/lexicon.toml" in report["problems"][0]


def test_doctor_prints_names_as_they_are(tmp_path, capsys):
    """Brackets in a configuration are no colours."""
    config = tmp_path / "config.toml"
    config.write_text('[audio]\nsink = "null"\n[engine]\nbundle = "no[red]such[/y]"\n')
    assert main(["doctor", "--config", str(config)]) == 66
    assert "no[red]such[/y]" in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize(
    "words",
    [
        ["bench", "--rounds", "0"],
        ["render", "a", "--speed", "3"],
        ["render", "a", "--speed", "nan"],
        ["say", "a", "--ttl", "nan"],
        ["say", "a", "--ttl=-1"],
    ],
)
def test_numbers_out_of_range_are_usage_errors(words):
    """Refused before anything is asked or loaded."""
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
