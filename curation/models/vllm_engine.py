"""vLLM's engine in this process: started in one place, ended when its step is. Imports vLLM when it is called."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Final

from curation.errors import MissingExtraError
from curation.lifetimes import end_later

__all__ = ["require_vllm", "start_vllm"]

_MOST_CPU_CACHE: Final = 4 << 30


def require_vllm() -> None:
    """
    Raises:
        MissingExtraError: when vLLM is not installed.
    """
    if find_spec("vllm") is None:
        raise MissingExtraError("vllm", "vllm")


def start_vllm(**options: Any) -> Any:
    """A ``vllm.LLM``; its processes end with the step that asked for it (see ``curation.lifetimes``).

    Args:
        **options: of ``vllm.LLM``. Remote code is never run.

    Raises:
        MissingExtraError: when vLLM is not installed.
        RuntimeError, ValueError, OSError: when vLLM cannot load the model.
    """
    require_vllm()
    from vllm import LLM

    engine = LLM(**(_cpu_cache() | options), trust_remote_code=False)
    end_later(engine.llm_engine.engine_core.shutdown)
    return engine


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
