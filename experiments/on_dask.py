"""Cells spread over the workers of a Dask scheduler, found by its address.

The workers import this package and the library, so they need the same checkout and the same versions; a worker that has
other code refuses. Dask gives the cells of a worker that dies to another one, a few times.
"""

import re
import socket
import threading
from collections.abc import Sequence
from typing import Any

from experiments.cells import Cell, Failure, Outcome, Outcomes, attempt, failure
from experiments.provenance import code_digest

ONE_AT_A_TIME = threading.Lock()
TIMEOUT = 10.0  # seconds for the scheduler to answer, and for its first worker to be there


class ClusterUnreachable(Exception):
    """There is no scheduler at the address, or it has no workers; the message is one line."""


def connect(address: str) -> Any:
    """A client of the scheduler, which has at least one worker; close it in the end."""
    from distributed import Client

    parts = re.fullmatch(r"(?:\w+://)?(?P<host>\[[0-9a-fA-F:]+\]|[^:/\[\]]+):(?P<port>\d{1,5})/?", address)
    if parts is None:
        raise ClusterUnreachable(f"expected an address like tcp://127.0.0.1:8786, got {address!r}.")
    try:
        with socket.create_connection((parts["host"].strip("[]"), int(parts["port"])), timeout=TIMEOUT):
            pass
        client = Client(address, timeout=TIMEOUT, set_as_default=False)
    except (OSError, OverflowError) as error:
        raise ClusterUnreachable(f"no Dask scheduler answers at {address}.") from error
    try:
        client.wait_for_workers(1, timeout=TIMEOUT)
    except OSError as error:
        client.close()
        raise ClusterUnreachable(f"the Dask scheduler at {address} has no workers.") from error
    return client


def on_dask(cells: Sequence[Cell], settings: Any, *, client: Any, module: str) -> Outcomes:
    """Measure cells on the cluster: yields position and outcome of each as it is finished.

    module : where the cells come from; workers compare its code.
    """
    from distributed import as_completed

    code = code_digest(module)
    positions = {
        client.submit(remotely, cell, settings, module, code, pure=False): position
        for position, cell in enumerate(cells)
    }
    for future in as_completed(list(positions), loop=client.loop):
        try:
            outcome: Outcome = future.result()
        except Exception as error:  # its workers died, or cannot import the package, or the scheduler is gone
            outcome = failure(error)
        yield positions.pop(future), outcome


def remotely(cell: Cell, settings: Any, module: str, code: str) -> Outcome:
    """One cell on a worker: one at a time in each process, whatever its number of threads, as experiments expect."""
    with ONE_AT_A_TIME:
        if code_digest(module) != code:
            return Failure("the Dask worker has other code of randfeat, or of the experiment, than this machine")
        return attempt(cell, settings)
