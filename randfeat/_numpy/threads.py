"""Tasks on several threads, with BLAS held to one: what is not a product of matrices then runs on every core, too."""

import functools
import math
import operator
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import numpy as np

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["Scratch", "Workers", "resolve_num_threads", "run_tasks", "single_threaded_blas"]

Memory = TypeVar("Memory")


class Scratch:
    """Memory of one thread, kept from block to block so that features stay in cache."""

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype
        self.arrays: dict[str, np.ndarray] = {}

    def take(self, name: str, *shape: int) -> np.ndarray:
        """An array of this shape with any content, the same memory at every call of one name."""
        size = math.prod(shape)
        memory = self.arrays.get(name)
        if memory is None or memory.size < size:
            memory = self.arrays[name] = np.empty(size, self.dtype)
        return memory[:size].reshape(shape)


def resolve_num_threads(num_threads: Any) -> int:
    """The argument, else RANDFEAT_NUM_THREADS, else the cores that this process may use."""
    source = "num_threads"
    if num_threads is None:
        source = "the environment variable RANDFEAT_NUM_THREADS"
        num_threads = os.environ.get("RANDFEAT_NUM_THREADS")
        if num_threads is None:
            return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        num_threads = int(num_threads) if num_threads.isdecimal() else num_threads
    try:
        count = operator.index(num_threads)
    except TypeError:
        raise TypeError(f"{source} must be a positive integer, got {num_threads!r}.") from None
    if count < 1 or isinstance(num_threads, bool):
        raise ValueError(f"{source} must be a positive integer, got {num_threads!r}.")
    return count


def run_tasks(tasks: Sequence[Callable[[Memory], None]], make_scratch: Callable[[], Memory], num_threads: int) -> None:
    """Call every task once, on at most `num_threads` threads, each with scratch memory of its own."""
    with Workers(make_scratch, num_threads) as workers:
        workers.run(tasks)


class Workers(Generic[Memory]):
    """At most `num_threads` threads for the length of a `with` block, each with scratch memory of its own.

    The calling thread is one of them. They end with the block: there is nothing to fork, and calls from threads of the
    caller do not wait for one another. BLAS is held to one thread meanwhile.
    """

    def __init__(self, make_scratch: Callable[[], Memory], num_threads: int) -> None:
        self.make_scratch = make_scratch
        self.num_threads = num_threads
        self.scratch: list[Memory] = []
        self.pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        HOLD.enter()
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown()
        HOLD.leave()

    def run(self, tasks: Sequence[Callable[[Memory], None]]) -> None:
        """Call every task once. Which thread runs it does not matter to its result. The first error ends the call."""
        remaining = iter(tasks)
        lock = threading.Lock()

        def take() -> Callable[[Memory], None] | None:
            with lock:
                return next(remaining, None)

        def work(scratch: Memory) -> None:
            nonlocal remaining
            try:
                with np.errstate(all="ignore"):  # NaN and infinity in the inputs show in the outputs
                    for task in iter(take, None):
                        task(scratch)
            except BaseException:
                with lock:
                    remaining = iter(())
                raise

        own, *others = self._scratch(max(1, min(self.num_threads, len(tasks))))
        futures = [self._helpers().submit(work, scratch) for scratch in others]
        try:
            work(own)
        finally:
            for future in futures:
                future.exception()  # waits
        for future in futures:
            future.result()

    def _scratch(self, number: int) -> list[Memory]:
        """The memory of so many threads, kept from run to run."""
        self.scratch += [self.make_scratch() for _ in range(len(self.scratch), number)]
        return self.scratch[:number]

    def _helpers(self) -> "ThreadPoolExecutor":
        """The threads beside the calling one."""
        from concurrent.futures import ThreadPoolExecutor  # not needed by those who only import

        self.pool = self.pool or ThreadPoolExecutor(self.num_threads - 1)
        return self.pool


class BlasHold:
    """How many calls hold BLAS to one thread at present: the first sets the limit, the last one takes it back."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.depth = 0
        self.limit: Any = None

    def enter(self) -> None:
        """Limit BLAS, unless it is already."""
        with self.lock:
            if self.depth == 0:
                self.limit = controller().limit(limits=1)
            self.depth += 1

    def leave(self) -> None:
        """Restore what was, if nobody else needs the limit."""
        with self.lock:
            self.depth -= 1
            if self.depth == 0:
                self.limit.restore_original_limits()

    def forget(self) -> None:
        """In the child of a fork, where the threads that held the limit do not exist."""
        self.lock = threading.Lock()
        if self.depth:
            self.depth = 0
            self.limit.restore_original_limits()


HOLD = BlasHold()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=HOLD.forget)


@functools.cache
def controller() -> Any:
    """The BLAS libraries of the process; finding them takes a millisecond, so it is done once."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """BLAS runs on the calling thread alone, in the whole process, while any such context is open."""
    HOLD.enter()
    try:
        yield
    finally:
        HOLD.leave()
