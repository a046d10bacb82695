"""What gates cost while a model answers: python -m tests.benchmarks.chatting [--tokens 128] [--rounds 5] [RUN_FOLDER].

The default base model with an adapter (RUN_FOLDER's, else a new one of 3 heads with random numbers) answers greedily.
Rounds take turns: without a look at the gates; with gates and alternatives, as the chat records them; and as the page
shows them. Told are tokens a second as ratios to the first, how long another adapter on the same base takes, and the
memory of the process before anything is loaded, with it, and when it is let go.
"""

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from app.actions.chat.answers import Turn
from app.actions.chat.asking import ALTERNATIVES, Asked
from app.actions.chat.columns import columns
from app.actions.chat.streamed import updates
from app.services import Services
from hydralora.data.demo import demo_file
from hydralora.data.encoding import encode_prompt
from hydralora.inference.generation import Sampling, Token, generate
from hydralora.models.catalogue import DEFAULT_MODEL
from hydralora.recipe.reading import parse_recipe
from hydralora.runs.jobs import JobManager

QUESTION = "Tell me a long story of a sailor who finds an island, with every detail you know."


def plain(services: Services, run_id: str, tokens: int) -> int:
    """The same model and cache, no gates recorded."""
    loaded = services.loaded(run_id)
    ids = torch.tensor([encode_prompt(loaded.tokenizer, [{"role": "user", "content": QUESTION}])])
    cache = None
    for _ in range(tokens):
        with torch.inference_mode():
            output = loaded.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache, ids = output.past_key_values, output.logits[:, -1].float().argmax(-1)[None]
    return tokens


def recorded(services: Services, run_id: str, tokens: int) -> int:
    loaded = services.loaded(run_id)
    asked = [{"role": "user", "content": QUESTION}]
    read: list[Token] = []
    told = generate(
        loaded.model,
        loaded.tokenizer,
        asked,
        Sampling(tokens),
        alternatives=ALTERNATIVES,
        on_prompt=read.extend,
    )
    return len(list(told))


def shown(services: Services, run_id: str, tokens: int) -> int:
    asked = Asked(services, columns(services, [], run_id, ""), [], Turn(QUESTION), Sampling(tokens))
    answer = services.answers.get(asked.turn.answers["run"])
    for _ in asked.run():
        list(updates(answer, 0))
    return len(answer.tokens)


WAYS: dict[str, Callable[[Services, str, int], int]] = {"plain": plain, "recorded": recorded, "shown": shown}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        services = Services(Path(folder) / "workspace")
        runs = [short_run(services.jobs, seed) for seed in (0, 1)]
        memory = [resident()]
        for way in WAYS.values():
            way(services, runs[0], 8)
        memory.append(resident())
        speeds: dict[str, list[float]] = {name: [] for name in WAYS}
        for _ in range(chosen.rounds):
            for name, way in WAYS.items():
                began = time.monotonic()
                count = way(services, runs[0], chosen.tokens)
                speeds[name].append(count / (time.monotonic() - began))
        for name, found in speeds.items():
            ratios = [own / base for own, base in zip(found, speeds["plain"], strict=True)]
            print(
                f"{name:10} {statistics.median(found):6.1f} tokens/s, {statistics.median(ratios):.2f} of plain "
                f"({min(ratios):.2f} to {max(ratios):.2f})"
            )
        began = time.monotonic()
        services.loaded(runs[1])
        first = time.monotonic() - began
        began = time.monotonic()
        services.loaded(runs[0])
        print(f"another adapter on the same base: {first:.2f} s; back to the first: {time.monotonic() - began:.3f} s")
        services.release()
        gc.collect()
        memory.append(resident())
        print("memory: {:.0f} MB before, {:.0f} MB loaded, {:.0f} MB let go".format(*memory))
        services.close()


def resident() -> float:
    """Megabytes of this process in memory."""
    return psutil.Process().memory_info().rss / 2**20


def short_run(jobs: JobManager, seed: int) -> str:
    """A run of one step."""
    recipe = {
        "model": DEFAULT_MODEL,
        "data": {"train": str(demo_file("heldout")), "eval_fraction": 0.05},  # the fewer rows
        "tuner": {"num_heads": 3, "router_init": "random"},
        "training": {"max_steps": 1, "eval_every": 0, "sample_prompts": 0, "snapshots": 0, "seed": seed},
    }
    run = jobs.start(parse_recipe(recipe))
    assert jobs.follow(run).state == "finished"
    return run.id


if __name__ == "__main__":
    main()
