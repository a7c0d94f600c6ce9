"""Tasks on several threads, with BLAS limited to one: then work other than matrix products uses every core, too."""

import functools
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import numpy as np

from randfeat._array import as_count

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

Memory = TypeVar("Memory")


class Scratch:
    """Memory of one thread, reused from block to block so that features stay in cache."""

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype
        self.arrays: dict[str, np.ndarray] = {}

    def take(self, name: str, *shape: int) -> np.ndarray:
        """An uninitialized array of this shape; calls with the same name return the same memory."""
        size = math.prod(shape)
        memory = self.arrays.get(name)
        if memory is None or memory.size < size:
            memory = self.arrays[name] = np.empty(size, self.dtype)
        return memory[:size].reshape(shape)


def resolve_num_threads(num_threads: Any) -> int:
    """`num_threads` if given, else RANDFEAT_NUM_THREADS, else the number of cores this process may use."""
    source = "num_threads"
    if num_threads is None:
        source = "the environment variable RANDFEAT_NUM_THREADS"
        num_threads = os.environ.get("RANDFEAT_NUM_THREADS")
        if num_threads is None:
            return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        num_threads = int(num_threads) if num_threads.isdecimal() else num_threads
    return as_count(num_threads, source)


def run_tasks(tasks: Sequence[Callable[[Memory], None]], make_scratch: Callable[[], Memory], num_threads: int) -> None:
    """Call every task once, on at most `num_threads` threads; each thread has its own scratch memory."""
    with Workers(make_scratch, num_threads) as workers:
        workers.run(tasks)


class Workers(Generic[Memory]):
    """At most `num_threads` threads for the duration of a `with` block, each with its own scratch memory.

    The calling thread is one of them. The threads end with the block, so none is left when the process forks, and calls
    from different threads of the caller do not wait for one another. Meanwhile BLAS is limited to one thread.
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
        """Call every task once; the thread that runs it does not affect its result. The first error ends the call."""
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

        own_scratch, *helper_scratch = self._scratch(max(1, min(self.num_threads, len(tasks))))
        futures = [self._helpers().submit(work, scratch) for scratch in helper_scratch]
        try:
            work(own_scratch)
        finally:
            for future in futures:
                future.exception()  # waits
        for future in futures:
            future.result()

    def _scratch(self, number: int) -> list[Memory]:
        """Scratch memory for `number` threads, kept from run to run."""
        self.scratch += [self.make_scratch() for _ in range(len(self.scratch), number)]
        return self.scratch[:number]

    def _helpers(self) -> "ThreadPoolExecutor":
        """The pool of threads other than the calling one."""
        from concurrent.futures import ThreadPoolExecutor  # not needed by those who only import

        self.pool = self.pool or ThreadPoolExecutor(self.num_threads - 1)
        return self.pool


class BlasHold:
    """Counter of the calls that limit BLAS to one thread: the first sets the limit, the last one removes it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.depth = 0
        self.limit: Any = None

    def enter(self) -> None:
        """Limit BLAS to one thread, unless it is limited already."""
        with self.lock:
            if self.depth == 0:
                self.limit = controller().limit(limits=1)
            self.depth += 1

    def leave(self) -> None:
        """Restore the previous number of threads, unless another call still needs the limit."""
        with self.lock:
            self.depth -= 1
            if self.depth == 0:
                self.limit.restore_original_limits()

    def forget(self) -> None:
        """Reset after a fork: the threads that held the limit do not exist in the child process."""
        self.lock = threading.Lock()
        if self.depth:
            self.depth = 0
            self.limit.restore_original_limits()


HOLD = BlasHold()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=HOLD.forget)


@functools.cache
def controller() -> Any:
    """Controller of the BLAS libraries in this process; made once, since it takes a millisecond."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Limit BLAS to the calling thread, in the whole process, while any such context is open."""
    HOLD.enter()
    try:
        yield
    finally:
        HOLD.leave()
