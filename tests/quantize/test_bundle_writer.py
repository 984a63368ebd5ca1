"""Bundles are put in their place whole, by one conversion at a time, and nothing of anybody else's is removed."""

import contextlib
import errno
import json
import os
import shutil
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.engine.bundle import REQUIRED, load_bundle
from daemon.engine.toml_text import to_toml
from daemon.errors import EngineError, ModelError
from quantize.bundle_place import BundlePlace, BundleWriteError
from quantize.bundle_writer import BundleWriter, Part

STARTER = Path(__file__).resolve().parents[2] / "models" / "starter" / "manifest.toml"
NOTES = json.dumps({"key": "k", "files": {}})


@pytest.fixture(scope="module")
def manifest():
    """All of a manifest but its files."""
    content = tomllib.loads(STARTER.read_text(encoding="utf-8"))
    return {key: value for key, value in content.items() if key not in {"format_version", "files"}}


def ignore_tick(_done, _total):
    """No bar."""


def part(role, content=b"content", log=None):
    """A file that notes when it is written; an exception for content is raised once half of it is there."""

    def write(path, tick):
        if log is not None:
            log.append(role)
        if not isinstance(content, bytes):
            path.write_bytes(b"half")
            raise content
        path.write_bytes(content)
        tick(1, 2)

    return Part(role, f"{role}.bin", 7, write)


def write(out, manifest, *, key="key", log=None, fresh=False, at=None, content=b"content"):
    """Write a bundle; at the role ``at`` its content is ``content``."""
    with BundlePlace(out) as place, BundleWriter(place, key, fresh=fresh) as bundle:
        for role in REQUIRED:
            bundle.add(part(role, content if role == at else b"content", log), ignore_tick)
        bundle.finish(manifest)


def stop_at(out, manifest, role, error, **options):
    """Write a bundle as far as a role, where ``error`` is raised; returns what comes out."""
    with pytest.raises(type(error) if not isinstance(error, OSError) else BundleWriteError) as caught:
        write(out, manifest, at=role, content=error, **options)
    return "".join([str(caught.value), *getattr(caught.value, "__notes__", [])])


