"""How rows use the heads: the share of each head by component or task, and its tokens with the largest gates."""

import random
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from hydralora.components.rows import label_rows, read_used
from hydralora.data.encoding import Encoded, encode_rows
from hydralora.data.examples import Example
from hydralora.data.progress import OnProgress, ignore_progress
from hydralora.errors import ConfigError
from hydralora.inference.evaluation import batches, predicting
from hydralora.inference.generation import token_text
from hydralora.inference.loss import batch_rows
from hydralora.inference.model_cache import load_run
from hydralora.models.types import Tokenizer
from hydralora.runs.run import Run
from hydralora.tuner.gates import mean_gates, record_gates
from hydralora.tuner.router import normalised_entropy

SHUFFLES = 200


@dataclass(frozen=True)
class HeadUse:
    """How each row uses the heads at the positions that predict its answer.

    Attributes:
        modules: names of the adapted modules.
        mean: (modules, rows, N), each row's mean gates.
        strongest: (modules, rows, N), number of a row's answer tokens for which each head had the largest gate.
        entropy: of a token's gates, the mean over all of them and the modules, as a share of its maximum.
    """

    modules: list[str]
    mean: np.ndarray
    strongest: np.ndarray
    entropy: float = 0.0

    def mean_gates(self, groups: Sequence[Hashable]) -> dict[Any, np.ndarray]:
        """Mean gates (modules, N) over each group's rows; a row whose group is None is in none."""
        return {group: self.mean[:, _rows_of(groups, group)].mean(1) for group in _known(groups)}

    def mutual_information(self, groups: Sequence[Hashable]) -> float:
        """Between a token's group and its strongest head, mean over the modules, 0 to 1.

        As a share of the groups' own entropy: 1 if the strongest head determines the group.
        """
        known = _known(groups)
        return self._information(np.array([[group == other for group in groups] for other in known]))

    def shuffled_information(self, groups: Sequence[Hashable], times: int = SHUFFLES, seed: int = 0) -> np.ndarray:
        """The same with permuted groups, (times,): the values by chance."""
        known, rng = _known(groups), np.random.default_rng(seed)
        members = np.array([[group == other for group in groups] for other in known])
        dealt = np.flatnonzero(members.any(0))  # rows without a group keep none
        out = []
        for _ in range(times):
            shuffled = members.copy()
            shuffled[:, dealt] = members[:, rng.permutation(dealt)]
            out.append(self._information(shuffled))
        return np.array(out)

    def _information(self, members: np.ndarray) -> float:
        """`members` (groups, rows): whether a row is in a group."""
        from scipy.stats import entropy

        tables = np.einsum("gr,mrn->mgn", members.astype(float), self.strongest)  # tokens
        group_entropy = entropy(tables[0].sum(1)) if len(members) > 1 else 0.0
        if not group_entropy:
            return 0.0
        joint = entropy(tables.reshape(len(tables), -1), axis=1)
        shared = entropy(tables.sum(2), axis=1) + entropy(tables.sum(1), axis=1) - joint
        return float(np.clip(shared.mean() / group_entropy, 0, 1))


def _known(groups: Iterable[Hashable]) -> list[Any]:
    return sorted({group for group in groups if group is not None}, key=lambda group: (str(type(group)), group))


def _rows_of(groups: Sequence[Hashable], target: Hashable) -> list[int]:
    return [i for i, group in enumerate(groups) if group == target]


@dataclass(frozen=True)
class HeadToken:
    """A token of a row: its text, the text before and after it, and a head's gate."""

    row: int
    before: str
    text: str
    behind: str
    gate: float


AROUND = 8  # tokens shown before and after


@dataclass(frozen=True)
class TokenGates:
    """The gates of every token of a few rows.

    Attributes:
        modules: names of the adapted modules.
        rows: the rows, encoded.
        gates: for each row (modules, tokens, N), half precision.
    """

    modules: list[str]
    rows: list[Encoded]
    gates: list[np.ndarray]

    def most(self, tokenizer: Tokenizer, head: int, module: str | None = None, count: int = 12) -> list[HeadToken]:
        """The tokens with a head's largest gates, in one module or by the mean over all; each text once."""
        place = self.modules.index(module) if module else None
        head_gates = [
            (gates[place] if place is not None else gates.mean(0, dtype=np.float32))[:, head] for gates in self.gates
        ]
        gates = np.concatenate(head_gates)
        rows = np.repeat(np.arange(len(head_gates)), [len(row) for row in head_gates])
        positions = np.concatenate([np.arange(len(row)) for row in head_gates])
        out: list[HeadToken] = []
        texts: set[str] = set()
        for i in np.argsort(-gates, kind="stable"):
            gate, number, position = float(gates[i]), int(rows[i]), int(positions[i])
            ids = self.rows[number].input_ids
            text = token_text(tokenizer, ids[position])
            if text.strip().lower() in texts:
                continue
            texts.add(text.strip().lower())
            before, behind = (
                str(tokenizer.decode(ids[max(0, first) : last], clean_up_tokenization_spaces=False))
                for first, last in ((position - AROUND, position), (position + 1, position + 1 + AROUND))
            )
            out.append(HeadToken(number, before, text, behind, gate))
            if len(out) == count:
                break
        return out


