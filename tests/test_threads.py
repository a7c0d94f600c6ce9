"""Threads of the NumPy paths: the cores they use, and the limit of BLAS that ends with every call."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

VARIABLES = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")

needs_masks = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two cores, and a system that binds threads to cores",
)


def without_limits():
    """The environment without numbers of threads, and without words about cores."""
    limits = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RANDFEAT_NUM_THREADS", *VARIABLES)
    return {name: value for name, value in os.environ.items() if name not in limits}


def run(script, **environment):
    """What a script prints in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=without_limits() | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


PINNED = """
    import os, threading
    before = os.sched_getaffinity(0)
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()
    os.sched_setaffinity(0, {max(before)})
    from randfeat._numpy.threads import resolve_num_threads, run_tasks
    masks = {}
    both = threading.Barrier(2)
    def task(scratch):
        masks[threading.get_ident()] = os.sched_getaffinity(0)
        both.wait()
    print(resolve_num_threads(None))
    run_tasks([task] * 2, list, 2)
    own = masks.pop(threading.get_ident())
    print(len(own), *map(len, masks.values()), len(os.sched_getaffinity(0)))
    stop.set()
"""
"""The number of threads, and on how many cores are the calling thread, the helper, and the calling thread after it."""


@needs_masks
@pytest.mark.parametrize("variable", VARIABLES)
def test_a_main_thread_that_openmp_binds_leaves_the_other_cores_to_the_helpers(variable):
    every = str(len(os.sched_getaffinity(0)))
    assert run(PINNED, **{variable: "true" if variable == "OMP_PROC_BIND" else "0-1"}) == [every, "1", every, "1"]


@needs_masks
@pytest.mark.parametrize(
    "environment", [{}, {"OMP_PROC_BIND": "FALSE"}, {"KMP_AFFINITY": "verbose,none"}, {"OMP_PLACES": ""}], ids=repr
)
def test_a_thread_that_the_program_binds_stays_on_its_core(environment):
    assert run(PINNED, **environment) == ["1", "1", "1", "1"]


