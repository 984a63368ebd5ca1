"""Safetensors checkpoints: which files count, what is read and when, and what is said of damaged ones."""

import errno
import hashlib
import json
import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from daemon.errors import ModelError
from quantize.checkpoint import Checkpoint

VALUES = np.random.default_rng(5).standard_normal((7, 4)).astype(np.float32)


def save(folder: Path, name: str = "model.safetensors", **tensors: np.ndarray) -> Path:
    """Write one file of tensors; returns it."""
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / name)
    return folder / name


def save_index(folder: Path, files: dict[str, str], name: str = "model.safetensors.index.json") -> Path:
    """Write an index of tensors; returns it."""
    (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": files}), encoding="utf-8")
    return folder / name


def names_in(checkpoint: Checkpoint) -> list[str]:
    """Which of the names that these tests use are there."""
    return [name for name in ("a", "b", "c", "original") if name in checkpoint]


def refusal(act) -> str:
    """What is said when ``act`` is refused: one line."""
    with pytest.raises(ModelError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_any_float_is_read_as_float32(tmp_path, dtype):
    """The numbers are those of the file, whatever it stores them as, whole or in slices."""
    source = save(tmp_path, a=VALUES.astype(dtype))
    checkpoint = Checkpoint(source)
    expected = VALUES.astype(dtype).astype(np.float32)
    assert checkpoint.check("a", None, None) == (7, 4)
    whole = checkpoint.tensor("a", None, 4)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(whole, expected)
    np.testing.assert_array_equal(checkpoint.rows("a", 7, None)[2:5], expected[2:5])


@pytest.mark.parametrize("rows", [slice(0, 7), slice(3, 4), slice(-2, None), slice(5, 5), slice(6, 2), slice(4, 99)])
def test_rows_are_those_of_the_array(tmp_path, rows):
    """A slice of a table is what a slice of the whole array would be."""
    table = Checkpoint(save(tmp_path, a=VALUES)).rows("a", None, None)
    assert (len(table), table.shape) == (7, (7, 4))
    np.testing.assert_array_equal(table[rows], VALUES[rows])


def test_nan_is_noticed_in_the_rows_it_is_in(tmp_path):
    """Rows are checked when they are read, by the name of their tensor."""
    damaged = VALUES.copy()
    damaged[5, 1] = np.nan
    table = Checkpoint(save(tmp_path, a=damaged)).rows("a", None, None)
    assert table[:5].shape == (5, 4)
    assert refusal(lambda: table[5:6]).startswith("tensor a: expected finite numbers, found NaN or infinity in")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_numbers_that_float32_cannot_hold_are_refused(tmp_path, value):
    """NaN, infinity, and what becomes infinity."""
    checkpoint = Checkpoint(save(tmp_path, a=np.array([1.0, value])))
    assert "tensor a: expected finite numbers" in refusal(lambda: checkpoint.tensor("a", 2))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.bool_])
def test_weights_that_are_no_floats_are_refused(tmp_path, dtype):
    """A checkpoint that somebody else quantized is not taken for weights."""
    checkpoint = Checkpoint(save(tmp_path, a=np.ones((2, 2), dtype)))
    assert "tensor a: expected one of F64, F32, F16, BF16, found" in refusal(lambda: checkpoint.tensor("a", 2, 2))


@pytest.mark.parametrize("shape", [(7,), (7, 5), (8, None), (None, None, None)])
def test_wrong_shape_is_named_before_anything_is_read(tmp_path, shape):
    """Tensor, expected and found."""
    checkpoint = Checkpoint(save(tmp_path, a=VALUES))
    for act in (checkpoint.check, checkpoint.tensor):
        said = refusal(lambda act=act: act("a", *shape))
        assert said.startswith("tensor a: expected [")
        assert "found [7, 4]" in said


def test_missing_tensor_is_named(tmp_path):
    """The name, the shape it should have, and the file it was looked for in."""
    checkpoint = Checkpoint(save(tmp_path, a=VALUES))
    said = refusal(lambda: checkpoint.tensor("b", 3, None))
    assert said == f"tensor b: expected [3, any], found no such tensor in {tmp_path / 'model.safetensors'}"


def test_numbered_parts_are_counted_by_whole_names(tmp_path):
    """``layers`` has the parts of ``layers.N``, not those of ``layers_of.N``; gaps count."""
    one = np.zeros(1, np.float32)
    checkpoint = Checkpoint(
        save(tmp_path, **{"layers.0.a": one, "layers.3.a": one, "layers_of.7.a": one, "layersx": one})
    )
    assert (checkpoint.count("layers"), checkpoint.count("other")) == (4, 0)


