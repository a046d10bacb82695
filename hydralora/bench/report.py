"""The whole bench: every contest, its ratios, and the measuring conditions."""

import os
import platform
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hydralora.bench.contestants import DROPOUT, TARGETS, Field, R, agreement, floor_step, training_step
from hydralora.bench.decode import generated, streamed
from hydralora.bench.measure import Rounds, take_turns
from hydralora.bench.memory import kept_bytes
from hydralora.bench.throughput import loops_on
from hydralora.data.demo import demo_file
from hydralora.errors import ConfigError, ModelError
from hydralora.models.catalogue import DEFAULT_MODEL, find_model
from hydralora.models.device import describe_device, pick_device

CURVE = (1, 2, 3, 4, 8, 16, 32)  # numbers of heads
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}  # of contestants with equal weights: only rounding
OnProgress = Callable[[str, int, int], None]
Turn = Callable[[int], None]
PARTS = ("train_step", "memory", "decode", "throughput")


@dataclass(frozen=True)
class Size:
    """The size of the measurements. `blocks` cuts the model's depth; None keeps all blocks."""

    blocks: int | None = None
    batch: int = 4
    tokens: int = 128
    rounds: int = 21
    curve_rounds: int = 7
    curve: tuple[int, ...] = CURVE
    decode_rounds: int = 21
    decode_tokens: int = 64
    loop_rounds: int = 4
    loop_steps: int = 10


FULL = Size()
QUICK = Size(
    blocks=3,
    tokens=64,
    rounds=2,
    curve_rounds=1,
    curve=(3, 32),
    decode_rounds=2,
    decode_tokens=12,
    loop_rounds=1,
    loop_steps=2,
)


def run_bench(
    quick: bool = False,
    files: Sequence[Path] = (),
    on_progress: OnProgress = lambda what, done, total: None,
    only: Collection[str] = PARTS,
) -> dict[str, Any]:
    """Measure training step, memory, decoding and whole training loops, as ratios between contestants.

    Args:
        quick: a model of 3 blocks and few rounds, to check that everything runs; its ratios mean little.
        files: datasets for whole training loops, besides the demo's.
        on_progress: called with the current contest, the round, and the number of rounds.
        only: the parts to measure, of train_step, memory, decode and throughput.

    Returns:
        The ratios as {median, p10, p90, n}, ours / rival's: of seconds (lower is better) for train_step, of bytes for
        memory, of tokens/s (higher is better) for decode and throughput.

    Raises:
        HydraError: the base model or a file can't be used, `only` names an unknown part, or contestants disagree.
    """
    unknown = sorted(set(only) - set(PARTS))
    if unknown:
        raise ConfigError(f"There is no part {unknown[0]!r} of the bench. Choose among {', '.join(PARTS)}.")
    size, device = QUICK if quick else FULL, pick_device()
    field = Field(size.blocks, device)
    differences = agreement(field, field.ids(2, 32))
    if max(differences.values()) > TOLERANCE[field.base.dtype]:
        raise ModelError(f"The contestants' logits differ: {differences}. Their times can't be compared.")
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "train_step": lambda: _train_steps(field, size, on_progress),
        "memory": lambda: _memory(field, size),
        "decode": lambda: _decode(field, size, on_progress),
        "throughput": lambda: {
            name: _throughput(field, path, size, partial(on_progress, f"training loop on {name}"))
            for name, path in _files(files)
        },
    }
    measured = {name: measure() for name, measure in parts.items() if name in only}
    return measured | {
        "agreement": differences,
        "conditions": _conditions(field, size, device, quick),
    }


