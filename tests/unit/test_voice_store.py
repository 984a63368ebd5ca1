"""Recorded voices: kept outside the bundle, found at once, never trusted, never outside their folder."""

import errno
import hashlib
import io
import logging
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voice_bundle import CODEBOOK_SIZE, NAME, NUM_CODEBOOKS, in_folder, make_bundle

from daemon.engine.bundle import load_bundle
from daemon.engine.voice_files import CODES, MAX_FILE_BYTES, TABLE, npy_bytes
from daemon.engine.voice_store import VoiceStore
from daemon.engine.voices import VoicePrompt, Voices
from daemon.errors import BadRequestError, StoreError

TRANSCRIPT = 'she said "hello\\there",\nÄ \x7f'


def prompt(num_frames=25, transcript=TRANSCRIPT, *, seed=0):
    """A prompt of random codes."""
    codes = np.random.default_rng(seed).integers(0, CODEBOOK_SIZE, (num_frames, NUM_CODEBOOKS))
    return VoicePrompt(transcript, codes.astype(np.int32))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle that takes voices."""
    return load_bundle(make_bundle(tmp_path_factory.mktemp("bundles") / "b"))


@pytest.fixture
def folders(tmp_path):
    """The user's voices, then the service's."""
    return tmp_path / "user" / "voices", tmp_path / "service" / "voices"


@pytest.fixture
def store(folders):
    """A store on both."""
    return VoiceStore(folders, NAME)


def test_a_voice_comes_back_as_it_was_added(bundle, store, folders):
    """By another store too: everything that was said about it, and codes that nobody can change."""
    given_prompt = prompt()
    options = {"description": "Anna's", "language": "en-GB", "speaker": 3, "source": "anna.wav"}
    folder = store.add(bundle, "anna", given_prompt, **options)
    assert folder == folders[0] / NAME / "anna"
    assert in_folder(folders[0]) == [NAME, f"{NAME}/anna", f"{NAME}/anna/{CODES}", f"{NAME}/anna/{TABLE}"]
    for reader in (store, VoiceStore(folders, NAME)):
        voice = reader.find("anna", bundle.manifest.audio)
        assert (voice.name, voice.description, voice.language, voice.speaker) == ("anna", "Anna's", "en-GB", 3)
        assert voice.prompt.transcript == TRANSCRIPT
        np.testing.assert_array_equal(voice.prompt.codes, given_prompt.codes)
        assert (voice.prompt.codes.dtype, voice.prompt.codes.flags.writeable) == (np.int32, False)
    table = (folder / TABLE).read_text()
    assert all(line in table for line in ('source = "anna.wav"', "seconds = 2.0", f"num_codebooks = {NUM_CODEBOOKS}"))


@given(name=st.one_of(st.text(), st.sampled_from(["..", ".", "a/b", "/etc", "-rf", "a.b", "é", "a\n", "", "a" * 65])))
def test_no_name_leaves_the_folder(bundle, tmp_path_factory, name):
    """A name is refused, or its voice is one folder in the store; looking up and removing go nowhere else either."""
    top = tmp_path_factory.mktemp("top")
    store = VoiceStore([top / "voices"], NAME)
    try:
        store.add(bundle, name, prompt(2))
    except BadRequestError:
        assert in_folder(top) == []
        assert store.find(name, bundle.manifest.audio) is None
        with pytest.raises(BadRequestError, match="no recorded voice"):
            store.remove(name)
    else:
        folder = f"voices/{NAME}/{name}"
        assert in_folder(top) == ["voices", f"voices/{NAME}", folder, f"{folder}/{CODES}", f"{folder}/{TABLE}"]
        store.remove(name)
        assert in_folder(top) == ["voices", f"voices/{NAME}"]


def test_names_that_are_taken_are_refused(bundle, store, folders):
    """The bundle's own for good, in any folder; a recorded one unless it is to be replaced."""
    audio = bundle.manifest.audio
    with pytest.raises(BadRequestError, match="slt is a voice of the bundle"):
        store.add(bundle, "slt", prompt(), replace=True)
    VoiceStore(folders[1:], NAME).add(bundle, "anna", prompt())
    with pytest.raises(BadRequestError, match=f"there is a voice anna in {folders[1]}"):
        store.add(bundle, "anna", prompt())
    first = store.find("anna", audio)
    assert store.add(bundle, "anna", prompt(transcript="new"), replace=True) == folders[0] / NAME / "anna"
    assert store.add(bundle, "anna", prompt(transcript="newer", seed=1), replace=True)
    assert (first.prompt.transcript, store.find("anna", audio).prompt.transcript) == (TRANSCRIPT, "newer")
    assert in_folder(folders[0] / NAME) == ["anna", f"anna/{CODES}", f"anna/{TABLE}"]
    assert store.remove("anna") == folders[0] / NAME / "anna"
    assert store.find("anna", audio).prompt.transcript == TRANSCRIPT  # the service's again


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"language": "English"}, "language: "),
        ({"speaker": -1}, "speaker: "),
        ({"description": "x" * 201}, "description: "),
        ({"prompt": prompt(transcript="")}, "transcript: "),
        ({"prompt": prompt(transcript="\udcff")}, "transcript: "),
        (
            {"prompt": prompt(300)},
            r"300 frames of speech and .* tokens of transcript: test-voice takes \d+ of both together",
        ),
        (
            {"prompt": prompt(5, "many words " * 60)},
            "5 frames of speech and .* shorten the recording or the transcript",
        ),
    ],
)
def test_what_does_not_fit_is_refused(bundle, store, folders, options, reason):
    """One line, and nothing is written."""
    arguments = {"prompt": prompt(), **options}
    with pytest.raises(BadRequestError, match=reason) as caught:
        store.add(bundle, "anna", arguments.pop("prompt"), **arguments)
    assert "\n" not in str(caught.value)
    assert not folders[0].exists()


