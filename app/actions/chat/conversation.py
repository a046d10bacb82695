"""The Chat tab: up to four answers side by side, token by token, with the gates that made them."""

import time
from collections.abc import Iterator, Mapping, Sequence

from hydralora.components.rows import read_split
from hydralora.data.encoding import encode_prompt
from hydralora.data.examples import Example, Message
from hydralora.data.split import Split
from hydralora.errors import HydraError
from hydralora.inference.generation import Sampling, gated_modules, generate, room_for

from ...services import Services
from ...services.answers import Answer
from ...services.cache import ResultKind
from ..recipes import recipe_from_form, resolve_model
from .answers import COLUMNS, ChatView, view
from .columns import Column

UPDATE_SECONDS = 0.12  # between updates of the page
FIGURE_SECONDS = 0.36  # between those of its figures, which take longer to make than the words
PROMPTS = 12
SPLIT = ResultKind[Split]("split")
ALTERNATIVES = 5


def prompts(services: Services, dataset_id: str) -> list[list[str]]:
    """Held-out rows to try, a few of each task: [prompt, expected answer]."""
    recipe = recipe_from_form(services, dataset_id, "", {})  # its split is the one a run makes
    rows = services.cache.remember(SPLIT, dataset_id, compute=lambda: read_split(recipe)).heldout
    by_task: dict[str | None, list[Example]] = {}
    for row in rows:
        by_task.setdefault(row.task, []).append(row)
    each = max(1, PROMPTS // len(by_task))
    chosen = [row for task in sorted(by_task, key=str) for row in by_task[task][:each]]
    return [[row.question, row.answer] for row in chosen[:PROMPTS]]


def check_prompt(prompt: str) -> None:
    """
    Raises:
        HydraError: the prompt is empty.
    """
    if not prompt.strip():
        raise HydraError("The prompt is empty. Type something, or choose a held-out row.")


def stream(
    services: Services,
    columns: Sequence[Column],
    histories: Mapping[str, list[Message]],
    prompt: str,
    sampling: Sampling,
    system: str = "",
) -> Iterator[ChatView]:
    """Answer `prompt` in every column, each with its own history; a column that missed a turn continues from the
    longest history.

    Raises:
        HydraError: the prompt is empty or too long, or the steering does not fit the model.
    """
    check_prompt(prompt)
    talks = [_Talk(services, column, _history(histories, column.key), prompt, sampling, system) for column in columns]
    answers = {talk.key: (talk.answer_id, talk.answer) for talk in talks}
    began = updated = time.monotonic()
    drawn = -FIGURE_SECONDS
    count = 0
    for _ in _in_turns(talks):
        count += 1
        if time.monotonic() - updated >= UPDATE_SECONDS:
            updated = time.monotonic()
            due = updated - drawn >= FIGURE_SECONDS
            drawn = updated if due else drawn
            together = f" in {len(talks)} columns together" if len(talks) > 1 else ""
            yield view(answers, f"Answering: {count / (updated - began):.1f} tokens/s{together}", due)
    yield view(answers, f"Done: {count} tokens in {time.monotonic() - began:.1f} s.")


def free_memory(services: Services) -> str:
    """Unload the models; returns a sentence."""
    services.release()
    return "The models are unloaded. The next question loads them again."


def length_line(
    services: Services, run_id: str | None, model: str, prompt: str, system: str, histories: Mapping[str, list[Message]]
) -> str:
    """The length of the longest column's conversation with this prompt, in tokens.

    A prompt that is too long is reported here, before it is sent.
    """
    if not prompt.strip():
        return ""
    try:
        name = services.base_name(run_id, resolve_model(services, model))
        tokenizer, config = services.tokenizer(name), services.config(name)
        conversations = [_conversation(history, prompt, system) for history in histories.values() or [[]]]
        length = max(len(encode_prompt(tokenizer, conversation)) for conversation in conversations)
        room = room_for(config, length)
    except HydraError as error:
        return str(error)
    return f"{length:,} tokens with the conversation so far; {room:,} are left for the answer."


class _Talk:
    """A column that is answering."""

    def __init__(
        self, services: Services, column: Column, history: list[Message], prompt: str, sampling: Sampling, system: str
    ) -> None:
        self.key = column.key
        loaded = column.loaded
        self.answer = Answer(
            column.title,
            COLUMNS[column.key],
            gated_modules(loaded.model),
            messages=_conversation(history, prompt, system),
            source=loaded.source(column.steering),
            sampling=sampling,
        )
        self.answer_id = services.answers.keep(self.answer)
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
        """Generate one more token; False at the end."""
        token = next(self._tokens, None)
        if token is not None:
            self.answer.tokens.append(token)
        return token is not None


def _in_turns(talks: Sequence[_Talk]) -> Iterator[None]:
    """Generate a token of each column in turn, until all have ended."""
    unfinished = list(talks)
    while unfinished:
        for talk in list(unfinished):
            if talk.step():
                yield
            else:
                unfinished.remove(talk)


def _history(histories: Mapping[str, list[Message]], key: str) -> list[Message]:
    history = histories.get(key, [])
    longest = max((histories.get(other, []) for other in COLUMNS), key=len, default=history)
    return history if len(history) >= len(longest) else longest


def _answered(messages: list[Message]) -> list[Message]:
    """A conversation without an unanswered last question, which an error leaves behind."""
    return messages[:-1] if messages and messages[-1]["role"] == "user" else list(messages)


def _conversation(history: list[Message], prompt: str, system: str) -> list[Message]:
    first = [{"role": "system", "content": system.strip()}] if system.strip() else []
    return [*first, *_answered(history), {"role": "user", "content": prompt}]
