"""The bench: contestants that do the same work, ratios paired by round, bytes counted once. Never a timing."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from hydralora import ConfigError
from hydralora.bench.loop import LoopLayer, loop_over_heads
from hydralora.bench.measure import Rounds, take_turns
from hydralora.bench.memory import kept_bytes, kept_tensors
from hydralora.bench.report import bench_table, run_bench
from hydralora.tuner.model import hydra_layers
from tests.tiny_model import MLP, adapt, shake, tiny_llama

R, N = 4, 3
FLOAT = 4  # bytes


@pytest.mark.parametrize("settings", [{}, {"router_input": "hidden", "router_bias": True}], ids=["latent", "hidden"])
@torch.no_grad()
def test_the_loop_is_the_same_function(settings: dict[str, Any], ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama(), num_heads=5, **settings))
    wanted = model(ids).logits
    looped = loop_over_heads(model)
    assert not hydra_layers(looped)
    assert sum(isinstance(module, LoopLayer) for module in looped.modules()) == 6
    torch.testing.assert_close(looped(ids).logits, wanted, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_loop_competes_on_a_base_in_half_precision_too(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama().to(torch.bfloat16), num_heads=5))
    wanted = model(ids).logits
    found = loop_over_heads(model)(ids).logits
    assert found.dtype == wanted.dtype == torch.bfloat16
    torch.testing.assert_close(found, wanted, atol=5e-2, rtol=5e-2)


def test_ratios_are_paired_by_round() -> None:
    rounds = Rounds({"mine": [1.0, 20.0, 3.0], "rival": [2.0, 40.0, 3.0]})
    assert rounds.ratio("mine", "rival") == {"median": 0.5, "p10": 0.5, "p90": pytest.approx(0.9), "n": 3}


def test_every_contestant_has_a_turn_in_each_round_and_the_first_one_changes() -> None:
    turns: list[tuple[str, int]] = []

    def contestant(name: str, score: float | None) -> Any:
        def turn(number: int) -> float | None:
            turns.append((name, number))
            time.sleep(0.002)
            return score

        return turn

    rounds = take_turns({"a": contestant("a", None), "b": contestant("b", 7.0)}, 3, lambda done, total: None)
    assert turns == [("a", -1), ("b", -1), ("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]
    assert rounds.scores["b"] == [7.0, 7.0, 7.0]
    assert all(seconds >= 0.002 for seconds in rounds.scores["a"])


def lora(r: int = R) -> Any:
    return get_peft_model(tiny_llama(), LoraConfig(r=r, target_modules=MLP))


def test_kept_bytes_count_each_storage_once() -> None:
    class Square(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, labels: torch.Tensor, use_cache: bool) -> Any:
            x = input_ids.float().requires_grad_()
            y = x * 2  # keeps nothing wide
            return type("Output", (), {"loss": (y * y + y.view(-1).sum() * y[0, 0]).sum()})

    ids = torch.zeros(4, 8, dtype=torch.long)
    assert kept_bytes(Square(), ids) == 4 * 8 * 4 + 4  # y, once, and one sum


@pytest.mark.parametrize("router_input", ["latent", "hidden"])
def test_what_is_kept_beside_a_loras_share_is_rank_sized(router_input: str, ids: torch.Tensor) -> None:
    def wide(model: Any) -> int:
        kept = kept_tensors(model, ids).values()
        return sum(tensor.untyped_storage().nbytes() > ids.numel() * N * R * FLOAT for tensor in kept)

    assert wide(adapt(tiny_llama(), r=R, num_heads=N, router_input=router_input)) == wide(lora())
    assert wide(loop_over_heads(adapt(tiny_llama(), r=R, num_heads=N))) > wide(lora())


def test_an_adapter_keeps_hardly_more_than_a_lora(ids: torch.Tensor) -> None:
    ids, settings = ids.repeat(2, 10), {"hidden_size": 256, "intermediate_size": 640}
    llama = tiny_llama(**settings)
    theirs = kept_bytes(get_peft_model(llama, LoraConfig(r=R, target_modules=MLP)), ids)
    loops = kept_bytes(loop_over_heads(adapt(tiny_llama(**settings), r=R, num_heads=N)), ids)
    assert kept_bytes(adapt(tiny_llama(**settings), r=R, num_heads=N), ids) < 1.02 * theirs
    assert loops > 1.3 * theirs


def measured(environment: dict[str, str], *options: str) -> dict[str, Any]:
    """What `hydralora bench --quick --json` prints, with the real base model."""
    command = [sys.executable, "-m", "hydralora.cli", "bench", "--quick", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_quick_bench_runs_and_its_contestants_agree(user_environment: dict[str, str], data_file: Path) -> None:
    report = measured(user_environment, "--data", str(data_file))
    assert report["version"] == 1
    assert set(report["train_step"]) >= {"vs_loop_n3", "vs_loop_n8", "vs_lora", "vs_floor", "n8_vs_n3", "n32_vs_n3"}
    assert set(report["throughput"]) == {"demo", data_file.name}
    ratios = [report["train_step"]["vs_lora"], report["decode"]["vs_base"], *report["throughput"].values()]
    assert all(0 < ratio["p10"] <= ratio["median"] <= ratio["p90"] and ratio["n"] >= 1 for ratio in ratios)
    assert report["memory"]["vs_lora"]["median"] < 1.05  # bytes are counted, not timed
    wanted = {"ours_zero_heads_vs_base", "ours_vs_loop_n3", "ours_vs_loop_n8", "ours_vs_lora_n1"}
    assert set(report["agreement"]) == wanted
    assert report["agreement"]["ours_zero_heads_vs_base"] == 0
    assert max(report["agreement"].values()) < 1e-4


def test_an_unknown_part_is_refused_before_anything_is_measured() -> None:
    with pytest.raises(ConfigError, match=r"no part .speed. of the bench\. Choose among train_step"):
        run_bench(only=["memory", "speed"])


@pytest.mark.slow
def test_a_part_can_be_measured_alone(user_environment: dict[str, str]) -> None:
    report = measured(user_environment, "--only", "memory")
    assert {"train_step", "decode", "throughput"}.isdisjoint(report)
    table = bench_table(report)
    assert "memory vs_lora" in table
    assert "decode" not in table.splitlines()[1]
