"""Hand shards to dask.distributed, which places, repeats and watches them.

A shard is a function of a run and a range, so that a task is these two. Whoever makes it writes one
file into the run's working folder; nothing but what went wrong comes back.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import secrets
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from isoprobe.data.files import split_spec
from isoprobe.errors import IsoprobeError, OptionError, ResultError
from isoprobe.results.working import RUN, Visited, Working, difference

if TYPE_CHECKING:
    from distributed import Client

Make = Callable[[range], None]

_LOCAL = re.compile(r"local:([1-9]\d*)")
#: times that a shard is tried again after an error that is not the input's
_RETRIES = 2
#: has workers give memory back to the system batch by batch, which doubled what a row costs
_TRIM = "MALLOC_TRIM_THRESHOLD_"
#: where dask says what it sets before it starts a worker, in this process's environment as well
_SET = "distributed.nanny.pre-spawn-environ"
#: what a worker's accelerator is called among the resources that dask knows it by
_GPU = "GPU"


class Work(Protocol):
    """A run whose shards can be made wherever its files are seen; it pickles to a few kilobytes."""

    @property
    def device(self) -> str:
        """Where its model runs."""

    def opened(self) -> AbstractContextManager[Make]:
        """Open model and data, and yield what makes a shard of some rows."""


@contextmanager
def _kept(names: Iterable[str]) -> Iterator[None]:
    """Give variables of the environment back as they were."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class Cluster:
    """The workers of a scheduler.

    Args:
        client: connected.
        address: as it was given.
    """

    def __init__(self, client: Client, address: str) -> None:
        self._client, self._address = client, address

    @classmethod
    @contextmanager
    def connected(cls, address: str) -> Iterator[Cluster]:
        """Connect to a scheduler, or start one with workers on this machine.

        Args:
            address: of the scheduler, as ``tcp://host:8786``, or ``local:N`` for N workers here.

        Yields:
            The cluster; what was started here is stopped afterwards.

        Raises:
            OptionError: when dask.distributed is not installed, or nobody answers.
        """
        try:
            import dask
            from distributed import Client, LocalCluster
        except ImportError as error:
            raise OptionError(
                "--cluster needs dask.distributed: pip install 'isoprobe[cluster]'"
            ) from error
        with ExitStack() as stack:
            target: Any = address
            if local := _LOCAL.fullmatch(address):
                stack.enter_context(_kept({*dask.config.get(_SET), "PYTHONHASHSEED"}))
                stack.enter_context(dask.config.set({f"{_SET}.{_TRIM}": None}))
                target = stack.enter_context(
                    LocalCluster(
                        n_workers=int(local[1]),
                        threads_per_worker=1,
                        dashboard_address=":0",
                        silence_logs=logging.ERROR,
                    )
                )
            elif address.startswith("local"):
                raise OptionError(
                    f"--cluster takes local:N with N from 1, or the address of a scheduler, as in "
                    f"tcp://host:8786; found '{address}'."
                )
            try:
                client = stack.enter_context(Client(target))
            except (OSError, ValueError) as error:
                raise OptionError(
                    f"--cluster: no scheduler answers at {address}; start one with 'dask scheduler'"
                ) from error
            yield cls(client, address)

    def make(self, work: Work, ranges: Sequence[range]) -> Generator[range]:
        """Have shards made, whatever workers are lost on the way.

        Args:
            work: the run.
            ranges: rows of each shard.

        Yields:
            The rows of each shard, as they are there.

        Raises:
            IsoprobeError: what a worker says is wrong with the input.
            ResultError: when the scheduler is gone, or workers die of a shard.
        """
        token = secrets.token_hex(8)
        with self.tasks(work.device) as tasks:
            for rows in ranges:
                tasks.add(rows, make_on_worker, work, token, rows)
            for rows, found in tasks:
                if found is not None:
                    raise found
                yield rows

    @contextmanager
    def tasks(self, device: str) -> Iterator[Tasks]:
        """Have calls made by whichever worker is free.

        Args:
            device: where a call computes.

        Yields:
            What takes calls, and gives what they return; those that are left are cancelled.
        """
        tasks = Tasks(self._client, self._address, self._resources(device))
        try:
            yield tasks
        finally:
            tasks.close()

    def _resources(self, device: str) -> dict[str, float] | None:
        """What a task asks of a worker, where workers say that they have accelerators."""
        if not device.startswith("cuda"):
            return None
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        offered = any(_GPU in worker.get("resources", {}) for worker in workers)
        return {_GPU: 1} if offered else None