def refusal(act):
    """The one line that is said."""
    with pytest.raises(BundleWriteError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def content(folder):
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def full_disk():
    """What a full disk says."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_bundle_is_written_whole(tmp_path, manifest):
    """In folders that were not there, with nothing beside it, and the daemon reads it."""
    write(tmp_path / "a" / "b" / "voice", manifest)
    assert load_bundle(tmp_path / "a" / "b" / "voice", verify="full").manifest.name == "starter"
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["voice"]


def test_a_second_conversion_is_refused_and_touches_nothing(tmp_path, manifest):
    """While one writes, another of the same place says so; the first is none the worse, and then the place is free."""
    out = tmp_path / "voice"
    seen = []

    def rival(path, _tick):
        before = content(tmp_path)
        seen.append(refusal(lambda: write(out, manifest, key="other")))
        write(tmp_path / "neighbour", manifest)
        shutil.rmtree(tmp_path / "neighbour")
        assert content(tmp_path) == before
        path.write_bytes(b"content")

    with BundlePlace(out) as place, BundleWriter(place, "key") as bundle:
        for role in REQUIRED:
            bundle.add(part(role) if role != "heads" else Part(role, "heads.bin", 1, rival), ignore_tick)
        bundle.finish(manifest)
    assert seen == [f"{out}: another conversion is writing it"]
    load_bundle(out, verify="full")
    write(out, manifest, key="other")
    assert [path.name for path in tmp_path.iterdir()] == ["voice"]


def test_a_lock_that_was_left_is_no_obstacle(tmp_path, manifest):
    """A process that was killed holds nothing."""
    (tmp_path / ".voice.part.lock").touch()
    write(tmp_path / "voice", manifest)
    assert [path.name for path in tmp_path.iterdir()] == ["voice"]


@pytest.mark.parametrize(
    "error", [full_disk(), OSError("10 requested and 3 written"), ModelError("NaN"), EngineError()]
)
def test_a_first_file_that_fails_leaves_nothing_behind(tmp_path, manifest, error):
    """Neither the bundle nor anything beside it."""
    said = stop_at(tmp_path / "voice", manifest, REQUIRED[0], error)
    assert "goes on" not in said
    assert list(tmp_path.iterdir()) == []
    if isinstance(error, OSError):
        assert "No space left on device" in said or "10 requested and 3 written: the disk may be full" in said


@pytest.mark.parametrize("error", [full_disk(), ModelError("NaN"), EngineError("codec"), KeyboardInterrupt()])
def test_what_is_finished_is_kept_and_gone_on_with(tmp_path, manifest, error):
    """After an error as after Ctrl-C: said, and the same command writes only the rest."""
    out, log = tmp_path / "voice", []
    said = stop_at(out, manifest, REQUIRED[2], error)
    assert not out.exists()
    assert said.endswith("; 2 finished files are kept: the same command goes on from there")
    write(out, manifest, log=log)
    assert log == list(REQUIRED[2:])
    assert set(content(out)) == {"manifest.toml"} | {f"{role}.bin" for role in REQUIRED}
    assert {data for name, data in content(out).items() if name != "manifest.toml"} == {b"content"}
    assert [path.name for path in tmp_path.iterdir()] == ["voice"]


@pytest.mark.parametrize(
    ("options", "damage", "again"),
    [({"key": "other"}, None, 0), ({"fresh": True}, None, 0), ({}, "backbone.bin", 0), ({}, "depth_decoder.bin", 1)],
)
def test_only_what_is_whole_and_of_the_same_kind_is_kept(tmp_path, manifest, options, damage, again):
    """Another checkpoint or recipe, --force and damage make files anew."""
    out, log = tmp_path / "voice", []
    stop_at(out, manifest, REQUIRED[2], KeyboardInterrupt())
    if damage:
        (tmp_path / "voice.part" / "new" / damage).write_bytes(b"damaged")
    write(out, manifest, log=log, **options)
    assert log == [role for role in REQUIRED if not (damage and role == REQUIRED[1 - again])]
    assert {data for name, data in content(out).items() if name != "manifest.toml"} == {b"content"}


@pytest.mark.parametrize("error", [full_disk(), KeyboardInterrupt()])
def test_nothing_is_promised_of_a_command_that_begins_anew(tmp_path, manifest, error):
    """With --force the same command would not go on; nor is there anything to go on from before the first file."""
    assert "goes on" not in stop_at(tmp_path / "voice", manifest, REQUIRED[2], error, fresh=True)
    assert "goes on" not in stop_at(tmp_path / "other", manifest, REQUIRED[0], type(error)(*error.args))


@pytest.mark.parametrize("key", ["name", "family", "source"])
def test_a_bundle_of_another_model_is_known(tmp_path, manifest, key):
    """By what it is called, its family and where it comes from; not by recipe, revision or anything else."""
    write(tmp_path / "voice", manifest)
    with BundlePlace(tmp_path / "voice") as place:
        place.check_model(manifest | {"recipe": "f32", "revision": "2", "description": "x", "licence": "y"})
        said = refusal(lambda: place.check_model(manifest | {key: "other"}))
    assert said == (f"{tmp_path / 'voice'}: holds another model (starter: {manifest['source']}); --force replaces it")
    with BundlePlace(tmp_path / "free") as place:
        place.check_model(manifest)


def test_too_small_a_disk_is_noticed_before_anything_is_written(tmp_path, manifest):
    """What is needed and what there is are both said; finished files are counted and kept."""
    out = tmp_path / "voice"

    def reserve(num_bytes):
        with BundlePlace(out) as place, BundleWriter(place, "key") as bundle:
            bundle.reserve(num_bytes)

    assert "needs 1000000.00 GB, the disk has " in refusal(lambda: reserve(10**15))
    assert list(tmp_path.iterdir()) == []
    stop_at(out, manifest, REQUIRED[1], KeyboardInterrupt())
    assert "needs 1000000.00 GB more, the disk has " in refusal(lambda: reserve(10**15))
    assert (tmp_path / "voice.part" / "new" / "backbone.bin").exists()
    reserve(100)


def test_small_sizes_are_said_in_megabytes(tmp_path, monkeypatch):
    """Not as 0.00 GB."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 1_500_000))
    with BundlePlace(tmp_path / "voice") as place, BundleWriter(place, "key") as bundle:
        assert "needs 24.0 MB, the disk has 1.5 MB free" in refusal(lambda: bundle.reserve(24_000_000))


def test_a_manifest_that_the_daemon_would_refuse_is_not_installed(tmp_path, manifest):
    """What was there before stays."""
    write(tmp_path / "voice", manifest)
    before = content(tmp_path)
    with pytest.raises(ModelError, match="default_voice"):
        write(tmp_path / "voice", manifest | {"default_voice": "nobody"}, key="other")
    assert {name: data for name, data in content(tmp_path).items() if ".part/" not in name} == before


@pytest.mark.parametrize(
    "files",
    [
        {"thesis.txt": "mine"},
        {"progress.json": "{}"},
        {"progress.json": "not JSON", "thesis.txt": "mine"},
        {"progress.json": '{"key": 1, "files": {}}'},
        {"old/manifest.toml": "mine"},
    ],
)
def test_other_people_s_part_folder_is_left_alone(tmp_path, manifest, files):
    """OUT.part that no conversion began is in the way, and stays."""
    for name, text in files.items():
        path = tmp_path / "voice.part" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    before = content(tmp_path)
    assert "voice.part: in the way, and not begun by a conversion" in refusal(
        lambda: write(tmp_path / "voice", manifest)
    )
    assert content(tmp_path) == before


def test_a_link_in_the_way_is_left_alone(tmp_path, manifest):
    """What it leads to is not ours, whatever is in it; a file is not either."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "progress.json").write_text(NOTES, encoding="utf-8")
    (tmp_path / "voice.part").symlink_to("mine")
    assert "in the way" in refusal(lambda: write(tmp_path / "voice", manifest))
    (tmp_path / "voice.part").unlink()
    (tmp_path / "voice.part").touch()
    assert "in the way" in refusal(lambda: write(tmp_path / "voice", manifest))


@pytest.mark.parametrize("files", [{}, {"progress.json.new": "{"}, {"progress.json": NOTES, "new/heads.bin": "half"}])
def test_what_a_conversion_left_is_not_in_the_way(tmp_path, manifest, files):
    """An empty folder, or one with our notes, wherever it stopped."""
    (tmp_path / "voice.part" / "new").mkdir(parents=True)
    if "new/heads.bin" not in files:
        (tmp_path / "voice.part" / "new").rmdir()
    for name, text in files.items():
        (tmp_path / "voice.part" / name).write_text(text, encoding="utf-8")
    write(tmp_path / "voice", manifest)
    assert [path.name for path in tmp_path.iterdir()] == ["voice"]


def test_a_neighbour_that_looks_like_ours_is_left_alone(tmp_path, manifest):
    """voice.old is the user's own copy."""
    (tmp_path / "voice.old").mkdir()
    (tmp_path / "voice.old" / "manifest.toml").touch()
    for key in "ab":
        write(tmp_path / "voice", manifest, key=key)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["voice", "voice.old"]


@pytest.mark.parametrize("name", ["thesis.txt", "voices/mine.wav", ".hidden", "README.md/deep", "heads.bin/deep"])
def test_a_bundle_with_other_files_in_it_is_not_replaced(tmp_path, manifest, name):
    """The first of them is named, at the start and at the end; nothing is touched."""
    out = tmp_path / "voice"
    write(out, manifest)
    stray = out / name
    (out / name.split("/")[0]).unlink(missing_ok=True)

    def put(path, _tick):
        stray.parent.mkdir(exist_ok=True)
        stray.write_text("mine", encoding="utf-8")
        path.write_bytes(b"content")

    with BundlePlace(out) as place, BundleWriter(place, "other") as bundle:
        for role in REQUIRED:
            bundle.add(Part(role, f"{role}.bin", 1, put) if role == REQUIRED[-1] else part(role), ignore_tick)
        said = refusal(lambda: bundle.finish(manifest))
    assert f": {name.split('/')[0]} is in it; move that away" in said
    assert said.endswith("the same command goes on from there")
    assert stray.read_text(encoding="utf-8") == "mine"
    assert refusal(lambda: write(out, manifest)) in said
    shutil.rmtree(out / name.split("/")[0], ignore_errors=True)
    stray.unlink(missing_ok=True)
    log = []
    write(out, manifest, key="other", log=log)
    assert log == []


@pytest.mark.parametrize(
    "text", ["", "name = 'mine'", "format_version = 1", "format_version = 1\nfiles = 3", "x = [", "\udc80"]
)
def test_a_folder_with_somebody_else_s_manifest_is_not_replaced(tmp_path, manifest, text):
    """A manifest.toml alone does not make a bundle."""
    out = tmp_path / "voice"
    out.mkdir()
    (out / "manifest.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert f"{out / 'manifest.toml'}: not a bundle's" in refusal(lambda: write(out, manifest))
    assert [path.name for path in out.iterdir()] == ["manifest.toml"]


def test_a_folder_with_a_card_alone_is_filled(tmp_path, manifest):
    """README.md, or nothing, was put there for the bundle; the card stays, also when the bundle is replaced."""
    out = tmp_path / "voice"
    out.mkdir()
    (out / "README.md").write_text("a card", encoding="utf-8")
    for key in "ab":
        write(out, manifest, key=key)
        assert (out / "README.md").read_text(encoding="utf-8") == "a card"


def test_a_link_is_followed(tmp_path, manifest):
    """The bundle is where it leads, its name is the link's, and the link stays; one to itself is refused."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk/bundle")
    for key in "ab":
        write(tmp_path / "link", manifest, key=key)
        assert (tmp_path / "link").is_symlink()
        load_bundle(tmp_path / "disk" / "bundle", verify="full")
    assert BundlePlace(tmp_path / "link").name == "link"
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["bundle"]
    (tmp_path / "loop").symlink_to("loop")
    assert "loop" in refusal(lambda: write(tmp_path / "loop", manifest))


@pytest.mark.parametrize("given", ["", ".", "..", "../here/.", "./"])
def test_a_place_without_a_name_of_its_own_has_the_folder_s(tmp_path, monkeypatch, given):
    """``--out .`` is the folder that it is; one that is in use is left alone."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    place = BundlePlace(Path(given))
    assert (place.out, place.name) == ((tmp_path, tmp_path.name) if given == ".." else (here, "here"))
    (here / "thesis.txt").touch()
    assert "not a bundle" in refusal(place.__enter__)


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("/", "/: not a folder that"),
        ("file/voice", "cannot be written: "),
        ("file", "is not a bundle"),
        (300 * "x", "too long"),
    ],
)
def test_places_that_cannot_be_are_refused(tmp_path, manifest, out, said):
    """In one line."""
    (tmp_path / "file").touch()
    assert said in refusal(lambda: write(tmp_path / out, manifest))