def test_index_says_which_files_count(tmp_path):
    """Shards are read as one; a file beside them, even with the same names, is not looked at."""
    save(tmp_path, "part-00001-of-00002.safetensors", a=VALUES)
    save(tmp_path, "part-00002-of-00002.safetensors", b=2 * VALUES)
    save(tmp_path, "model.safetensors", a=9 * VALUES, c=VALUES)
    save_index(
        tmp_path,
        {"a": "part-00001-of-00002.safetensors", "b": "part-00002-of-00002.safetensors"},
        "part.safetensors.index.json",
    )
    checkpoint = Checkpoint(tmp_path)
    assert names_in(checkpoint) == ["a", "b"]
    np.testing.assert_array_equal(checkpoint.tensor("a", 7, 4), VALUES)


def test_incomplete_shards_beside_a_whole_checkpoint_are_left_alone(tmp_path):
    """The hub's repository holds two layouts: the one that is complete is read, and only it."""
    save(tmp_path, "transformers-00001-of-00002.safetensors", a=VALUES)
    save(tmp_path, "model.safetensors", original=VALUES)
    names = [f"transformers-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for indexed in (False, True):
        if indexed:
            save_index(tmp_path, dict(zip("ab", names, strict=True)), "transformers.safetensors.index.json")
        checkpoint = Checkpoint(tmp_path)
        assert names_in(checkpoint) == ["original"]
        assert checkpoint.lost == tmp_path / names[1]
    save(tmp_path, names[1], b=VALUES)
    checkpoint = Checkpoint(tmp_path)
    assert names_in(checkpoint) == ["a", "b"]
    assert checkpoint.lost is None


@pytest.mark.parametrize("indexed", [True, False])
def test_missing_shard_is_named(tmp_path, indexed):
    """By the index, or by the numbers in the names of the others."""
    save(tmp_path, "model-00001-of-00003.safetensors", a=VALUES)
    save(tmp_path, "model-00003-of-00003.safetensors", c=VALUES)
    if indexed:
        save_index(tmp_path, {name: f"model-0000{number}-of-00003.safetensors" for number, name in enumerate("abc", 1)})
    said = refusal(lambda: Checkpoint(tmp_path))
    assert str(tmp_path / "model-00002-of-00003.safetensors") in said
    assert "missing" in said


def test_tensor_that_only_the_index_knows_is_named(tmp_path):
    """A shard that lacks what the index promises."""
    save(tmp_path, "model-00001-of-00001.safetensors", a=VALUES)
    save_index(tmp_path, dict.fromkeys(("a", "lost.weight"), "model-00001-of-00001.safetensors"))
    said = refusal(lambda: Checkpoint(tmp_path))
    assert "tensor lost.weight: expected in" in said
    assert "model-00001-of-00001.safetensors" in said


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"weight_map": []}',
        '{"weight_map": {}}',
        '{"weight_map": {"a": 3}}',
        "\udc80",
        "[" * 100_000,
        '{"weight_map": {"a": "../model.safetensors"}}',
        '{"weight_map": {"a": "/etc/passwd"}}',
    ],
)
def test_damaged_index_is_named(tmp_path, content):
    """Not JSON, no table, or files that are not beside it."""
    save(tmp_path, a=VALUES)
    index = tmp_path / "model.safetensors.index.json"
    index.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert str(index) in refusal(lambda: Checkpoint(tmp_path))


def test_name_in_two_files_is_refused(tmp_path):
    """Which one is meant cannot be known: two checkpoints in one folder are not mixed."""
    save(tmp_path, "first.safetensors", a=VALUES)
    save(tmp_path, "second.safetensors", a=VALUES)
    said = refusal(lambda: Checkpoint(tmp_path))
    assert "tensor a: expected once" in said
    assert "first.safetensors" in said
    assert "second.safetensors" in said


@pytest.mark.parametrize("keep", [0, 4, 9, 60, -1])
def test_truncated_file_is_named(tmp_path, keep):
    """Wherever a file ends early, it is noticed when the checkpoint is opened."""
    file = save(tmp_path, a=VALUES)
    file.write_bytes(file.read_bytes()[:keep])
    assert refusal(lambda: Checkpoint(tmp_path)).startswith(f"{file}: not a readable safetensors file: ")


def test_file_that_shrinks_after_it_was_opened_is_named(tmp_path):
    """Reading later notices as well."""
    file = save(tmp_path, a=VALUES)
    checkpoint = Checkpoint(tmp_path)
    file.write_bytes(file.read_bytes()[:-1])
    assert refusal(lambda: checkpoint.tensor("a", 7, 4)).startswith(f"{file}: tensor a cannot be read: ")
    file.unlink()
    assert refusal(lambda: checkpoint.rows("a", 7, 4)[:1]).startswith(f"{file}: tensor a cannot be read: ")
    assert str(file) in refusal(checkpoint.revision)


@pytest.mark.parametrize("content", [b"GGUF" * 100, b"\xff" * 100, b"{}" * 50])
def test_file_of_another_kind_is_named(tmp_path, content):
    """Garbage under the right name."""
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    assert str(file) in refusal(lambda: Checkpoint(tmp_path))


