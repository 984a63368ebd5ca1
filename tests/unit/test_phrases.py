"""The phrase cache on disk: the same bits come back, and nothing damaged, foreign or too large is used."""

import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.config_sections import PhrasesConfig
from daemon.phrases import PhraseCache, open_phrases, phrase_key

KEY = phrase_key("a")
PCM = (np.arange(5000) % 251).astype("<i2")
CODES = [np.arange(12, dtype=np.int32).reshape(3, 4) * 5000, np.ones((2, 4), np.int32)]


def put(cache, name, num_samples=1000):
    """Keep a phrase of that many samples."""
    assert cache.put(phrase_key(name), bytes(2 * num_samples))


def files(folder):
    """Names of what is there."""
    return {path.name for path in folder.iterdir()}


@given(
    samples=st.binary(max_size=400).map(lambda content: content[: len(content) // 2 * 2]),
    lengths=st.lists(st.integers(0, 5), max_size=4),
)
def test_samples_and_codes_come_back(tmp_path_factory, samples, lengths):
    """To the bit, of any length, with and without codes."""
    cache = PhraseCache(tmp_path_factory.getbasetemp() / "phrases", 2**20)
    codes = [np.full((length, 3), 65_535 - length, np.int32) for length in lengths]
    assert cache.put(KEY, samples, codes)
    assert cache.has(KEY)
    phrase = cache.get(KEY)
    assert phrase.pcm.tobytes() == samples
    assert len(phrase.codes) == len(codes)
    for found, expected in zip(phrase.codes, codes, strict=True):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.int32


def test_another_key_is_another_phrase(tmp_path):
    """A part that differs in anything gives another key."""
    keys = {phrase_key(*parts) for parts in [("a",), ("b",), ("a", 1), ("a", 1.0), ("a", None), (("a", 1),), ()]}
    assert len(keys) == 7
    cache = PhraseCache(tmp_path, 2**20)
    cache.put(KEY, PCM.tobytes())
    assert not cache.has(phrase_key("b"))
    assert cache.get(phrase_key("b")) is None


@pytest.mark.parametrize("damage", ["flip header", "flip codes", "flip samples", "short", "long", "empty", "garbage"])
def test_a_damaged_file_is_a_miss_and_goes(tmp_path, damage, caplog):
    """Whatever was done to it, none of it is used; the next one is good again."""
    cache = PhraseCache(tmp_path, 2**20)
    cache.put(KEY, PCM.tobytes(), CODES)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    places = {"flip header": 60, "flip codes": 130, "flip samples": 5000}
    if damage in places:
        content[places[damage]] ^= 1
    path.write_bytes(
        {"short": content[:-2], "long": content + b"xx", "empty": b"", "garbage": b"RIFF" * 99}.get(damage, content)
    )
    assert cache.get(KEY) is None
    assert not files(tmp_path)
    assert "damaged" in caplog.text
    assert cache.put(KEY, PCM.tobytes(), CODES)
    np.testing.assert_array_equal(cache.get(KEY).pcm, PCM)


def test_a_whole_file_under_another_name_is_a_miss_and_goes(tmp_path):
    """A file that was copied or renamed does not speak for another text."""
    cache = PhraseCache(tmp_path, 2**20)
    cache.put(KEY, PCM.tobytes())
    (path,) = tmp_path.iterdir()
    other = phrase_key("b")
    path.rename(tmp_path / f"{other.hex()}.phrase")
    assert not cache.has(other)
    assert cache.get(other) is None
    assert not files(tmp_path)


def test_the_least_recently_used_leave_first(tmp_path):
    """A phrase that was played lately outlives one that was made later."""
    cache = PhraseCache(tmp_path, 7000)
    for age, name in enumerate("abc"):
        put(cache, name)
        os.utime(tmp_path / f"{phrase_key(name).hex()}.phrase", (1000 + age, 1000 + age))
    assert cache.get(phrase_key("a")) is not None
    put(cache, "d")
    assert [cache.has(phrase_key(name)) for name in "abcd"] == [True, False, True, True]
    assert cache.num_bytes == sum(path.stat().st_size for path in tmp_path.iterdir()) <= 7000


def test_a_smaller_bound_is_kept_from_the_start(tmp_path):
    """What an earlier configuration allowed leaves when the cache is opened."""
    cache = PhraseCache(tmp_path, 2**20)
    for name in "abc":
        put(cache, name)
    assert PhraseCache(tmp_path, 5000).num_bytes <= 5000
    assert len(files(tmp_path)) == 2


def test_what_is_larger_than_the_cache_is_not_kept(tmp_path):
    """And nothing else has to leave for it."""
    cache = PhraseCache(tmp_path, 3000)
    put(cache, "a")
    assert not cache.put(KEY, bytes(4000))
    assert cache.has(phrase_key("a"))
    assert not cache.error


def test_only_its_own_files_are_touched(tmp_path):
    """A foreign file and a fresh part stay; what a crash left an hour ago goes."""
    for name in ("foreign.txt", "fresh.1.part", "old.1.part"):
        (tmp_path / name).write_bytes(b"x" * 5000)
    os.utime(tmp_path / "old.1.part", (0, 0))
    put(PhraseCache(tmp_path, 3000), "a")
    assert files(tmp_path) == {"foreign.txt", "fresh.1.part", f"{phrase_key('a').hex()}.phrase"}


def test_files_are_for_their_owner_alone(tmp_path):
    """Private speech: neither folder nor file can be read by others."""
    put(PhraseCache(tmp_path / "phrases", 2**20), "a")
    assert [path.stat().st_mode & 0o077 for path in tmp_path.rglob("*")] == [0, 0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")
def test_what_root_keeps_belongs_to_the_service(tmp_path):
    """Folder and file get the owner of the cache folder, so that the service can use and remove them."""
    os.chown(tmp_path, 12345, 12345)
    put(PhraseCache(tmp_path / "phrases", 2**20), "a")
    assert {path.stat().st_uid for path in tmp_path.rglob("*")} == {12345}


def test_a_folder_that_cannot_be_written_is_told_of_once(tmp_path, caplog):
    """A file where the folder should be, a hundred times: one line in the log, and a reason."""
    (tmp_path / "phrases").touch()
    cache = PhraseCache(tmp_path / "phrases", 2**20)
    for number in range(100):
        assert not cache.put(phrase_key(number), bytes(10))
        assert cache.get(phrase_key(number)) is None
    assert len(caplog.records) == 1
    assert "File exists" in cache.error


STRANGER = """
import os, sys
from pathlib import Path
from daemon.phrases import PhraseCache, phrase_key
os.geteuid() or os.setuid(65534)
cache, key = PhraseCache(Path(sys.argv[1]), 60_000), phrase_key("a")
print(cache.put(key, bytes(10)), cache.get(key), cache.has(key), cache.error)
"""


def test_a_folder_of_somebody_else_is_no_error(tmp_path):
    """A folder that may not be looked into: nothing is kept or found, and the reason is told."""
    folder = tmp_path / "phrases"
    folder.mkdir(mode=0)
    ran = subprocess.run([sys.executable, "-c", STRANGER, folder], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("False None False ")
    assert "Permission denied" in ran.stdout


def test_what_cannot_be_written_whole_is_not_there_at_all(tmp_path, caplog):
    """The disk takes the beginning of a phrase only: a line in the log, and nothing of it stays."""
    cache = PhraseCache(tmp_path, 2**20)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        assert not cache.put(KEY, PCM.tobytes())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "too large" in caplog.text
    assert not files(tmp_path)
    assert cache.put(KEY, PCM.tobytes())


def test_a_planted_link_is_not_followed(tmp_path):
    """Where a link waits under the name of the part, what it leads to stays as it is."""
    (tmp_path / "precious").write_bytes(b"precious")
    folder = tmp_path / "phrases"
    cache = PhraseCache(folder, 2**20)
    put(cache, "a")
    (folder / f"{KEY.hex()}.{os.getpid()}.part").symlink_to(tmp_path / "precious")
    assert cache.put(KEY, PCM.tobytes())
    assert (tmp_path / "precious").read_bytes() == b"precious"


WRITER = """
import sys
from pathlib import Path
from daemon.phrases import PhraseCache, phrase_key
cache = PhraseCache(Path(sys.argv[1]), 60_000)
for turn in range(150):
    cache.put(phrase_key(turn % 20), bytes([turn % 20]) * 4000)
"""


def test_processes_share_a_folder(tmp_path):
    """While others write and evict, what is read is a whole phrase of that key or none; no part is left."""
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    root = Path(__file__).resolve().parents[2]
    writers = [subprocess.Popen(command, cwd=root) for _ in range(2)]
    cache, hits = PhraseCache(tmp_path, 60_000), 0
    end = time.monotonic() + 30
    while any(writer.poll() is None for writer in writers) and time.monotonic() < end:
        for number in range(20):
            phrase = cache.get(phrase_key(number))
            if phrase is not None:
                hits += 1
                assert phrase.pcm.tobytes() == bytes([number]) * 4000
    assert [writer.wait(10) for writer in writers] == [0, 0]
    assert hits > 20
    cache.put(KEY, bytes(10))
    assert cache.num_bytes <= 60_000
    assert not list(tmp_path.glob("*.part"))


def test_has_may_be_asked_from_another_thread(tmp_path):
    """While phrases come and go, it answers without an error."""
    cache, errors, stop = PhraseCache(tmp_path, 20_000), [], threading.Event()

    def ask():
        try:
            while not stop.is_set():
                cache.has(phrase_key(3))
        except OSError as err:
            errors.append(err)

    thread = threading.Thread(target=ask)
    thread.start()
    for number in range(200):
        put(cache, number % 9)
    stop.set()
    thread.join()
    assert not errors


def test_switched_off_there_is_no_cache(tmp_path):
    """[phrases] cache = false: nothing is opened, nothing made."""
    assert open_phrases(PhrasesConfig(cache=False), tmp_path) is None
    assert not files(tmp_path)
    assert open_phrases(PhrasesConfig(max_mb=2), tmp_path).max_bytes == 2 * 2**20
