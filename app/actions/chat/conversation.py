"""The Chat tab: up to four answers side by side, token by token, with the gates that made them."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hydralora.components.rows import read_split
from hydralora.data.examples import Example
from hydralora.data.templates import encode_prompt
from hydralora.errors import HydraError
from hydralora.inference.generation import Sampling, gated_modules, generate, room_for
from hydralora.inference.model_cache import Loaded
from hydralora.inference.traces import answered_by
from hydralora.tuner.steering import Steering

from ...services import Answer, Services
from ..parameters.points import adapter_weights
from ..recipes import model_name, recipe_from_form, resolve_model
from .answers import COLUMNS, ChatView, Messages, kept, view

UPDATE_SECONDS = 0.12  # between updates of the page
FIGURE_SECONDS = 0.36  # between those of its figures, which take longer to make than the words
PROMPTS = 12
ALTERNATIVES = 5


@dataclass(frozen=True)
class Column:
    """Who answers: a run, its gates steered or not, or, without a run, the base model."""

    key: str
    loaded: Loaded
    steering: Steering | None = None

    @property
    def title(self) -> str:
        """What stands over it: whose answer it is, with its adapter's hash and the setting of its gates."""
        run = self.loaded.run
        gated = bool(gated_modules(self.loaded.model))
        whose = answered_by(run.id if run else None, self.loaded.adapter_hash, gated, self.steering)
        if not run:
            return f"Base model: {model_name(self.loaded.files.id)}, {whose}"
        return f"Another {whose}" if self.key == "other" else f"Tuned model: {whose}"