def _train_steps(field: Field, size: Size, on_progress: OnProgress) -> dict[str, Any]:
    """Three contests, so that contestants whose ratio is taken have their turns close together."""
    ids = field.ids(size.batch, size.tokens)

    def ours(num_heads: int) -> Turn:
        return training_step(field.ours(num_heads, lora_dropout=DROPOUT), ids)

    def loop(num_heads: int) -> Turn:
        return training_step(field.loop(num_heads, lora_dropout=DROPOUT), ids)

    def contest(name: str, contestants: dict[str, Turn], rounds: int) -> Rounds:
        return take_turns(contestants, rounds, partial(on_progress, f"training step, {name}"))

    floor, lora = floor_step(field.bare(), ids), training_step(field.lora(lora_dropout=DROPOUT), ids)
    few = contest("3 heads", {"floor": floor, "ours": ours(3), "lora": lora, "loop": loop(3)}, size.rounds)
    many = contest("8 heads", {"ours 3": ours(3), "ours": ours(8), "loop": loop(8)}, size.rounds)
    curve = contest("curve", {"lora": lora} | {f"ours {n}": ours(n) for n in size.curve}, size.curve_rounds)
    return {
        "vs_loop_n3": few.ratio("ours", "loop"),
        "vs_loop_n8": many.ratio("ours", "loop"),
        "vs_lora": few.ratio("ours", "lora"),
        "vs_floor": few.ratio("ours", "floor"),
        "lora_vs_floor": few.ratio("lora", "floor"),
        "n8_vs_n3": many.ratio("ours", "ours 3"),
        "n32_vs_n3": curve.ratio("ours 32", "ours 3"),
        "curve": [[n, curve.ratio(f"ours {n}", "lora")] for n in size.curve],
    }


def _memory(field: Field, size: Size) -> dict[str, Any]:
    ids = field.ids(size.batch, size.tokens)
    models = {"ours": field.ours(3), "loop": field.loop(3), "lora": field.lora()}
    saved = {name: kept_bytes(model, ids) for name, model in models.items()}
    counted = {"p10": None, "p90": None, "n": 1}  # bytes are exact, so there is no spread
    return {
        "vs_lora": {"median": saved["ours"] / saved["lora"]} | counted,
        "loop_vs_lora": {"median": saved["loop"] / saved["lora"]} | counted,
        "bytes": saved,
    }


def _decode(field: Field, size: Size, on_progress: OnProgress) -> dict[str, Any]:
    tokenizer, count = field.tokenizer, size.decode_tokens
    contestants = {
        "base": generated(field.bare(), tokenizer, count),
        "ours": streamed(field.ours(3, effective=True).eval(), tokenizer, count),
        "lora": generated(field.lora().eval(), tokenizer, count),
        "loop": generated(field.loop(3, effective=True).eval(), tokenizer, count),
    }
    rounds = take_turns(contestants, size.decode_rounds, partial(on_progress, "decoding"))
    return {
        "vs_base": rounds.ratio("ours", "base"),
        "lora_vs_base": rounds.ratio("lora", "base"),
        "loop_vs_base": rounds.ratio("loop", "base"),
    }


def _throughput(field: Field, path: Path, size: Size, on_round: Callable[[int, int], None]) -> dict[str, Any]:
    loops = loops_on(field, path, size.loop_steps)
    return take_turns(loops, size.loop_rounds, on_round).ratio("ours", "lora")


def _files(files: Sequence[Path]) -> list[tuple[str, Path]]:
    return [("demo", demo_file("train")), *((path.name, path) for path in files)]


def _conditions(field: Field, size: Size, device: str, quick: bool) -> dict[str, Any]:
    return {
        "model": asdict(find_model(DEFAULT_MODEL).describe()),
        "blocks": field.base.config.num_hidden_layers,
        "targets": TARGETS,
        "r": R,
        "batch": size.batch,
        "tokens": size.tokens,
        "dropout": DROPOUT,
        "quick": quick,
        "device": describe_device().name,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def bench_table(report: dict[str, Any]) -> str:
    """The ratios as text, one per line: median, and the 10th and 90th percentiles of the rounds."""
    lines = [f"{'ours / rival':40}{'median':>8}{'p10':>8}{'p90':>8}{'rounds':>8}"]
    for part in PARTS:
        for name, value in report.get(part, {}).items():
            pairs = [(f"{name}, N = {n}", ratio) for n, ratio in value] if name == "curve" else [(name, value)]
            lines += [_line(f"{part} {label}", ratio) for label, ratio in pairs if "median" in ratio]
    conditions = report["conditions"]
    lines += [
        "",
        "train_step: seconds, memory: bytes saved for backward (lower is better); decode, throughput: tokens/s (higher "
        "is better). curve: against PEFT's LoRA of the same r.",
        f"{conditions['model']['id']}, {conditions['blocks']} blocks, {conditions['device']}, "
        f"{conditions['threads']} threads, torch {conditions['torch']}",
    ]
    return "\n".join(lines)


def _line(label: str, ratio: dict[str, Any]) -> str:
    spread = "".join(f"{ratio[key]:8.3f}" if ratio[key] is not None else f"{'-':>8}" for key in ("p10", "p90"))
    return f"{label:40}{ratio['median']:8.3f}{spread}{ratio['n']:8}"
