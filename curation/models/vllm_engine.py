"""vLLM's engine in this process: started in one place, ended when its step is. Imports vLLM when it is called."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from curation.errors import MissingExtraError
from curation.lifetimes import end_later

__all__ = ["require_vllm", "start_vllm"]


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

    engine = LLM(**options, trust_remote_code=False)
    end_later(engine.llm_engine.engine_core.shutdown)
    return engine