def test_systems_without_masks_have_all_cores(monkeypatch):
    """macOS and Windows have no function that tells or sets the mask of a thread, and no /proc."""
    from randfeat._numpy import cores, threads

    monkeypatch.setenv("OMP_PROC_BIND", "true")
    monkeypatch.delenv("RANDFEAT_NUM_THREADS", raising=False)
    for name in ("sched_getaffinity", "sched_setaffinity"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert cores.usable_cores() == set()
    assert threads.resolve_num_threads(None) == 3
    done = []
    threads.run_tasks([lambda _: done.append(1)] * 5, list, 2)
    assert len(done) == 5

    def missing(_):
        raise FileNotFoundError

    monkeypatch.setattr(os, "listdir", missing)
    assert cores.thread_ids() == []


@needs_masks
@pytest.mark.parametrize("libraries", ["torch, numpy", "numpy, torch"])
def test_openmp_may_bind_the_main_thread(libraries):
    pytest.importorskip("torch", reason="its OpenMP library binds the main thread")
    script = f"""
        import os
        before = os.sched_getaffinity(0)
        import {libraries}
        from randfeat._numpy.cores import usable_cores
        print(usable_cores() == before)
    """
    assert run(script, OMP_PROC_BIND="true") == ["True"]


@needs_masks
def test_a_process_bound_to_one_core_uses_one_thread():
    script = """
        import os
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        from randfeat._numpy.threads import resolve_num_threads
        print(resolve_num_threads(None))
    """
    assert run(script, OMP_PROC_BIND="true") == ["1"]


def test_blas_has_its_threads_again_after_many_interrupts():
    """Interrupts arrive from a second thread, in every phase of a call; each call leaves BLAS as it was."""
    script = """
        import signal, threading, time
        from threadpoolctl import ThreadpoolController
        import numpy
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from randfeat._numpy.threads import run_tasks
        blas = ThreadpoolController().select(user_api="blas")
        for library in blas.lib_controllers:
            library.set_num_threads(2)
        sending = threading.Event()
        ready = threading.Event()
        done = False
        def send():
            while True:
                ready.wait()
                if done:
                    return
                time.sleep(pause)
                for _ in range(3):
                    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                    time.sleep(0.0005)
                ready.clear()
                sending.set()
        sender = threading.Thread(target=send)
        sender.start()
        interrupted = 0
        def once():
            global interrupted
            try:
                run_tasks([lambda _: time.sleep(0.004)] * 6, list, 2)
            except KeyboardInterrupt:
                interrupted += 1
        for trial in range(60):
            pause = trial * 0.00005
            sending.clear()
            ready.set()
            while not sending.is_set():
                try:
                    once()
                except KeyboardInterrupt:
                    interrupted += 1
            try:
                time.sleep(0.002)
            except KeyboardInterrupt:
                interrupted += 1
            assert {library.num_threads for library in blas.lib_controllers} == {2}, trial
        done = True
        ready.set()
        sender.join()
        print(interrupted > 60)
    """
    assert run(script) == ["True"]


CALLS = """
    import select, signal, sys, threading, time
    import numpy as np, randfeat as rf
    from threadpoolctl import ThreadpoolController
    blas = ThreadpoolController().select(user_api="blas").lib_controllers
    for library in blas:
        library.set_num_threads(2)
    inside = False
    def interrupt(*_):
        if inside:
            raise KeyboardInterrupt
    signal.signal(signal.SIGINT, interrupt)
    q, k, v = np.random.default_rng(0).standard_normal((3, 4, 4096, 16), dtype=np.float32)
    phi = rf.PositiveFeatures().draw(dim=16, num_features=64, rng=0, like=q)
    def call():
        global inside
        inside = True
        out = rf.linear_attention(q, k, v, phi, is_causal=True, num_threads=3)
        inside = False
        return out
    expected = call()
    interrupted = 0
    for trial in range(40):
        print("ready", flush=True)
        while not select.select([sys.stdin], [], [], 0)[0]:
            try:
                call()
            except KeyboardInterrupt:
                inside = False
                interrupted += 1
        sys.stdin.readline()
        assert [library.num_threads for library in blas] == [2] * len(blas), trial
        end = time.monotonic() + 30
        while threading.active_count() > 1 and time.monotonic() < end:
            time.sleep(0.001)
        assert threading.active_count() == 1, trial
    print(interrupted, np.array_equal(call(), expected))
"""


def test_interrupts_from_outside_leave_nothing_behind():
    """Three SIGINT at random moments of calls of attention, 40 times: BLAS is as it was, and no thread is left."""
    rng = random.Random(0)
    script = [sys.executable, "-c", textwrap.dedent(CALLS)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(script, env=without_limits(), text=True, **pipes) as process:
        line = process.stdout.readline()
        while line.strip() == "ready":
            for _ in range(3):
                time.sleep(rng.choice([1e-4, 1e-3, 2e-2]) * rng.random())
                process.send_signal(signal.SIGINT)
            process.stdin.write("next\n")
            process.stdin.flush()
            line = process.stdout.readline()
        interrupted, same = line.split() or (0, process.stderr.read())
    assert same == "True", same
    assert int(interrupted) > 40


@pytest.mark.parametrize("interrupts", [1, 2, 3])
def test_an_interrupt_ends_no_call_before_blas_is_restored(interrupts, monkeypatch):
    """Interrupts in the wait for the workers, and in each step of the restoration itself."""
    from randfeat._numpy import threads

    class Library:
        num_threads = 4
        left = interrupts

        def set_num_threads(self, number):
            if number == 4 and self.left:
                self.left -= 1
                raise KeyboardInterrupt
            self.num_threads = number

    library, hold = Library(), threads.BlasHold()
    monkeypatch.setattr(threads, "HOLD", hold)
    monkeypatch.setattr(threads, "controller", lambda: type("", (), {"lib_controllers": [library]}))

    def interrupted():
        raise KeyboardInterrupt

    def call():
        with threads.Workers(list, 2) as workers:
            assert library.num_threads == 1
            workers.pool = type("", (), {"shutdown": staticmethod(interrupted)})

    with pytest.raises(KeyboardInterrupt):
        call()
    assert library.num_threads == 4
    assert not library.left
    assert not hold.holders


def test_a_context_that_is_never_left_ends_with_its_object(monkeypatch):
    """An interrupt may arrive before the first line of `__exit__`."""
    from randfeat._numpy import threads

    hold = threads.BlasHold()
    monkeypatch.setattr(threads, "HOLD", hold)
    workers = threads.Workers(list, 2)
    workers.__enter__()
    assert hold.holders
    del workers
    assert not hold.holders


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_number_of_threads_is_none_given(text, monkeypatch):
    from randfeat._numpy.threads import resolve_num_threads

    monkeypatch.delenv("RANDFEAT_NUM_THREADS", raising=False)
    expected = resolve_num_threads(None)
    monkeypatch.setenv("RANDFEAT_NUM_THREADS", text)
    assert resolve_num_threads(None) == expected


@pytest.mark.parametrize("number", [1, 2, 3])
def test_after_an_error_no_further_task_starts(number):
    """One task raises as soon as all threads have one. Of 300 tasks of 10 ms the others begin a few more at most."""
    from randfeat._numpy.threads import run_tasks

    started, all_busy = [], threading.Barrier(number)

    def fails(_):
        started.append("fails")
        all_busy.wait(timeout=60)
        raise ArithmeticError("no luck")

    def first(_):
        started.append("first")
        all_busy.wait(timeout=60)

    def later(_):
        started.append("later")
        time.sleep(0.01)

    with pytest.raises(ArithmeticError, match="no luck"):
        run_tasks([fails, *[first] * (number - 1), *[later] * 300], list, number)
    assert started.count("later") < (1 if number == 1 else 150)
    done = []
    run_tasks([lambda _: done.append(1)] * 5, list, number)
    assert len(done) == 5
