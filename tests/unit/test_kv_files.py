"""KV states of voices on disk: the same bits come back, and nothing damaged, stale or too large is used."""

import os
from pathlib import Path

import numpy as np
import pytest

from daemon.engine.kv_files import KvFiles
from daemon.engine.llama import LlamaModel

pytestmark = pytest.mark.engine

BACKBONE = Path(__file__).parents[2] / "models" / "starter" / "backbone.gguf"
COUNT = 12


@pytest.fixture(scope="module")
def model():
    """The starter's backbone with room for a few positions."""
    with LlamaModel(BACKBONE, num_positions=64, max_batch=16, num_threads=1) as opened:
        yield opened


class Prefill:
    """A prefill of random embeddings that counts how often it was needed."""

    def __init__(self, model, seed=0):
        self.model = model
        self.times = 0
        self.embeddings = np.random.default_rng(seed).normal(size=(COUNT, model.width)).astype(np.float32)

    def __call__(self):
        self.times += 1
        self.model.prefill(self.embeddings)


def restored(files, model, prefill, key="voice"):
    """Restore into an emptied cache; the hidden state that one more step then gives."""
    model.rewind(0)
    files.restore(model, key, COUNT, prefill)
    assert model.positions[0] == COUNT
    return model.step(np.ones(model.width, np.float32)).copy()


def test_state_comes_back_to_the_bit_without_a_prefill(model, tmp_path):
    """Another run finds the state in its file and goes on exactly as after the prefill."""
    prefill = Prefill(model)
    first = restored(KvFiles(tmp_path / "kv", 2**24, "model"), model, prefill)
    second = restored(KvFiles(tmp_path / "kv", 2**24, "model"), model, prefill)
    assert prefill.times == 1
    np.testing.assert_array_equal(first, second)


def test_state_of_another_model_or_voice_is_not_used(model, tmp_path):
    """Identity and key decide which file it is."""
    for identity, key in [("model", "a"), ("model", "b"), ("other", "a")]:
        prefill = Prefill(model)
        restored(KvFiles(tmp_path, 2**24, identity), model, prefill, key)
        assert prefill.times == 1


@pytest.mark.parametrize("damage", [b"", b"crier", None, "flip", "short"])
def test_damaged_file_is_rebuilt(model, tmp_path, damage, caplog):
    """A file that is empty, cut, garbage or changed in one bit is made again, and said so."""
    files, prefill = KvFiles(tmp_path, 2**24, "model"), Prefill(model)
    expected = restored(files, model, prefill)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    path.write_bytes({"flip": content, "short": content[:-1], None: os.urandom(500)}.get(damage, damage))
    np.testing.assert_array_equal(restored(files, model, prefill), expected)
    assert prefill.times == 2
    assert "is damaged" in caplog.text
    np.testing.assert_array_equal(restored(files, model, prefill), expected)
    assert prefill.times == 2


def test_whole_state_of_another_context_is_rebuilt(model, tmp_path):
    """A file that is whole but holds another number of positions is not believed either."""
    files, prefill = KvFiles(tmp_path, 2**24, "model"), Prefill(model)
    model.rewind(0)
    model.prefill(prefill.embeddings[:5])
    short = model.state()
    expected = restored(files, model, prefill)
    (path,) = tmp_path.iterdir()
    files._files.write(path.stem, [short])
    np.testing.assert_array_equal(restored(files, model, prefill), expected)
    assert prefill.times == 2


def test_least_recently_used_leaves_first(model, tmp_path):
    """Where three states do not fit, the one that was used longest ago goes."""
    probe = Prefill(model)
    restored(KvFiles(tmp_path / "probe", 2**24, "model"), model, probe)
    size = next((tmp_path / "probe").iterdir()).stat().st_size
    files = KvFiles(tmp_path / "kv", 2 * size + size // 2, "model")
    uses = {key: Prefill(model, seed) for seed, key in enumerate("abc")}
    for age, key in [(30, "a"), (20, "b"), (10, "a"), (0, "c")]:
        restored(files, model, uses[key], key)
        for path in (tmp_path / "kv").iterdir():
            stat = path.stat()
            os.utime(path, (stat.st_atime - age - 1, stat.st_mtime - age - 1))
    assert len(list((tmp_path / "kv").iterdir())) == 2
    restored(files, model, uses["a"], "a")
    assert {key: use.times for key, use in uses.items()} == {"a": 1, "b": 1, "c": 1}
    restored(files, model, uses["b"], "b")
    assert uses["b"].times == 2


def test_other_things_in_the_folder_are_left_alone(model, tmp_path):
    """A folder, a foreign file and a file that is being written stay; what a crash left long ago goes."""
    (tmp_path / "folder.kv").mkdir()
    for name in ("foreign", "fresh.1.part", "old.1.part"):
        (tmp_path / name).write_bytes(b"x" * 10)
    os.utime(tmp_path / "old.1.part", (0, 0))
    prefill = Prefill(model)
    for _ in range(2):
        restored(KvFiles(tmp_path, 2**24, "model"), model, prefill)
    assert prefill.times == 1
    assert {path.name for path in tmp_path.iterdir()} > {"folder.kv", "foreign", "fresh.1.part"}
    assert not (tmp_path / "old.1.part").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")
def test_what_root_keeps_belongs_to_the_service(model, tmp_path):
    """Folder and file get the owner of the cache folder, so that the service can use and remove them."""
    os.chown(tmp_path, 12345, 12345)
    restored(KvFiles(tmp_path / "kv", 2**24, "model"), model, Prefill(model))
    assert {path.stat().st_uid for path in [tmp_path / "kv", *(tmp_path / "kv").iterdir()]} == {12345}


@pytest.mark.parametrize("max_bytes", [0, 1000])
def test_what_does_not_fit_is_not_written(model, tmp_path, max_bytes):
    """With no room, or too little, speech goes on from a prefill and no file appears."""
    files, prefill = KvFiles(tmp_path / "kv", max_bytes, "model"), Prefill(model)
    restored(files, model, prefill)
    restored(files, model, prefill)
    assert prefill.times == 2
    assert not list(tmp_path.rglob("*.kv"))


def test_folder_that_cannot_be_written_is_no_reason_not_to_speak(model, tmp_path, caplog):
    """A file where the folder should be: a warning, and the prefill's state is used."""
    (tmp_path / "kv").touch()
    prefill = Prefill(model)
    restored(KvFiles(tmp_path / "kv", 2**24, "model"), model, prefill)
    assert prefill.times == 1
    assert "cache unreadable" in caplog.text
