"""The Ray cluster of a run: one that is there, or one that is started for the run and ended with it.

What is computed there is in :mod:`curation.engine_ray`. Ray says nothing on the terminal and sends no usage
statistics, and the handlers of signals stay the run's own.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from curation.errors import EngineError, MissingExtraError, RecipeError
from curation.recipe.ray import Ray, RayWorkers

__all__ = ["Cluster"]

_SECONDS_TO_ANSWER: Final = 5.0
_GB: Final = 1e9
_OUR_WAY: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_TQDM_PATCH_PRINT": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",
}
"""Set before Ray is imported, where they are not set already."""


@dataclass
class Cluster:
    """Connected to on first use, so that a run with nothing to compute starts nothing."""

    options: Ray
    _ray: Any = None
    _ours: bool = False

    def connected(self) -> Any:
        """The module ``ray``, connected.

        Raises:
            EngineError: when the cluster cannot be reached, or none can be started here.
            MissingExtraError: when Ray is not installed.
        """
        if self._ray is None:
            ray = _import_ray()
            if not ray.is_initialized():
                with _own_signal_handlers():
                    _connect(ray, self.options)
                self._ours = True
            self._ray = ray
        _silence(self._ray)
        return self._ray

    def close(self) -> None:
        """Leave the cluster; end it if it was started for this run."""
        if self._ray is not None and self._ours:
            with _own_signal_handlers():
                self._ray.shutdown()
        self._ray, self._ours = None, False

    def most_workers(self, workers: RayWorkers) -> int:
        """How many workers the cluster has room for; a CPU is left for what reads and writes.

        Raises:
            EngineError: when no node is large enough for one.
        """
        room = 0
        nodes = [node["Resources"] for node in self.connected().nodes() if node["Alive"]]
        for node in nodes:
            fits = [float("inf")]
            for name, each in _needed(workers).items():
                fits.append(node.get(name, 0.0) / each + 1e-9)
            room += int(min(fits))
        if room == 0:
            raise EngineError(
                f"no node of the Ray cluster is large enough for a worker with {_shown(_needed(workers))}: its "
                f"{len(nodes)} nodes have at most {_shown(_largest(nodes))}; ask for less under ray.workers or "
                f"ray.steps, or add a node"
            )
        cpus = sum(node.get("CPU", 0.0) for node in nodes)
        if workers.cpus:
            room = min(room, int((cpus - 1) / workers.cpus + 1e-9))
        return max(room, 1)

    def needed(self, workers: RayWorkers) -> str:
        """What one worker takes, in words."""
        return _shown(_needed(workers))

    def free(self) -> str:
        """What is free at the moment, in words."""
        available = self.connected().available_resources()
        return _shown({name: available.get(name, 0.0) for name in ("CPU", "GPU", "memory")})


def _import_ray() -> Any:
    for name, value in _OUR_WAY.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("Ray", "ray") from error
    return ray


def _silence(ray: Any) -> None:
    """No bars, lines or warnings of Ray's own: progress is the run's, and what goes wrong is one of its errors."""
    warnings.filterwarnings("ignore", module=r"ray(\.|$)")
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # A thread of Ray's that comes late must not connect again to a cluster that the run has left.
    ray._private.auto_init_hook.enable_auto_connect = False
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.enable_auto_log_stats = False
    context.raise_original_map_exception = True


def _connect(ray: Any, options: Ray) -> None:
    settings: dict[str, Any] = {
        "logging_level": logging.ERROR,
        "log_to_driver": False,
        "configure_logging": True,
        "include_dashboard": False if options.address is None else None,
    }
    if options.address is None:
        settings |= {"address": "local", "num_cpus": options.cpus}
        if options.object_store_gb is not None:
            settings["object_store_memory"] = int(options.object_store_gb * _GB)
    else:
        _check_address(options.address)
        settings["address"] = options.address
    try:
        ray.init(**settings)
    except (ConnectionError, RuntimeError, ValueError, OSError, TimeoutError) as error:
        found = " ".join(str(error).split())[:200]
        where = "no Ray could be started here" if options.address is None else f"ray.address {options.address!r}"
        raise EngineError(
            f"{where}: {found}. Start a cluster with `ray start --head`, run on one of its nodes with the same "
            f"versions of Python and Ray, or leave ray.address out"
        ) from error


def _check_address(address: str) -> None:
    """Ray itself waits for a minute and then ends the process when nobody is there."""
    if "://" in address:
        raise RecipeError(
            f"ray.address {address!r}: expected host:port or auto; run on a node of the cluster, for instance with "
            f"`ray job submit -- curation run RECIPE --engine ray`"
        )
    host, _, port = address.rpartition(":")
    if address in ("auto", "local") or not host:
        if address != "auto":
            raise RecipeError(f"ray.address {address!r}: expected host:port (Ray's own port is 6379) or auto")
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_ANSWER).close()
    except (OSError, ValueError, OverflowError) as error:
        raise EngineError(
            f"ray.address {address!r}: nobody answers there ({error}); start the cluster with `ray start --head "
            f"--port=6379` and give its address, or leave ray.address out"
        ) from error


@contextlib.contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Ray takes SIGTERM for itself when it starts; this gives it back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _needed(workers: RayWorkers) -> dict[str, float]:
    """What one worker takes of each resource, by Ray's names."""
    memory = 0.0 if workers.memory_gb is None else workers.memory_gb * _GB
    wanted = {"CPU": workers.cpus, "GPU": workers.gpus, "memory": memory}
    return {name: each for name, each in wanted.items() if each}


def _largest(nodes: list[dict[str, float]]) -> dict[str, float]:
    return {name: max((node.get(name, 0.0) for node in nodes), default=0.0) for name in ("CPU", "GPU", "memory")}


def _shown(resources: dict[str, float]) -> str:
    names = {"CPU": "CPU", "GPU": "GPU", "memory": "GB memory"}
    parts = [f"{value / (_GB if name == 'memory' else 1):g} {names[name]}" for name, value in resources.items()]
    return ", ".join(parts)
