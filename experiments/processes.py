"""Cells spread over processes of this machine.

Each worker is a fresh interpreter at the other end of a pipe, with one cell at a time, so it is known who has which. A
worker that dies (killed, out of memory, a crash in native code) costs the cell that it had, which another worker gets;
a cell whose worker dies twice has failed. (An executor of `concurrent.futures` would end every worker when one dies.)
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from experiments.cells import Cell, Failure, Outcome, Outcomes, attempt, failure

CHANCES = 2


class WorkersFailed(Exception):
    """Workers do not start; the message is one line."""


@dataclass(eq=False)
class Worker:
    """A process, our end of its pipe, and the position of the cell that it has, if any."""

    process: Any
    pipe: Connection
    position: int | None = None

    def give(self, position: int, cell: Cell, settings: Any) -> None:
        """Let it measure a cell; if it is dead, its pipe will say so."""
        self.position = position
        with contextlib.suppress(OSError):
            self.pipe.send((cell, settings))

    def end(self) -> int | None:
        """Wait for an idle worker, or a dead one, to end; returns the exit code."""
        self.pipe.close()
        self.process.join()
        return self.process.exitcode


def in_processes(cells: Sequence[Cell], settings: Any, *, workers: int) -> Outcomes:
    """Measure cells in `workers` processes: yields position and outcome of each as it is finished."""
    queue = deque(range(len(cells)))
    crew: list[Worker] = []
    deaths: Counter[int | None] = Counter()  # by the cell that was lost; None: while starting
    try:
        while queue or crew:
            busy = sum(worker.position is not None for worker in crew)
            while len(crew) < min(workers, busy + len(queue)):
                crew.append(hire(workers))
            ready = wait([worker.pipe for worker in crew])
            for worker in [worker for worker in crew if worker.pipe in ready]:
                position = worker.position
                try:
                    outcome: Outcome | None = worker.pipe.recv()
                except (EOFError, OSError):
                    crew.remove(worker)
                    code = worker.end()
                    deaths[position] += 1
                    if deaths[position] < CHANCES:
                        queue.extendleft([] if position is None else [position])
                    elif position is None:
                        raise WorkersFailed(f"worker processes end as they start, with exit code {code}.") from None
                    else:
                        yield position, Failure(f"its worker process died {CHANCES} times (exit code {code})")
                    continue
                if queue:
                    next_position = queue.popleft()
                    worker.give(next_position, cells[next_position], settings)
                else:
                    crew.remove(worker)
                    worker.end()
                if position is not None and outcome is not None:
                    yield position, outcome
                else:
                    del deaths[None]
    finally:
        for worker in crew:
            worker.process.terminate()
        for worker in crew:
            worker.end()


def hire(workers: int) -> Worker:
    """Start a process; it does not hear Ctrl-C, which is for the parent to handle."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    threads = max(1, (os.cpu_count() or 1) // workers)
    process = context.Process(target=work, args=(theirs, threads), daemon=True)
    if os.name == "posix":
        resource_tracker.ensure_running()  # it lets Ctrl-C through when it starts, so not within
    with interrupts_held():
        process.start()
    theirs.close()
    return Worker(process, ours)


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the end; processes started within never hear it. Windows has no such thing."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def work(pipe: Connection, threads: int) -> None:
    """What a worker does: say that it is there, then measure one cell after the other until nobody sends any."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    os.environ.setdefault("RANDFEAT_NUM_THREADS", str(threads))
    with contextlib.suppress(EOFError, OSError):  # the parent is done, or gone
        pipe.send(None)
        while True:
            data = pipe.recv_bytes()
            try:
                cell, settings = multiprocessing.reduction.ForkingPickler.loads(data)
            except Exception as error:
                pipe.send(failure(error))
                continue
            pipe.send(attempt(cell, settings))


def end_with_parent() -> None:
    """Nothing is measured for a parent that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