def head_use(
    model: Any, rows: Sequence[Encoded], pad_token_id: int, on_progress: OnProgress = ignore_progress
) -> HeadUse:
    """How rows use the heads of the active HydraLoRA adapter; `on_progress` is called with rows read and all rows."""
    return _read(model, rows, pad_token_id, on_progress, keep=False)[0]


def probe(
    model: Any,
    rows: Sequence[Encoded],
    pad_token_id: int,
    on_progress: OnProgress = ignore_progress,
) -> tuple[HeadUse, TokenGates]:
    """The same, with the gates of every token; `on_progress` is called with the rows read and all rows."""
    return _read(model, rows, pad_token_id, on_progress, keep=True)


@torch.no_grad()
def _read(
    model: Any, rows: Sequence[Encoded], pad_token_id: int, on_progress: OnProgress, keep: bool
) -> tuple[HeadUse, TokenGates]:
    mean: list[Any] = [None] * len(rows)
    strongest: list[Any] = [None] * len(rows)
    token_gates: list[Any] = [None] * len(rows)
    modules: list[str] = []
    done, tokens, entropies = 0, 0, 0.0
    for indices, batch in batches(model, rows, pad_token_id):
        with record_gates(model) as record, batch_rows(model, batch):
            model(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                use_cache=False,
                logits_to_keep=1,  # gates are what is read
            )
        gates, mask = record.stacked(), predicting(batch["labels"]).cpu()
        modules = record.modules
        first = nn.functional.one_hot(gates.argmax(-1), gates.shape[-1]) * mask[..., None]
        means, counts = mean_gates(gates, mask), first.sum(2)  # (modules, batch, N)
        tokens += int(mask.sum())
        entropies += float(normalised_entropy(gates[:, mask]).sum()) / len(gates)
        for place, index in enumerate(indices):
            mean[index], strongest[index] = means[:, place].numpy(), counts[:, place].numpy()
            if keep:
                token_gates[index] = gates[:, place, : len(rows[index].input_ids)].half().numpy()
        done += len(indices)
        on_progress(done, len(rows))
    use = HeadUse(modules, np.stack(mean, axis=1), np.stack(strongest, axis=1), entropies / max(tokens, 1))
    return use, TokenGates(modules, list(rows), token_gates if keep else [])


PROBED = 128  # held-out rows, at random
PROBED_TRAINING = 64  # training rows, at random


@dataclass(frozen=True)
class Probed:
    """How some of a run's rows use its heads.

    Attributes:
        use: on held-out rows, and `tokens` the gates of every token of them.
        components: of each held-out row; None if the run's training rows are missing.
        names: of the components.
        tasks: of each held-out row; None if it has none.
        training: on some of the run's training rows, `training_rows`.
    """

    use: HeadUse
    tokens: TokenGates
    components: list[int] | None
    names: list[str]
    tasks: list[str | None]
    training: HeadUse
    training_rows: list[Example]


def probe_run(run: Run, on_progress: OnProgress = ignore_progress) -> Probed:
    """How a run's heads are used on up to `PROBED` of its held-out rows, and `PROBED_TRAINING` of its training rows.

    Raises:
        HydraError: the run has no adapter with heads, or its rows or base model are missing.
    """
    recipe = run.recipe()
    if not recipe.has_heads:
        name = recipe.tuning.name
        raise ConfigError(f"This run was trained by {name}: it has no heads to show. Choose a run of method hydralora.")
    rows, rng = read_used(recipe), random.Random(recipe.training.seed)
    loaded = load_run(run)
    pad = loaded.tokenizer.pad_token_id
    heldout, learnt = (
        encode_rows(loaded.tokenizer, rng.sample(part, min(count, len(part))), recipe).rows
        for part, count in ((rows.heldout, PROBED), (rows.train, PROBED_TRAINING))
    )
    total = len(heldout) + len(learnt)
    use, tokens = probe(loaded.model, heldout, pad, lambda done, _: on_progress(done, total))
    training, _ = probe(loaded.model, learnt, pad, lambda done, _: on_progress(len(heldout) + done, total))
    examples = [row.example for row in heldout]
    labels, names, _ = label_rows(recipe, examples)
    tasks = [example.task or None for example in examples]
    return Probed(use, tokens, labels, names, tasks, training, [row.example for row in learnt])