def prompts(services: Services, dataset_id: str) -> list[list[str]]:
    """Held-out rows to try, a few of each task: [prompt, expected answer]."""
    recipe = recipe_from_form(services, dataset_id, "", {})  # its split is the one a run makes
    rows = services.remember(("split", dataset_id), lambda: read_split(recipe)).heldout
    by_task: dict[str | None, list[Example]] = {}
    for row in rows:
        by_task.setdefault(row.task, []).append(row)
    each = max(1, PROMPTS // len(by_task))
    chosen = [row for task in sorted(by_task, key=str) for row in by_task[task][:each]]
    return [[row.question, row.answer] for row in chosen[:PROMPTS]]


def heads_of(services: Services, run_id: str | None) -> int:
    """How many heads a run's adapter has; 0 without one."""
    if not run_id or not services.run(run_id).has_adapter or not services.run(run_id).recipe().has_heads:
        return 0
    return max(len(layer.heads) for layer in adapter_weights(services, run_id).values())


def columns(
    services: Services,
    chosen: Sequence[str],
    run_id: str | None,
    model: str,
    other: str | None = None,
    steering: Steering | None = None,
) -> list[Column]:
    """Who answers, of the columns that were chosen, in their order; the base model alone where there is no adapter.

    Raises:
        HydraError: nobody is left, steering was not set, or a model can't be loaded.
    """
    run = services.run(run_id) if run_id else None
    tuned = run if run and run.has_adapter else None
    found = []
    for key in COLUMNS:
        if key not in chosen:
            continue
        if key == "base":
            found.append(Column(key, services.loaded_base(run_id, resolve_model(services, model))))
        elif key == "other":
            if not other:
                raise HydraError("No other run is chosen. Choose one beside the columns, or leave its column out.")
            found.append(Column(key, services.loaded(other)))
        elif tuned and key == "steered":
            found.append(_steered(services, tuned.id, steering))
        elif tuned:
            found.append(Column(key, services.loaded(tuned.id)))
    if not found:
        raise HydraError("Nobody is there to answer. Choose a column; without a trained run, the base model's.")
    return found


def _steered(services: Services, run_id: str, steering: Steering | None) -> Column:
    if not heads_of(services, run_id):
        raise HydraError(f"Run {run_id} has no heads, so there is nothing to steer. Leave the steered column out.")
    if steering is None:
        raise HydraError("Nothing is steered yet. Pin or mute a head, or leave the steered column out.")
    return Column("steered", services.loaded(run_id), steering)


def titles(services: Services, run_id: str | None, model: str, answer_ids: Mapping[str, str]) -> dict[str, str]:
    """What stands over each column: of its answer who gave it, else who would."""
    run = services.run(run_id) if run_id else None
    tuned = "Tuned model: none yet. Train one, or choose a run above."
    if run and run.has_adapter:
        tuned = f"Tuned model: run {run.id}, adapter {(run.state()['adapter_hash'] or '')[:8]}"
    base = f"Base model: {model_name(run.recipe().model if run else resolve_model(services, model))}, no adapter"
    would = {"run": tuned, "steered": f"{tuned}, steered", "base": base, "other": "Another run"}
    return would | {key: answer.title for key, (_, answer) in kept(services, answer_ids).items()}


def check_prompt(prompt: str) -> None:
    """
    Raises:
        HydraError: the prompt is empty.
    """
    if not prompt.strip():
        raise HydraError("The prompt is empty. Type something, or choose a held-out row.")


def stream(
    services: Services,
    asked: Sequence[Column],
    histories: Mapping[str, Messages],
    prompt: str,
    sampling: Sampling,
    system: str = "",
) -> Iterator[ChatView]:
    """Answer `prompt` in every column, each with its own history; one that missed a turn takes up that of the first
    that didn't.

    Raises:
        HydraError: the prompt is empty or too long, or the gates can't be steered so.
    """
    check_prompt(prompt)
    talks = [_Talk(services, column, _history(histories, column.key), prompt, sampling, system) for column in asked]
    answers = {talk.key: (talk.answer_id, talk.answer) for talk in talks}
    began = shown = time.monotonic()
    drawn = -FIGURE_SECONDS
    count = 0
    for _ in _in_turns(talks):
        count += 1
        if time.monotonic() - shown >= UPDATE_SECONDS:
            shown = time.monotonic()
            due = shown - drawn >= FIGURE_SECONDS
            drawn = shown if due else drawn
            together = f" in {len(talks)} columns together" if len(talks) > 1 else ""
            yield view(answers, f"Answering: {count / (shown - began):.1f} tokens/s{together}", due)
    yield view(answers, f"Done: {count} tokens in {time.monotonic() - began:.1f} s.")


def free_memory(services: Services) -> str:
    """Let the loaded models go; returns a sentence."""
    services.let_go()
    return "The models are let go. The next question loads them again."


def length_line(
    services: Services, run_id: str | None, model: str, prompt: str, system: str, histories: Mapping[str, Messages]
) -> str:
    """How long the longest column's conversation is with this prompt, in tokens.

    A prompt that is too long is said here, before it is sent.
    """
    if not prompt.strip():
        return ""
    try:
        tokenizer, config = services.reader(run_id, resolve_model(services, model))
        conversations = [_conversation(history, prompt, system) for history in histories.values() or [[]]]
        length = max(len(encode_prompt(tokenizer, conversation)) for conversation in conversations)
        left = room_for(config, length)
    except HydraError as error:
        return str(error)
    return f"{length:,} tokens with the conversation so far; {left:,} are left for the answer."


class _Talk:
    """A column while it answers."""

    def __init__(
        self, services: Services, column: Column, history: Messages, prompt: str, sampling: Sampling, system: str
    ) -> None:
        self.key = column.key
        loaded, about = column.loaded, column.loaded.files.describe()
        self.answer = Answer(
            column.title,
            COLUMNS[column.key],
            gated_modules(loaded.model),
            messages=_conversation(history, prompt, system),
            about={
                "base": about["id"],
                "base_hash": about["hash"],
                "run": loaded.run.id if loaded.run else None,
                "adapter_hash": loaded.adapter_hash,
                "steering": column.steering.describe() if column.steering else None,
            },
            sampling=sampling,
        )
        self.answer_id = services.keep_answer(self.answer)
        self._tokens = generate(
            loaded.model,
            loaded.tokenizer,
            self.answer.messages,
            sampling,
            lock=loaded.lock,
            steering=column.steering,
            alternatives=ALTERNATIVES,
            on_prompt=self.answer.prompt.extend,
        )

    def step(self) -> bool:
        """One more token; False at the end."""
        token = next(self._tokens, None)
        if token is not None:
            self.answer.tokens.append(token)
        return token is not None


def _in_turns(talks: Sequence[_Talk]) -> Iterator[None]:
    """A token of each column in turn, until all are at their end."""
    left = list(talks)
    while left:
        for talk in list(left):
            if talk.step():
                yield
            else:
                left.remove(talk)


def _history(histories: Mapping[str, Messages], key: str) -> Messages:
    own = histories.get(key, [])
    longest = max((histories.get(one, []) for one in COLUMNS), key=len, default=own)
    return own if len(own) >= len(longest) else longest


def _answered(messages: Messages) -> Messages:
    """A conversation without a last question that got no answer, as after an error."""
    return messages[:-1] if messages and messages[-1]["role"] == "user" else list(messages)


def _conversation(history: Messages, prompt: str, system: str) -> Messages:
    first = [{"role": "system", "content": system.strip()}] if system.strip() else []
    return [*first, *_answered(history), {"role": "user", "content": prompt}]