def failing_replace(monkeypatch, fails):
    """Let renames fail whose source's and target's names ``fails`` says yes to."""
    plain = Path.replace

    def replace(self, target):
        if fails(self.name, Path(target).name):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return plain(self, target)

    monkeypatch.setattr(Path, "replace", replace)


def test_a_rename_that_fails_leaves_what_was_there(tmp_path, manifest, monkeypatch):
    """The old bundle is back in its place, the new one is kept, and the same command puts it there."""
    out, log = tmp_path / "voice", []
    write(out, manifest)
    before = content(out)
    with monkeypatch.context() as patch:
        failing_replace(patch, lambda source, target: (source, target) == ("new", "voice"))
        said = refusal(lambda: write(out, manifest | {"revision": "2"}, key="other"))
    assert "Input/output error" in said
    assert content(out) == before
    write(out, manifest | {"revision": "2"}, key="other", log=log)
    assert log == []
    assert load_bundle(out).manifest.revision == "2"
    assert [path.name for path in tmp_path.iterdir()] == ["voice"]


@pytest.mark.parametrize("failing", ["new", "old"])
def test_being_killed_between_the_renames_loses_nothing(tmp_path, manifest, monkeypatch, failing):
    """The next conversion, whatever it is of, first puts the old bundle back; the work goes on."""
    out, log = tmp_path / "voice", []
    write(out, manifest)
    before = content(out)
    with monkeypatch.context() as patch:  # the way back fails as well: as if nothing ran any more
        failing_replace(patch, lambda _, target: target == "voice")
        with contextlib.suppress(BundleWriteError):
            write(out, manifest | {"revision": "2"}, key="other")
    assert not out.exists()
    if failing == "old":
        assert stop_at(out, manifest, REQUIRED[0], full_disk(), key="third")
        assert content(out) == before
        assert [path.name for path in tmp_path.iterdir()] == ["voice"]
    else:
        write(out, manifest | {"revision": "2"}, key="other", log=log)
        assert log == []
        assert load_bundle(out).manifest.revision == "2"


