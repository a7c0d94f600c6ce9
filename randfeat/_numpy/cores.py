"""Cores that the threads of a call may use, also where OpenMP has bound the calling thread to one of them."""

import contextlib
import ctypes
import functools
import os
import sys
from typing import Any

VARIABLES = "OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY"
"""Variables of the environment by which OpenMP binds threads to cores."""
UNBOUND = {"false", "none", "disabled"}
"""Words in the values of these variables with which it does not."""


def usable_cores() -> set[int]:
    """Numbers of the cores that the calling thread may use; empty where the system does not tell.

    If a variable such as OMP_PROC_BIND asks for it, OpenMP binds threads to cores, first of all the main thread, when
    its library is loaded. The mask of that thread then says one core. Other threads, and the places of OpenMP, keep
    what there was, so all of them are asked. Without such a variable, a thread that is bound to cores was bound by the
    program, and stays on them.
    """
    if not hasattr(os, "sched_getaffinity"):
        return set()
    cores = set(os.sched_getaffinity(0))
    if len(cores) == os.cpu_count() or not openmp_binds():
        return cores
    for thread in thread_ids():
        with contextlib.suppress(OSError):  # it has ended
            cores |= os.sched_getaffinity(thread)
    return cores | openmp_cores(len(sys.modules))


def openmp_binds() -> bool:
    """Whether a variable of the environment asks OpenMP to bind threads to cores."""
    values = (os.environ.get(name, "").strip().lower() for name in VARIABLES)
    return any(value and UNBOUND.isdisjoint(value.split(",")) for value in values)


def thread_ids() -> list[int]:
    """The system's numbers of the threads of this process; none where there is no /proc."""
    try:
        return [int(name) for name in os.listdir("/proc/self/task")]
    except OSError:
        return []


@functools.cache
def openmp_cores(num_modules: int) -> frozenset[int]:
    """Cores of the places to which OpenMP binds threads; looked up anew when modules, and so libraries, are added."""
    from threadpoolctl import ThreadpoolController

    libraries = ThreadpoolController().select(user_api="openmp").lib_controllers
    return frozenset(core for library in libraries for core in places(library.dynlib))


def places(openmp: Any) -> list[int]:
    """Cores of all places of one OpenMP library; none if it is older than OpenMP 4.5, which has these calls."""
    if not hasattr(openmp, "omp_get_place_proc_ids"):
        return []
    found: list[int] = []
    for place in range(openmp.omp_get_num_places()):
        ids = (ctypes.c_int * openmp.omp_get_place_num_procs(place))()
        openmp.omp_get_place_proc_ids(place, ids)
        found += ids
    return found


def use_cores(cores: set[int]) -> None:
    """Let the calling thread, which inherits the mask of the thread that started it, use all of these cores."""
    if cores and os.sched_getaffinity(0) != cores:
        with contextlib.suppress(OSError):  # the system has taken a core away meanwhile
            os.sched_setaffinity(0, cores)
