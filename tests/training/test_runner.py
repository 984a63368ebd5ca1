"""The processes of a stage: their averages, how they stop together, and what is left when one fails."""

import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path

import counting_stage
import pytest
import torch

from daemon.errors import BadRequestError, SpeechError
from training import runner
from training.checkpoint import load
from training.journal import read_log
from training.runner import launch
from training.stopping import Stopped

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def start(folder, total, processes):
    """The counting stage as a program of its own."""
    command = [sys.executable, counting_stage.__file__, str(folder), str(total), str(processes)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_steps(folder, process, count):
    """Wait until the log has so many lines."""
    log = folder / "count.jsonl"
    while not log.exists() or len(log.read_text().splitlines()) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def test_two_processes_hold_the_same_mean_and_what_the_first_told(tmp_path):
    """Averages and broadcasts cross processes, in place, whatever the shape, layout and type; draws differ."""
    launch(counting_stage.exchange, tmp_path, device="cpu", processes=2)
    first, second = (load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for held in (first, second):
        assert torch.equal(held["matrix"], torch.arange(6.0).reshape(2, 3).t() * 1.5)
        assert torch.equal(held["half"], torch.full((4,), 0.5, dtype=torch.bfloat16))
        assert held["parameter"] == 0.5
        assert held["told"].tolist() == [0, 7]
    assert not torch.equal(first["drawn"], second["drawn"])
    assert first["integer"] != second["integer"]


@pytest.mark.parametrize(("processes", "number"), [(1, signal.SIGINT), (2, signal.SIGTERM)])
def test_a_signal_saves_and_the_next_run_goes_on_at_that_step(tmp_path, processes, number):
    """All processes stop at one step, which is saved; the next run takes no step twice and leaves none out."""
    process = start(tmp_path, 1_000_000, processes)
    wait_for_steps(tmp_path, process, 5)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out == "stopped\n"
    steps = {int((tmp_path / f"stopped-{rank}").read_text()) for rank in range(processes)}
    assert steps == {load(tmp_path / "count.pt")["step"]}
    total = steps.pop() + 4
    if processes == 1:
        launch(counting_stage.count, tmp_path, total, device="cpu", processes=1)
        assert [line["step"] for line in read_log(tmp_path / "count.jsonl")] == list(range(1, total + 1))


def test_processes_that_lose_their_parent_save_and_end(tmp_path):
    """A parent that is killed leaves no process behind, and what was learned is saved."""
    process = start(tmp_path, 1_000_000, 2)
    wait_for_steps(tmp_path, process, 5)
    process.kill()
    process.communicate(timeout=60)  # its children hold its pipes until they end
    assert (tmp_path / "stopped-0").read_text() == (tmp_path / "stopped-1").read_text()
    assert load(tmp_path / "count.pt")["step"] == int((tmp_path / "stopped-0").read_text())


def test_minutes_stop_a_stage_that_has_not_finished(tmp_path):
    """The time is over: the stage saves and launch says that it stopped; one that finished is not said to have."""
    with pytest.raises(Stopped):
        launch(counting_stage.count, tmp_path, 1_000_000, device="cpu", processes=1, minutes=1e-4)
    step = load(tmp_path / "count.pt")["step"]
    launch(counting_stage.count, tmp_path, step, device="cpu", processes=1, minutes=60)


def test_a_lost_process_ends_the_others(monkeypatch):
    """One process dies; those that wait for it and those that do not are ended, and the error is one line."""
    monkeypatch.setattr(runner, "_GRACE_S", 0.3)
    with pytest.raises(SpeechError, match="process 1 terminated with exit code 3") as caught:
        launch(counting_stage.vanish, device="cpu", processes=3)
    assert "\n" not in str(caught.value)
    assert multiprocessing.active_children() == []


def test_what_a_process_refuses_is_raised_as_it_was():
    """An error raised on purpose in any process arrives with its type, message and attributes."""
    with pytest.raises(BadRequestError, match=r"^nothing to train on$") as caught:
        launch(counting_stage.refuse, device="cpu", processes=2)
    assert caught.value.code == "empty"
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(("device", "processes"), [("tpu", 1), ("meta", 1), ("cpu", 0)])
def test_unusable_devices_are_refused(device, processes):
    """A device torch has no name for, or that nothing can be trained on, is refused before anything runs."""
    with pytest.raises(BadRequestError, match=f"{device}|processes"):
        launch(counting_stage.refuse, device=device, processes=processes)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_a_missing_gpu_is_said():
    """--device cuda without a GPU is refused in one line."""
    with pytest.raises(BadRequestError, match="no GPU"):
        launch(counting_stage.refuse, device="cuda", processes=1)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    """--device cuda:7 on a machine with two, in one line with those that there are."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(BadRequestError, match="'cuda:7': expected one of cuda:0 to cuda:1"):
        runner.check_device("cuda:7", 1)
    for device in ("cuda", "cuda:1"):
        runner.check_device(device, 1)
