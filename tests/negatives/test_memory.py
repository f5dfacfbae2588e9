"""A corpus that does not fit in memory is searched from disk, chunk by chunk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROWS, WIDTH = 1_000_000, 64
SCRIPT = """
import resource, sys
import numpy as np
from curation.negatives import search
from curation.negatives.mining import mine_hard_negatives

rows, width, how = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
corpus = np.memmap(sys.argv[1], np.float16, "r", shape=(rows, width))
search._CHUNK_BYTES = 32 * 1024 * 1024
anchors = np.asarray(corpus[:2], np.float32)
mine_hard_negatives(anchor_embeddings=anchors, corpus_embeddings=corpus[:10], positives=[0, 1])
held = int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1]) * 1024
# What a process writes to counts, a file that is mapped for reading does not.
limit = held + rows * width * 2
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
if how == "whole":
    corpus = np.asarray(corpus, np.float32)
mined = mine_hard_negatives(
    anchor_embeddings=anchors, corpus_embeddings=corpus, positives=[0, 1], num_negatives=1, index="flat"
)
print(mined.negatives.ravel().tolist())
"""


@pytest.fixture(scope="module")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.f16"
    block = np.random.default_rng(0).standard_normal((100_000, WIDTH)).astype(np.float32)
    block /= np.linalg.norm(block, axis=1, keepdims=True)
    with path.open("wb") as file:
        for _ in range(ROWS // len(block)):
            file.write(block.astype(np.float16).tobytes())
    return path


def searched(path: Path, how: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT, str(path), str(ROWS), str(WIDTH), how]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's count of a process's memory")
def test_a_corpus_larger_than_memory_is_streamed(corpus_file: Path) -> None:
    whole = searched(corpus_file, "whole")
    assert "MemoryError" in whole.stderr
    streamed = searched(corpus_file, "streamed")
    # The corpus repeats every 100,000 rows: the nearest that is no positive is the first copy of the anchor.
    assert streamed.stdout.strip() == "[100000, 100001]", streamed.stderr
