"""A coverage-guided fuzzer (atheris, libFuzzer) over ``targets``.

    python -m tests.fuzz.fuzz replies --seconds 600

It does not stop at what it finds: each new fault is kept as a file (``--keep``, by default the folder ``found`` of
the tests, where the tests try it again) and named once, an input of more than ``--timeout`` seconds of processor
time among them; a hang inside C or a crash of the interpreter ends it. The last line is JSON: executions, edges
covered, faults. Exit status 0 means none.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=int(os.environ.get("FUZZ_SECONDS", "600")))
    parser.add_argument("--timeout", type=int, default=20)
    parser.add_argument("--memory-mb", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=HERE / "found")
    parser.add_argument("--corpus", type=Path, default=None, help="kept between runs; default: a new one each time")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


# ---- the process that fuzzes -------------------------------------------------------------------------------


class Findings:
    """Each fault once, by the kind of exception and the line that raised it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: set[str] = set()

    def note(self, error: BaseException, data: bytes) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f for f in frames if str(ROOT) in f.filename and "site-packages" not in f.filename] or frames
        place = f"{Path(ours[-1].filename).relative_to(ROOT) if ours else '?'}:{ours[-1].lineno if ours else 0}"
        name = f"{type(error).__name__} at {place}"
        if name in self._seen:
            return
        self._seen.add(name)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / hashlib.sha256(data).hexdigest()[:12]
        path.write_bytes(data)
        sys.stderr.write(f"FOUND {name}: {str(error)[:160]!r} -> {path}\n")


def fuzz(options: argparse.Namespace) -> None:
    import atheris

    with atheris.instrument_imports(include=["curation", "yaml", "json", "jinja2"], exclude=["curation.embedded"]):
        from tests.fuzz.targets import TARGETS

        target = TARGETS[options.target]
        from tests.fuzz.seeds import seeds

        for seed in seeds(options.target):
            # Imported now, so that every module is instrumented before the first count.
            target(seed)
    findings = Findings(options.keep / options.target)
    # By the processor's clock: a machine that is busy, or stopped for a while, is no hang.
    signal.signal(signal.SIGPROF, _hanging)

    def one_input(data: bytes) -> None:
        signal.setitimer(signal.ITIMER_PROF, options.timeout)
        try:
            target(data)
        except BaseException as error:  # a panic in polars is no Exception
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            findings.note(error, data)

    atheris.Setup(sys.argv[:1] + libfuzzer_arguments(options), one_input)
    atheris.Fuzz()


def _hanging(signum: int, frame: Any) -> None:
    raise TimeoutError("this input takes too long")


def libfuzzer_arguments(options: argparse.Namespace) -> list[str]:
    return [
        str(options.corpus),
        f"-max_total_time={options.seconds}",
        f"-timeout={max(600, 2 * options.timeout)}",
        "-report_slow_units=100000",
        f"-rss_limit_mb={options.memory_mb}",
        f"-seed={options.seed}",
        f"-dict={options.corpus}.dict",
        f"-artifact_prefix={options.corpus}-crash-",
        "-max_len=4096",
        "-print_final_stats=1",
        "-verbosity=1",
    ]


# ---- the process that counts -------------------------------------------------------------------------------


def main() -> int:
    options = parsed()
    if options.child:
        fuzz(options)
        return 0
    with tempfile.TemporaryDirectory(prefix="fuzz-corpus-") as folder:
        corpus = options.corpus or Path(folder) / options.target
        _fill(corpus, options.target)
        (options.keep / options.target).mkdir(parents=True, exist_ok=True)
        before = {path.name for path in (options.keep / options.target).glob("*")}
        command = [sys.executable, "-m", "tests.fuzz.fuzz", options.target, "--child", "--corpus", str(corpus)]
        for name in ("seconds", "timeout", "memory_mb", "seed", "keep"):
            command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
        started = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        text = done.stderr.decode("utf-8", "replace")
        for path in corpus.parent.glob(f"{corpus.name}-crash-*"):
            # A hang or a crash of the interpreter: libFuzzer wrote the input down before it ended.
            path.replace(options.keep / options.target / path.name.removeprefix(f"{corpus.name}-crash-"))
        report = _report(text, options, time.monotonic() - started)
        report["inputs kept"] = len(list(corpus.glob("*")))
        report["faults"] = sorted(
            path.name for path in (options.keep / options.target).glob("*") if path.name not in before
        )
    sys.stderr.write("".join(f"{line}\n" for line in text.splitlines() if line.startswith("FOUND")))
    if done.returncode:
        sys.stderr.write(text[-4000:])
    sys.stdout.write(json.dumps(report) + "\n")
    return int(bool(report["faults"]) or done.returncode != 0)


def _fill(corpus: Path, target: str) -> None:
    from tests.fuzz.seeds import WORDS, seeds

    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds(target)):
        (corpus / f"seed-{number}").write_bytes(data)
    escaped = (word.replace("\\", "\\\\").replace('"', '\\"') for word in WORDS[target])
    Path(f"{corpus}.dict").write_text("".join(f'"{word}"\n' for word in escaped))


def _report(text: str, options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    def last(pattern: str) -> int:
        found = re.findall(pattern, text)
        return int(found[-1]) if found else 0

    return {
        "target": options.target,
        "seconds": round(seconds),
        "executions": last(r"stat::number_of_executed_units:\s*(\d+)") or last(r"#(\d+)"),
        "edges": last(r"cov: (\d+)"),
        "features": last(r"ft: (\d+)"),
        "slowest input (s)": last(r"stat::slowest_unit_time_sec:\s*(\d+)"),
        "peak memory (MB)": last(r"stat::peak_rss_mb:\s*(\d+)"),
    }


if __name__ == "__main__":
    sys.exit(main())
