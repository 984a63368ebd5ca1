"""The log and the progress of a stage."""

import json
import resource
from types import SimpleNamespace

import pytest

from daemon.errors import BadRequestError, StoreError
from training.journal import Journal, read_log

FIRST, SECOND = SimpleNamespace(rank=0), SimpleNamespace(rank=1)


def test_the_log_goes_on_after_a_restart(tmp_path, capsys):
    """Lines are appended, with the time of all runs; the last step is said where there is no terminal."""
    log = tmp_path / "log" / "codec.jsonl"
    with Journal(FIRST, log, total=4) as journal:
        journal.step(1, mel=2.0)
        journal.step(2, mel=1.23456789)
    lines = log.read_text().splitlines()
    log.write_text("\n".join([*lines[:-1], lines[-1].replace('"time_s": 0', '"time_s": 100')]) + "\n")
    with Journal(FIRST, log, total=4, start=2) as journal:
        journal.step(3, mel=1.0)
        journal.note(held=0.5, sentence="a[b]c")
        journal.step(4, mel=1.0)
    read = read_log(log)
    assert [line["step"] for line in read] == [1, 2, 3, 3, 4]
    assert read[1]["mel"] == 1.2346
    assert read[2]["time_s"] >= 100
    err = capsys.readouterr().err
    assert "codec 3: held 0.5  sentence a[b]c" in err
    assert "codec 4/4" in err


def test_other_processes_say_nothing(tmp_path, capsys):
    """Only the process of rank 0 writes and shows."""
    with Journal(SECOND, tmp_path / "log.jsonl", total=1) as journal:
        journal.step(1, loss=1.0)
        journal.note(loss=1.0)
    assert not (tmp_path / "log.jsonl").exists()
    assert capsys.readouterr().err == ""


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    """A process that was killed while it wrote does not make the log unreadable, now or for who goes on."""
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps({"time_s": 1.0, "step": 1, "loss": 2.0}) + '\n{"time_s": 2.0, "st')
    with Journal(FIRST, log, total=2, start=1) as journal:
        journal.step(2, loss=1.0)
    assert [line["step"] for line in read_log(log)] == [1, 2]


def test_a_log_that_cannot_be_written_is_said(tmp_path):
    """No folder can be made below a file."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="log cannot be written"):
        Journal(FIRST, tmp_path / "file" / "log.jsonl", total=1)


def test_a_full_disk_is_said(tmp_path):
    """Also when the log is closed, which tries to write once more what did not fit."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with (
            pytest.raises(StoreError, match=r"log\.jsonl: log cannot be written: File too large"),
            Journal(FIRST, tmp_path / "log.jsonl", total=1) as journal,
        ):
            journal.step(1, loss=1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_two_runs_of_one_stage_do_not_write_the_same_files(tmp_path):
    """The second is refused while the first is at work, and not after it."""
    log = tmp_path / "lm.jsonl"
    with (
        Journal(FIRST, log, total=1),
        pytest.raises(BadRequestError, match=r"lm\.jsonl: another run of the same stage is at work"),
    ):
        Journal(FIRST, log, total=1)
    Journal(FIRST, log, total=1).close()