class Tasks:
    """Calls that workers make; more may be added while what they return comes in.

    Args:
        client: connected.
        address: of the scheduler.
        resources: that each call takes of a worker.
    """

    def __init__(self, client: Client, address: str, resources: dict[str, float] | None) -> None:
        from distributed import as_completed

        self._client, self._address, self._resources = client, address, resources
        self._names: dict[Any, Any] = {}
        self._ended = as_completed(loop=client.loop)

    def add(
        self, name: Any, function: Callable[..., Any], *arguments: Any, priority: int = 0
    ) -> None:
        """Add a call.

        Args:
            name: that its end is told by; several may have one.
            function: importable on every worker.
            arguments: of the call.
            priority: calls of a higher one are made first, then those added earlier.
        """
        future = self._client.submit(
            function,
            *arguments,
            retries=_RETRIES,
            resources=self._resources,
            priority=priority,
            pure=False,
        )
        self._names[future] = name
        self._ended.add(future)

    def drop(self, name: Any) -> None:
        """Cancel the calls of a name, whose ends are not told."""
        dropped = [future for future, own in self._names.items() if own == name]
        for future in dropped:
            del self._names[future]
        self._client.cancel(dropped, force=True)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Yield the name of a call and what it returned or raised, as they end.

        Where workers died of a call, that is a ResultError.

        Raises:
            ResultError: when the scheduler is gone.
        """
        for future in self._ended:
            if future in self._names:
                yield self._names.pop(future), self._returned(future)

    def close(self) -> None:
        """Cancel what has not ended."""
        self._client.cancel(list(self._names), force=True)

    def _returned(self, future: Any) -> Any:
        """What a call returned, or why it never will."""
        from concurrent.futures import CancelledError

        from distributed import KilledWorker

        try:
            return future.result()
        except KilledWorker:
            return ResultError(
                "workers died of it, perhaps for want of memory; give workers more or --memory "
                "less, and add --resume"
            )
        except (CancelledError, OSError) as error:
            raise ResultError(
                f"the scheduler at {self._address} is gone; start it again, and add --resume: "
                "finished shards are kept"
            ) from error
        except Exception as error:  # of the call, each time that it was tried
            return error


def absolute(spec: str) -> str:
    """Return a path, or a data spec with one in it, as other processes find it.

    Args:
        spec: as typed; names of data sets stay as they are.
    """
    path, member = split_spec(spec)
    if not path.exists():
        return spec
    return str(path.resolve()) if member is None else f"{path.resolve()}:{member}"


def require_seen(
    folder: Working | Visited, identity: Mapping[str, Any], own: Mapping[str, Any]
) -> None:
    """Refuse to make shards where the run's folder or its files are not those of the run.

    Args:
        folder: the run's working folder.
        identity: whatever the run's numbers depend on.
        own: the same as found here.

    Raises:
        ResultError: naming what differs.
    """
    if not (folder.folder / RUN).is_file():
        raise ResultError(
            f"sees no {folder.folder}; --out has to lie in a folder that every worker sees"
        )
    found = difference(identity, own)
    if found is not None:
        raise ResultError(f"cannot make shards of this run: {found}; use the same everywhere")


# --------------------------------------------------------------------------- on a worker


class _Held:
    """The run whose shards a worker's process makes: opened once, one shard at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._token = ""
        self._stack = ExitStack()
        self._make: Make | None = None
        atexit.register(self.close)

    def close(self) -> None:
        """Close the run that is open."""
        self._stack.close()
        self._make = None

    def make(self, work: Work, token: str) -> Make:
        """Return what makes a shard of a run, the run before it closed."""
        if self._make is None or token != self._token:
            self.close()
            self._make, self._token = self._stack.enter_context(work.opened()), token
        return self._make


_HELD = _Held()


def make_on_worker(work: Work, token: str, rows: range) -> IsoprobeError | None:
    """Make a shard, on the worker that calls this.

    Args:
        work: the run.
        token: of the run, which is opened once for all its shards.
        rows: of the shard.

    Returns:
        What is wrong with the input, which no other try would mend; None when it is made.
    """
    from distributed import get_worker

    try:
        with _HELD.lock:
            _HELD.make(work, token)(rows)
    except IsoprobeError as error:
        return type(error)(f"worker {get_worker().address}: {error}")
    return None