def test_nothing_there_is_said(tmp_path):
    """No such path, one that is too long, an empty folder, a directory under a file's name."""
    for name, said in (("nowhere", "No such file or directory"), (300 * "x", "File name too long")):
        assert refusal(lambda name=name: Checkpoint(tmp_path / name)) == f"{tmp_path / name}: {said}"
    assert "no *.safetensors file" in refusal(lambda: Checkpoint(tmp_path))
    (tmp_path / "model.safetensors").mkdir()
    assert str(tmp_path / "model.safetensors") in refusal(lambda: Checkpoint(tmp_path))


def test_what_may_not_be_read_is_named(tmp_path, monkeypatch):
    """A folder, a file or a configuration of somebody else's: permission denied, not that there is none."""
    file, config = save(tmp_path, a=VALUES), tmp_path / "config.json"
    config.write_text("{}", encoding="utf-8")

    def refuse(denied, method):
        plain = getattr(Path, method)

        def act(path, *args, **kwargs):
            if path == denied:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return plain(path, *args, **kwargs)

        with monkeypatch.context() as patch:  # root, as tests may run, may read everything
            patch.setattr(Path, method, act)
            return refusal(lambda: Checkpoint(tmp_path).config)

    assert refuse(tmp_path, "iterdir") == f"{tmp_path}: Permission denied"
    assert refuse(tmp_path, "is_dir") == f"{tmp_path}: Permission denied"
    assert refuse(file, "open") == f"{file}: cannot be read: Permission denied"
    assert refuse(config, "stat") == f"{config}: Permission denied"


def test_nothing_stays_mapped(tmp_path):
    """A mapping of a large file would count as memory until it is closed."""
    file = save(tmp_path, a=VALUES)
    checkpoint = Checkpoint(tmp_path)
    table = checkpoint.rows("a", 7, 4)
    kept = [checkpoint.tensor("a", 7, 4), table[:3]]
    assert str(file) not in Path("/proc/self/maps").read_text(encoding="utf-8")
    assert len(kept) == 2


def test_revision_is_a_hash_of_the_content(tmp_path):
    """The same content in another place has the same; the name of the place does not matter."""
    for folder in ("one", "two"):
        save(tmp_path / folder, "codec.safetensors", a=VALUES)
        save(tmp_path / folder, "lm.safetensors", b=VALUES)
    first = Checkpoint(tmp_path / "one")
    digests = b"".join(hashlib.sha256(file.read_bytes()).digest() for file in first.files)
    assert first.revision() == f"sha256:{hashlib.sha256(digests).hexdigest()[:16]}"
    assert first.revision() == Checkpoint(tmp_path / "two").revision()
    save(tmp_path / "two", "lm.safetensors", b=VALUES + 1)
    assert first.revision() != Checkpoint(tmp_path / "two").revision()


def test_hashing_tells_how_far_it_is(tmp_path):
    """In bytes, up to all of them, over all files."""
    files = [save(tmp_path, f"{name}.safetensors", **{name: VALUES}) for name in "ab"]
    ticks = []
    Checkpoint(tmp_path).revision(lambda *tick: ticks.append(tick))
    total = sum(file.stat().st_size for file in files)
    assert ticks == [(total // 2, total), (total, total)]


def test_commit_of_a_downloaded_folder_is_known(tmp_path):
    """``hf download --local-dir`` notes it beside the files; none if they are of several, or the notes are damaged."""
    commits = [40 * "a", 40 * "b"]
    for name in ("m-00001-of-00002", "m-00002-of-00002"):
        save(tmp_path, f"{name}.safetensors", **{name: VALUES})
    notes = tmp_path / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    assert Checkpoint(tmp_path).hub_revision() is None

    def note(*lines):
        for number, line in enumerate(lines, 1):
            file = notes / f"m-0000{number}-of-00002.safetensors.metadata"
            file.write_bytes(line.encode() + b"\netag\n1700000000.0\n")
        return Checkpoint(tmp_path).hub_revision()

    assert note(commits[0]) is None
    assert note(commits[0], commits[0]) == commits[0]
    assert note(*commits) is None
    assert note("damaged", "damaged") is None


def test_commit_of_a_downloaded_snapshot_is_known(tmp_path):
    """In the hub's cache the files are links into another folder; elsewhere there is no commit."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "models--x--y" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    blob = save(tmp_path / "models--x--y" / "blobs", "12ab", a=VALUES)
    (snapshot / "model.safetensors").symlink_to(blob)
    assert Checkpoint(snapshot).hub_revision() == commit
    assert Checkpoint(snapshot / "model.safetensors").hub_revision() == commit
    assert Checkpoint(blob).hub_revision() is None


def test_configuration_beside_the_tensors(tmp_path):
    """An object, nothing, or refused with the file's name."""
    source = save(tmp_path, a=VALUES)
    assert Checkpoint(source).config == {}
    file = tmp_path / "config.json"
    file.write_text('{"hidden_size": 4}', encoding="utf-8")
    assert Checkpoint(tmp_path).config == {"hidden_size": 4}
    for content in ("[1]", "{", ""):
        file.write_text(content, encoding="utf-8")
        assert str(file) in refusal(lambda: Checkpoint(source).config)
