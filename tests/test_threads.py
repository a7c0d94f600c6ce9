"""Threads of the NumPy paths: the cores they use, and the limit of BLAS that ends with every call."""

import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest

needs_masks = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two cores, and a system that binds threads to cores",
)


def run(script, **environment):
    """What a script prints in a process of its own."""
    limits = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RANDFEAT_NUM_THREADS", "OMP_PROC_BIND")
    clean = {name: value for name, value in os.environ.items() if name not in limits}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


@needs_masks
def test_a_pinned_main_thread_leaves_the_other_cores_to_the_workers():
    script = """
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
        print(resolve_num_threads(None) == len(before))
        run_tasks([task] * 2, list, 2)
        print(masks.pop(threading.get_ident()) == {max(before)}, list(masks.values()) == [before])
        stop.set()
    """
    assert run(script) == ["True"] * 3


@needs_masks
@pytest.mark.parametrize("libraries", ["torch, numpy", "numpy, torch"])
def test_openmp_may_bind_the_main_thread(libraries):
    pytest.importorskip("torch", reason="its OpenMP library binds the main thread")
    script = f"""
        import os
        before = os.sched_getaffinity(0)
        import {libraries}
        from randfeat._numpy.cores import process_cores
        print(process_cores() == before)
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
