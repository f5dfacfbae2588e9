"""vLLM's engine in this process: started in one place, ended when its step is. Imports vLLM when it is called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from threading import Thread
from typing import Any, Final

from curation.errors import MissingExtraError, ModelError
from curation.lifetimes import end_later
from curation.models.weights import LOADING_ERRORS

__all__ = ["EngineOptions", "engine_alive", "require_vllm", "start_vllm"]

_MOST_CPU_CACHE: Final = 4 << 30


@dataclass(frozen=True)
class EngineOptions:
    """Where vLLM runs, by its own names; None for its default. Nothing here changes an answer, or a fingerprint."""

    tensor_parallel_size: int | None = None
    """GPUs that one model is split over."""
    gpu_memory_utilization: float | None = None
    """The share of a GPU's memory that weights and cache get."""
    max_model_len: int | None = None
    """Tokens of prompt and answer together; a longer prompt has a fault."""

    @property
    def given(self) -> dict[str, Any]:
        """What is not left to vLLM."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def require_vllm() -> None:
    """
    Raises:
        MissingExtraError: when vLLM is not installed.
    """
    if find_spec("vllm") is None:
        raise MissingExtraError("vllm", "vllm")


def start_vllm(given: str, **options: Any) -> Any:
    """A ``vllm.LLM``; its processes end with the step that asked for it (see ``curation.lifetimes``).

    Args:
        given: the model as the user wrote it, for an error.
        **options: of ``vllm.LLM``. Remote code is never run.

    Raises:
        MissingExtraError: when vLLM is not installed.
        ModelError: when vLLM cannot load the model.
    """
    require_vllm()
    from vllm import LLM

    try:
        engine = LLM(**(_cpu_cache() | options), trust_remote_code=False)
    except (*LOADING_ERRORS, RuntimeError) as error:
        raise ModelError(f"vLLM cannot load {given!r}: {' '.join(str(error).split())[:300]}") from error
    core = engine.llm_engine.engine_core
    end_later(core.shutdown)
    _wake_who_waits(core)
    return engine


@contextmanager
def engine_alive() -> Iterator[None]:
    """An engine that ends while it is asked in this block (out of memory, most often) is an error of one line.

    Raises:
        ModelError: when it does.
    """
    from vllm.v1.engine.exceptions import EngineDeadError
    from zmq import ZMQError  # its connection, closed while it was written to

    try:
        yield
    except (EngineDeadError, ZMQError):
        raise ModelError(
            "vLLM's engine has ended while it worked; what it wrote before says why. What was finished before is "
            "kept, and the next run goes on from there"
        ) from None


def _wake_who_waits(core: Any) -> None:
    """Tell who waits for an answer that the engine's process has ended.

    vLLM's client (0.32) notices a killed process and ends its reading thread, but whoever waits for that thread
    then waits for ever.
    """
    reader = getattr(core, "output_queue_thread", None)  # none where the engine runs in this process
    if reader is None:
        return
    from vllm.v1.engine.exceptions import EngineDeadError

    answers = core.outputs_queue

    def wake() -> None:
        reader.join()
        answers.put(EngineDeadError())

    Thread(target=wake, daemon=True, name="vllm-engine-ended").start()


def _cpu_cache() -> dict[str, int]:
    """A quarter of the free memory on a CPU, where vLLM asks for 92 % of all, and so starts on idle machines alone.

    Who has set ``VLLM_CPU_KVCACHE_SPACE`` has decided.
    """
    import psutil  # vLLM brings it
    from vllm import envs
    from vllm.platforms import current_platform

    if not current_platform.is_cpu() or envs.VLLM_CPU_KVCACHE_SPACE:
        return {}
    return {"kv_cache_memory_bytes": min(_MOST_CPU_CACHE, psutil.virtual_memory().available // 4)}