def test_an_old_bundle_that_cannot_be_removed_is_no_error(tmp_path, manifest, monkeypatch):
    """The new one is in its place, what is left does not look like a bundle, and goes with the next conversion."""
    out = tmp_path / "voice"
    write(out, manifest)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        write(out, manifest | {"revision": "2"}, key="other")
    assert load_bundle(out).manifest.revision == "2"
    assert (tmp_path / "voice.part" / "old" / "heads.bin").exists()
    assert not list(tmp_path.glob("voice.part/**/manifest.toml"))
    with BundlePlace(out):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["voice"]


def test_files_are_on_the_disk_before_they_are_renamed(tmp_path, manifest, monkeypatch):
    """Every file and the folder are synced before the bundle gets its name, so a power cut leaves no empty files."""
    order, fsync, replace = [], os.fsync, Path.replace

    def note_fsync(descriptor):
        order.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def note_replace(self, target):
        order.append(f"-> {Path(target).name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    write(tmp_path / "voice", manifest)
    before = order[: order.index("-> voice")]
    assert {f"{role}.bin" for role in REQUIRED} | {"manifest.toml", "new"} <= set(before)
    assert order[order.index("-> voice") + 1 :] == [tmp_path.name]


SCALARS = st.text(max_size=8) | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.floats(-1e300, 1e300)
KEYS = st.sampled_from(["name", "a_b", "x1", "7"])
TABLES = st.dictionaries(KEYS, SCALARS)


@given(content=st.dictionaries(KEYS, SCALARS | st.dictionaries(KEYS, SCALARS | TABLES)))
def test_manifests_are_toml(content):
    """What is written is read back the same by Python's TOML reader."""
    assert tomllib.loads(to_toml(content)) == content