def rewrite(folder, codes):
    """Put in other codes, with their right hash."""
    old, new = (folder / CODES).read_bytes(), codes if isinstance(codes, bytes) else npy_bytes(codes)
    (folder / CODES).write_bytes(new)
    replace(folder, digest(old), digest(new))


def digest(content):
    return hashlib.sha256(content).hexdigest()


def replace(folder, old, new):
    """Edit voice.toml; ``old`` must be there."""
    text = (folder / TABLE).read_text()
    assert old in text
    (folder / TABLE).write_text(text.replace(old, new))


def npz_bytes():
    """An archive of arrays, which numpy opens as well."""
    file = io.BytesIO()
    np.savez(file, codes=prompt().codes)
    return file.getvalue()


def with_header(text):
    """A .npy file that begins with any header, and has 800 bytes of data."""
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode() + bytes(800)


def with_shape(shape):
    return with_header(f"{{'descr': '<i4', 'fortran_order': False, 'shape': {shape}, }}\n")


def zeros(num_frames):
    """Codes of silence, for all that anybody knows."""
    return np.zeros((num_frames, NUM_CODEBOOKS), np.int32)


DAMAGE = {
    "bit": (lambda f: (f / CODES).write_bytes((f / CODES).read_bytes()[:-1] + b"\1"), f"{CODES}: its sha256"),
    "cut": (lambda f: os.truncate(f / CODES, 40), f"{CODES}: its sha256"),
    "empty": (lambda f: os.truncate(f / CODES, 0), f"{CODES}: its sha256"),
    "no codes": (lambda f: (f / CODES).unlink(), f"{CODES}: No such file"),
    "no table": (lambda f: (f / TABLE).unlink(), f"{TABLE}: No such file"),
    "toml": (lambda f: os.truncate(f / TABLE, 25), f"{TABLE}: damaged"),
    "not text": (lambda f: (f / TABLE).write_bytes(b"\xff\xfe"), f"{TABLE}: damaged"),
    "nested": (lambda f: (f / TABLE).write_text("a=" + "[" * 100_000), f"{TABLE}: damaged"),
    "digits": (lambda f: replace(f, "speaker = 0", "speaker = " + "9" * 5000), f"{TABLE}: damaged: Exceeds the limit"),
    "hex": (lambda f: replace(f, f"size = {CODEBOOK_SIZE}", "size = 0x" + "f" * 5000), f"{TABLE}: codebook_size"),
    "version": (lambda f: replace(f, "format_version = 1", "format_version = 2"), f"{TABLE}: format_version"),
    "key": (lambda f: replace(f, "speaker = 0", "speaker = 0\nspeed = 2"), f"{TABLE}: speed: Extra"),
    "type": (lambda f: replace(f, "speaker = 0", 'speaker = "a\\nb"'), f"{TABLE}: speaker"),
    "name": (lambda f: replace(f, '"anna"', '"../anna"'), f"{TABLE}: name is '../anna'"),
    "codec": (
        lambda f: replace(f, f"codebook_size = {CODEBOOK_SIZE}", "codebook_size = 2048"),
        f"{NUM_CODEBOOKS} codebooks of 2048 codes, the b",
    ),
    "folder": (lambda f: ((f / CODES).unlink(), (f / CODES).mkdir()), f"{CODES}: not a file"),
    "fifo": (lambda f: ((f / CODES).unlink(), os.mkfifo(f / CODES)), f"{CODES}: not a file"),
    "huge": (lambda f: os.truncate(f / CODES, MAX_FILE_BYTES + 1), f"{CODES}: not a file of at most"),
    "not npy": (lambda f: rewrite(f, b"junk"), f"{CODES}: not a .npy array"),
    "pickle": (lambda f: rewrite(f, np.array([{}], object)), r"object \[1\], expected int32"),
    "npz": (lambda f: rewrite(f, npz_bytes()), f"{CODES}: not a .npy array"),
    "header": (lambda f: rewrite(f, with_header("((((")), f"{CODES}: not a .npy array"),
    "long header": (lambda f: rewrite(f, with_header(" " * 11_000)), f"{CODES}: not a .npy array"),
    "hex shape": (lambda f: rewrite(f, with_shape(f"(0x{'f' * 5000}, {NUM_CODEBOOKS})")), f"{CODES}: not a .npy array"),
    "long shape": (lambda f: rewrite(f, with_shape(f"({'9' * 20}, {NUM_CODEBOOKS})")), f"{CODES}: not a .npy array"),
    "negative": (lambda f: rewrite(f, with_shape(f"(-25, -{NUM_CODEBOOKS})")), "expected int32"),
    "by column": (lambda f: rewrite(f, np.asfortranarray(zeros(25))), "expected int32"),
    "more": (lambda f: rewrite(f, (f / CODES).read_bytes() + bytes(32)), f"{CODES}: not a .npy array"),
    "lie": (
        lambda f: rewrite(
            f, (f / CODES).read_bytes().replace(b"(25, %d), }    " % NUM_CODEBOOKS, b"(99999999, %d)}" % NUM_CODEBOOKS)
        ),
        f"{CODES}: not a .npy array",
    ),
    "float": (lambda f: rewrite(f, zeros(25).astype(np.float32)), r"float32 \[25, \d\], expected int32"),
    "width": (lambda f: rewrite(f, zeros(25)[:, 1:]), r"int32 \[25, \d\], expected"),
    "no frames": (lambda f: rewrite(f, zeros(0)), r"int32 \[0, \d\], expected"),
    "high": (
        lambda f: rewrite(f, zeros(25) + CODEBOOK_SIZE),
        rf"codes {CODEBOOK_SIZE}\.\.{CODEBOOK_SIZE}, expected 0\.\.",
    ),
    "low": (lambda f: rewrite(f, zeros(25) - 1), "expected 0"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_voice_is_left_out_and_says_why(bundle, store, folders, caplog, damage):
    """Asked for, it is an unknown voice with the file and the reason; the others are listed; the log says it once."""
    do_damage, reason = DAMAGE[damage]
    store.add(bundle, "berta", prompt())
    folder = store.add(bundle, "anna", prompt())
    audio = bundle.manifest.audio
    assert store.find("anna", audio) is not None
    do_damage(folder)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with pytest.raises(BadRequestError, match=reason) as caught:
                Voices(bundle.manifest, store).get("anna")
            assert caught.value.code == "unknown_voice"
            assert [voice.name for voice in store.list(audio)] == ["berta"]
    assert len(caplog.records) == 1
    assert str(folder) in caplog.text
    assert "\n" not in str(caught.value)
    store.add(bundle, "anna", prompt(), replace=True)
    assert [voice.name for voice in store.list(audio)] == ["anna", "berta"]
    store.remove("anna")
    assert store.path("anna") is None


def test_changes_are_seen_at_once_and_nothing_is_read_twice(bundle, store, folders):
    """Another process adds, replaces and removes; in between the same object comes back."""
    other, audio = VoiceStore(folders, NAME), bundle.manifest.audio
    assert store.list(audio) == []
    other.add(bundle, "anna", prompt())
    voice = store.find("anna", audio)
    assert voice is store.find("anna", audio) is store.list(audio)[0]
    other.add(bundle, "anna", prompt(seed=1), replace=True)
    assert not np.array_equal(store.find("anna", audio).prompt.codes, voice.prompt.codes)
    other.remove("anna")
    assert store.find("anna", audio) is None
    assert store.list(audio) == []


def test_links_are_removed_not_followed(bundle, store, folders, tmp_path):
    """A voice that is a link to a folder elsewhere: the folder stays whole, also when the voice is replaced."""
    elsewhere = VoiceStore([tmp_path / "elsewhere"], NAME).add(bundle, "anna", prompt())
    before = in_folder(tmp_path / "elsewhere")
    for change in (lambda: store.remove("anna"), lambda: store.add(bundle, "anna", prompt(), replace=True)):
        (folders[0] / NAME).mkdir(parents=True, exist_ok=True)
        (folders[0] / NAME / "anna").symlink_to(elsewhere)
        change()
        assert not (folders[0] / NAME / "anna").is_symlink()
        assert in_folder(tmp_path / "elsewhere") == before
    inside = store.path("anna")
    (inside / "out").symlink_to(elsewhere)
    store.remove("anna")
    assert in_folder(tmp_path / "elsewhere") == before


def test_a_folder_that_cannot_be_written_is_one_line(bundle, tmp_path):
    """Exit code 73, for adding and for removing; without any folder as well."""
    (tmp_path / "file").touch()
    for folders, reason in (
        ([tmp_path / "file"], f"{tmp_path}/file: cannot be written: File exists"),
        ([], "no f"),
    ):
        with pytest.raises(StoreError, match=reason) as caught:
            VoiceStore(folders, NAME).add(bundle, "anna", prompt())
        assert caught.value.exit_code == 73
        assert VoiceStore(folders, NAME).list(bundle.manifest.audio) == []


def test_a_full_disk_leaves_the_old_voice(bundle, store, folders, monkeypatch):
    """Nothing half-made stays behind, and what was to be replaced is still there."""

    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store.add(bundle, "anna", prompt())
    before = in_folder(folders[0])
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        for name in ("anna", "berta"):
            with pytest.raises(StoreError, match="cannot be written: No space left"):
                store.add(bundle, name, prompt(seed=1), replace=True)
    assert in_folder(folders[0]) == before
    np.testing.assert_array_equal(store.find("anna", bundle.manifest.audio).prompt.codes, prompt().codes)


def test_what_an_interrupted_program_left_is_in_nobodys_way(bundle, store, folders):
    """Leftovers are no voices, and go when the same voice is added."""
    folder = folders[0] / NAME
    old = store.add(bundle, "anna", prompt()).rename(folder / "old")
    for leftover in ("anna.part", "anna.gone"):
        old.rename(folder / leftover)
        store.add(bundle, "anna", prompt(), replace=True)
        assert in_folder(folder) == ["anna", f"anna/{CODES}", f"anna/{TABLE}"]
        old = (folder / "anna").rename(folder / "old")
        assert store.list(bundle.manifest.audio) == []


@pytest.mark.parametrize("also", [[], ["anna.part"]])
def test_a_crash_while_a_voice_is_replaced_loses_nothing(bundle, store, folders, also):
    """The old one is found, listed, not added over, replaced, and removed for good."""
    folder, audio = folders[0] / NAME, bundle.manifest.audio

    def crash():
        store.add(bundle, "anna", prompt(transcript="old"), replace=True).rename(folder / "anna.gone")
        for name in also:
            (folder / name).mkdir()

    crash()
    assert store.find("anna", audio).prompt.transcript == "old"
    assert [(voice.name, voice.prompt.transcript) for voice in store.list(audio)] == [("anna", "old")]
    with pytest.raises(BadRequestError, match="there is a voice anna"):
        store.add(bundle, "anna", prompt())
    store.add(bundle, "anna", prompt(transcript="new"), replace=True)
    assert store.find("anna", audio).prompt.transcript == "new"
    assert in_folder(folder) == ["anna", f"anna/{CODES}", f"anna/{TABLE}"]
    crash()
    assert store.remove("anna") == folder / "anna"
    assert in_folder(folder) == []


def test_a_replacement_that_fails_leaves_the_old_voice(bundle, store, monkeypatch):
    """The new folder cannot be put in place: the old one comes back."""
    rename = Path.rename

    def refuse(path, target):
        if path.suffix == ".part":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return rename(path, target)

    folder = store.add(bundle, "anna", prompt())
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", refuse)
        with pytest.raises(StoreError, match="cannot be written: Input/output error"):
            store.add(bundle, "anna", prompt(seed=1), replace=True)
    assert in_folder(folder.parent) == ["anna", f"anna/{CODES}", f"anna/{TABLE}"]
    np.testing.assert_array_equal(store.find("anna", bundle.manifest.audio).prompt.codes, prompt().codes)


def test_a_voice_is_there_at_every_moment_of_its_replacement(bundle, store, folders, monkeypatch):
    """Whoever looks between any two steps finds the old one or the new one, and nothing is logged."""
    rename, found = Path.rename, []

    def watched(path, target):
        result = rename(path, target)
        for reader in (VoiceStore(folders, NAME), watcher):
            (listed,) = reader.list(bundle.manifest.audio)
            assert listed is reader.find("anna", bundle.manifest.audio)
        found.append(listed.prompt.transcript)
        return result

    watcher = VoiceStore(folders, NAME)
    store.add(bundle, "anna", prompt(transcript="old"))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", watched)
        store.add(bundle, "anna", prompt(transcript="new", seed=1), replace=True)
    assert found == ["old", "new"]


@pytest.mark.parametrize("after", [TABLE, CODES])
def test_a_voice_that_is_replaced_while_it_is_read_is_read_again(bundle, store, monkeypatch, caplog, after):
    """Never one file of the old and one of the new, nor a refusal."""
    read_bytes = Path.read_bytes

    def replaced(path):
        content = read_bytes(path)
        if path.name == after:
            patched.undo()
            store.add(bundle, "anna", prompt(transcript="new", seed=1), replace=True)
        return content

    store.add(bundle, "anna", prompt(transcript="old"))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", replaced)
        voice = store.find("anna", bundle.manifest.audio)
    transcript, seed = ("new", 1) if after == TABLE else ("old", 0)
    assert voice.prompt.transcript == transcript
    np.testing.assert_array_equal(voice.prompt.codes, prompt(seed=seed).codes)
    assert store.find("anna", bundle.manifest.audio).prompt.transcript == "new"
    assert not caplog.records


def test_a_voice_that_could_not_be_read_is_tried_again(bundle, store, monkeypatch, caplog):
    """Also when nothing about its files has changed; until then the log says it once."""
    audio = bundle.manifest.audio

    def fail(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))  # as read() has it: without the path

    folder = store.add(bundle, "anna", prompt())
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", fail)
        for _ in range(3):
            assert store.list(audio) == []
            with pytest.raises(BadRequestError, match="anna: Input/output error"):
                store.find("anna", audio)
    assert [record.getMessage() for record in caplog.records] == [f"voice unusable: {folder}: Input/output error"]
    assert store.find("anna", audio) is not None


def test_a_change_that_keeps_size_and_time_is_seen(bundle, store):
    """As rsync -t makes it; the time of the inode's change cannot be set."""
    path = store.add(bundle, "anna", prompt()) / CODES
    whole, status = path.read_bytes(), path.stat()
    for content, usable in ((whole, True), (whole[:-1] + b"\1", False), (whole, True)):
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert [voice.name for voice in store.list(bundle.manifest.audio)] == ["anna"] * usable


def test_one_entry_that_cannot_be_looked_at_hides_no_other(bundle, store, folders):
    """A link that leads nowhere, in a circle, or where the system refuses to go."""
    store.add(bundle, "anna", prompt())
    for name, target in (("dead", "nosuch"), ("ring", "ring"), ("refused", "x" * 300)):
        (folders[0] / NAME / name).symlink_to(target)
        assert store.find(name, bundle.manifest.audio) is None
    assert [voice.name for voice in store.list(bundle.manifest.audio)] == ["anna"]


@pytest.mark.parametrize("mode", [0o755, 0o700, 0o777])
def test_the_service_can_read_what_root_adds(bundle, folders, mode):
    """Voices are as readable as the folder they are put in, whatever the umask, and writable by nobody else."""
    folders[0].parent.mkdir()
    folders[0].parent.chmod(mode)
    umask = os.umask(0o077)
    try:
        VoiceStore(folders, NAME).add(bundle, "anna", prompt())
    finally:
        os.umask(umask)
    modes = {path: stat.S_IMODE((folders[0] / path).stat().st_mode) for path in in_folder(folders[0])}
    assert modes[NAME] == modes[f"{NAME}/anna"] == mode & 0o755
    assert modes[f"{NAME}/anna/{CODES}"] == modes[f"{NAME}/anna/{TABLE}"] == mode & 0o644


def test_voices_are_the_bundles_then_the_recorded(bundle, store, folders):
    """Both are listed and found; a message about an unknown one names them all; languages count for both."""
    voices = Voices(bundle.manifest, store)
    assert [info.name for info in voices.list()] == ["slt"]
    store.add(bundle, "anna", prompt(), language="de", description="Anna")
    assert [(info.name, info.default) for info in voices.list()] == [("slt", True), ("anna", False)]
    assert voices.get(None).name == "slt"
    assert voices.get("anna", "de-AT").prompt is not None
    with pytest.raises(BadRequestError, match="voice anna speaks de, not en"):
        voices.get("anna", "en")
    with pytest.raises(BadRequestError, match="no voice 'bert'; there are: slt, anna"):
        voices.get("bert")
    (folders[0] / NAME / "anna").rename(folders[0] / NAME / "slt")
    assert voices.get("slt").prompt is None
    assert [info.name for info in voices.list()] == ["slt"]


@pytest.mark.parametrize("spelling", ["en_US", "EN", "En-us"])
def test_a_bundles_language_may_be_spelt_in_any_way(bundle, spelling):
    """A voice speaks en whether its manifest has en_US or EN."""
    manifest = bundle.manifest
    voice = manifest.voices["slt"].model_copy(update={"language": spelling})
    voices = Voices(manifest.model_copy(update={"voices": {"slt": voice}}))
    for asked in ("en", "EN", "en-GB", "en_US", None, ""):
        assert voices.get("slt", asked).language == spelling
    with pytest.raises(BadRequestError, match=f"speaks {spelling}, not de"):
        voices.get("slt", "de")
