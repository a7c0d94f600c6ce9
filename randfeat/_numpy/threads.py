"""Tasks on several threads, with BLAS limited to one: then work other than matrix products uses every core, too."""

import functools
import math
import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import numpy as np

from randfeat._array import as_count
from randfeat._numpy.cores import usable_cores, use_cores

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

Memory = TypeVar("Memory")
ATTEMPTS = 1000
"""Interrupts in a row that the removal of the BLAS limit outlasts."""


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


def resolve_num_threads(num_threads: Any, default: int | None = None) -> int:
    """`num_threads` if given, else RANDFEAT_NUM_THREADS if set, else `default`, or the cores this process may use."""
    source = "num_threads"
    if num_threads is None:
        source = "the environment variable RANDFEAT_NUM_THREADS"
        num_threads = os.environ.get("RANDFEAT_NUM_THREADS", "").strip()
        if not num_threads:
            return default or len(usable_cores()) or os.cpu_count() or 1
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
        self.blas = SingleThreadedBlas()

    def __enter__(self) -> Self:
        self.blas.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.pool is not None:
                self.pool.shutdown()
        finally:  # a second interrupt may end the wait
            self.blas.__exit__()

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
        futures = []
        try:
            for scratch in helper_scratch:
                futures.append(self._helpers().submit(work, scratch))
            work(own_scratch)
        finally:
            remaining = iter(())  # after an interrupt; otherwise none is left
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

        if self.pool is None:
            self.pool = ThreadPoolExecutor(self.num_threads - 1, initializer=use_cores, initargs=(usable_cores(),))
        return self.pool


class BlasHold:
    """The contexts that limit BLAS to one thread: the first sets the limit, the last one removes it.

    An interrupt may arrive between any two steps. So the numbers to restore are kept before anything is set, and each
    call may be repeated.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a context may be collected, and leave, while its thread is in here
        self.holders: set[int] = set()
        self.numbers: list[int] = []

    def enter(self, holder: int) -> None:
        """Limit BLAS to one thread, unless it is limited already."""
        with self.lock:
            if not self.holders:
                self.numbers = [library.num_threads for library in controller().lib_controllers]
            self.holders.add(holder)
            for library in controller().lib_controllers:
                library.set_num_threads(1)

    def leave(self, holder: int) -> None:
        """Restore the previous numbers of threads, unless another context still needs the limit."""
        if holder not in self.holders:
            return
        with self.lock:
            if self.holders == {holder}:
                self.restore()
            self.holders.discard(holder)

    def restore(self) -> None:
        """Give every BLAS library the number of threads that it had."""
        for library, number in zip(controller().lib_controllers, self.numbers, strict=True):
            library.set_num_threads(number)

    def forget(self) -> None:
        """Reset after a fork: the threads that held the limit do not exist in the child process."""
        self.lock = threading.RLock()
        if self.holders:
            self.restore()
            self.holders.clear()


HOLD = BlasHold()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=HOLD.forget)


@functools.cache
def controller() -> Any:
    """Controller of the BLAS libraries in this process; made once, since it takes a millisecond."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


class SingleThreadedBlas:
    """Limit BLAS to the calling thread, in the whole process, while any such context is open.

    The limit ends with the `with` block whatever happens: an interrupt waits until it has been removed.
    """

    def __enter__(self) -> None:
        try:
            HOLD.enter(id(self))
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        interrupt: BaseException | None = None
        for _attempt in range(ATTEMPTS):
            try:
                HOLD.leave(id(self))
            except BaseException as error:  # of a signal handler: KeyboardInterrupt, or that of an alarm
                interrupt = error
            else:
                break
        if interrupt is not None:
            raise interrupt

    def __del__(self) -> None:
        self.__exit__()  # for an interrupt between the end of the block and the first line of `__exit__`
