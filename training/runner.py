"""What every stage that trains is built on: its processes, their averages, and when to stop."""

import os
import pickle
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import ProcessContext, ProcessException, ProcessRaisedException, start_processes

from daemon.errors import BadRequestError, SpeechError
from training.stopping import SIGNALS, Stopped, StopRequest, on_signals

_SEED = 20
_GRACE_S = 5.0
"""How long processes may take to end by themselves when one of them has failed."""


class Run:
    """One process of a stage.

    Attributes:
        rank: which process this is, 0..world - 1; the one of rank 0 writes.
        world: how many there are.
        device: where its tensors belong.
        generator: random numbers of its own, other ones in every process.
    """

    def __init__(self, rank: int, world: int, device: torch.device, request: StopRequest) -> None:
        self.rank = rank
        self.world = world
        self.device = device
        self._request = request
        self.seed(0)

    def seed(self, step: int) -> None:
        """Begin this process's random numbers anew, torch's and ``generator``.

        A stage that goes on at ``step`` would else draw what it has drawn before.
        """
        self.generator = np.random.default_rng((_SEED, self.rank, step))
        torch.manual_seed(int(self.generator.integers(2**62)))

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor, in place, by its mean over the processes; all of one device, computed in float32."""
        if self.world == 1:
            return
        # One buffer, because every call waits for all processes.
        flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.world
        _scatter(flat, tensors)

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor, in place, by what it is in the process of rank 0."""
        if self.world == 1:
            return
        for tensor in tensors:
            held = tensor.detach().contiguous()
            dist.broadcast(held, 0)
            tensor.detach().copy_(held)

    def should_stop(self) -> bool:
        """Whether to save and return now; every process gets the same answer at the same call.

        A stage that is told so must return, and is not asked again.
        """
        asked = self._request.asked
        if self.world > 1:
            votes = torch.tensor([float(asked)])
            dist.all_reduce(votes)
            asked = votes.item() > 0
        if asked:
            self._request.obey()
        return asked


def _scatter(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    start = 0
    for tensor in tensors:
        tensor.detach().copy_(flat[start : start + tensor.numel()].view(tensor.shape))
        start += tensor.numel()


def launch(
    stage: Callable[..., None], *args: object, device: str, processes: int, minutes: float | None = None
) -> None:
    """Run ``stage(run, *args)`` in so many processes and wait for all of them.

    Args:
        stage: a function of a module's top level; it saves and returns when ``run.should_stop()``.
        args: what it gets beside its ``Run``; picklable.
        device: cpu, cuda or cuda:N; several processes on ``cuda`` take the GPUs in turn.
        processes: how many; each has one thread on the CPU.
        minutes: the time after which the stage is asked to stop, as SIGINT and SIGTERM ask it to.

    Raises:
        Stopped: it ended early, with what it had saved.
        BadRequestError: there is no such device.
        SpeechError: what the stage raised, from whichever process, or that one was killed; none is left running.
        ProcessRaisedException: a process raised something else; none is left running.
        KeyboardInterrupt: a second signal came before the stage had stopped.
    """
    check_device(device, processes)
    request = StopRequest(minutes)
    with on_signals(request):
        if processes == 1:
            stage(Run(0, 1, _own_device(device, 0), request), *args)
        else:
            _spread(_Work(stage, args, device, processes, request))
    if request.obeyed:
        raise Stopped


def check_device(device: str, processes: int) -> None:
    """Refuse what a stage cannot run on.

    Raises:
        BadRequestError: there is no such device, or there is to be no process.
    """
    try:
        asked = torch.device(device)
    except RuntimeError as err:
        raise BadRequestError("bad_request", f"device {device!r}: expected cpu, cuda or cuda:N") from err
    if asked.type not in ("cpu", "cuda"):
        raise BadRequestError("bad_request", f"device {device!r}: expected cpu, cuda or cuda:N")
    if asked.type == "cuda":
        if not torch.cuda.is_available():
            raise BadRequestError("bad_request", f"device {device!r}: torch {torch.__version__} finds no GPU here")
        last = torch.cuda.device_count() - 1
        if (asked.index or 0) > last:
            raise BadRequestError("bad_request", f"device {device!r}: expected one of cuda:0 to cuda:{last}")
    if processes < 1:
        raise BadRequestError("bad_request", f"processes: expected 1 or more, found {processes}")


def _own_device(device: str, rank: int) -> torch.device:
    """This process's device; on the CPU, also have it use one thread.

    Two processes of one thread are faster than one process of two, by far beside other load.
    """
    own = torch.device(device)
    if own.type == "cpu":
        torch.set_num_threads(1)
        return own
    if own.index is None:
        own = torch.device("cuda", rank % torch.cuda.device_count())
    torch.cuda.set_device(own)
    return own


@dataclass(frozen=True)
class _Work:
    """What several processes are to do."""

    stage: Callable[..., None]
    args: tuple[object, ...]
    device: str
    world: int
    request: StopRequest


def _spread(work: _Work) -> None:
    with tempfile.TemporaryDirectory(prefix="training-") as folder:
        meeting = Path(folder)
        with _signals_held():
            context = start_processes(_process, (work, meeting), nprocs=work.world, join=False)  # type: ignore[no-untyped-call]  # torch's has no types
        try:
            while not context.join(grace_period=_GRACE_S):
                pass
        except ProcessException as err:
            _raise_told(meeting)
            if isinstance(err, ProcessRaisedException):
                raise
            raise SpeechError(f"{err.msg}; the stage goes on from its last checkpoint when it is run again") from None
        finally:
            _end(context)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Keep SIGINT and SIGTERM waiting, also in processes started meanwhile, until they can be answered."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(context: ProcessContext) -> None:
    for process in context.processes:
        if process.is_alive():
            process.kill()
        process.join()
    for file in context.error_files:  # torch leaves the one it has read
        Path(file).unlink(missing_ok=True)


def _process(rank: int, work: _Work, meeting: Path) -> None:
    """What one of several processes does.

    When its parent dies, torch has the kernel send it SIGINT: it saves and ends.
    """
    with on_signals(work.request, insist=False):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else it looks up the host's name, which may not be known
        # A file, because a port that is free now may not be when it is used. gloo for GPUs too: they are few here.
        dist.init_process_group("gloo", init_method=f"file://{meeting / 'store'}", rank=rank, world_size=work.world)
        try:
            work.stage(Run(rank, work.world, _own_device(work.device, rank), work.request), *work.args)
        except SpeechError as err:
            # Its pickle would call the class with the message alone, which not every class takes.
            (meeting / f"{rank}.error").write_bytes(pickle.dumps((type(err), err.args, err.__dict__)))
            raise SystemExit(err.exit_code) from None
        # Not after an error: the others would notice, and fail before this process has said why.
        dist.destroy_process_group()


def _raise_told(meeting: Path) -> None:
    """Raise the error that a process left behind, if one did."""
    for told in sorted(meeting.glob("*.error")):
        kind, values, state = pickle.loads(told.read_bytes())  # noqa: S301  # written by our own process
        err: Any = kind.__new__(kind, *values)
        err.__dict__.update(state)
        raise err from None
