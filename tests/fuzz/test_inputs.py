"""Mutated inputs of every kind: an error for people or a result, in bounded time and memory.

HYDRALORA_FUZZ_SECONDS and HYDRALORA_SEED set how long, and which (`make test-faults`).
"""

import multiprocessing
import os
import random
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest
import torch

from hydralora.inference.generation import Alternative, Sampling, Token
from hydralora.inference.traces import AnswerSource, make_trace, save_trace
from hydralora.transfer import export_run
from tests.conftest import FinishedRun
from tests.fuzz.inputs import KINDS, Material

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("HYDRALORA_FUZZ_SECONDS", "40"))  # of all kinds together
SEED = int(os.environ.get("HYDRALORA_SEED", "0"))
HANG = 10.0  # seconds of the processor for one input
MEMORY = 2 * 2**30  # bytes besides those it begins with
FORK = multiprocessing.get_context("spawn")


@pytest.fixture(scope="module")
def material(finished: FinishedRun, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Material:
    folder = tmp_path_factory.mktemp("fuzz")
    export_run(finished.run, "adapter", folder / "whole.zip")
    tokens = [Token(i, "ab", [[0.25, 0.75]] * 2, (Alternative(i, "ab", 0.5),)) for i in range(20)]
    messages = [{"role": "user", "content": "name fruit"}]
    source = AnswerSource("tiny", "0" * 64, "20260101-000000-abcd", "0" * 64)
    save_trace(make_trace(tokens, tokens, ["a", "b"], messages, Sampling(), source), folder / "whole.json")
    return Material(folder, finished.run.folder, folder / "whole.zip", folder / "whole.json", model_folder)


def try_inputs(kind: str, material: Material, seconds: float, pipe: Connection) -> None:
    """Try inputs of a kind, and tell the number of each before it is tried."""
    torch.set_num_threads(1)
    material.folder.mkdir()
    until = time.monotonic() + seconds
    number = 0
    while time.monotonic() < until or number < 3:
        pipe.send(("begin", number))
        try:
            KINDS[kind](material, random.Random(f"{kind} {SEED} {number}"))
        except BaseException:
            pipe.send(("failed", traceback.format_exc()[-6000:]))
            return
        number += 1
    pipe.send(("done", number))


@pytest.mark.parametrize("kind", KINDS)
def test_no_input_ends_it(kind: str, material: Material, tmp_path: Path) -> None:
    own = Material(tmp_path / "own", material.run, material.archive, material.trace, material.model)
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=try_inputs, args=(kind, own, SECONDS / len(KINDS), sender), daemon=True)
    process.start()
    sender.close()
    watched = psutil.Process(process.pid)
    what, value, begun, least = "begin", -1, 0.0, 0
    number = -1
    try:
        while what == "begin":
            if receiver.poll(0.2):
                what, value = receiver.recv()
                if what == "begin":
                    number, begun = value, _processor_seconds(watched)
                    least = least or watched.memory_info().rss
            elif number >= 0:
                assert _processor_seconds(watched) - begun < HANG, f"input {number} of {kind}, seed {SEED}, hangs"
                assert watched.memory_info().rss - least < MEMORY, f"input {number} of {kind}, seed {SEED}: memory"
    except EOFError:
        pytest.fail(f"input {number} of {kind}, seed {SEED}, ended the process")
    finally:
        process.kill()
        process.join()
    assert what == "done", f"input {number} of {kind}, seed {SEED}:\n{value}"
    print(f"{kind}: {value} inputs")


def _processor_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
