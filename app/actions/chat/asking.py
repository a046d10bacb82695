"""Asking: up to four answers at once, token by token, which the page reads as they grow."""

import time
from collections.abc import Generator, Iterator, Sequence

from hydralora.data.encoding import encode_prompt
from hydralora.data.examples import Message
from hydralora.errors import HydraError
from hydralora.inference.generation import Sampling, Token, gated_modules, generate, room_for
from hydralora.inference.traces import AnswerSource

from ...services import Services
from ...services.answers import Answer
from ..recipes import resolve_model
from .answers import Turn, Turns, history
from .columns import Column

ALTERNATIVES = 5
LOOK_SECONDS = 0.3  # between the moments at which a stop, or a newer question, is noticed
STOPPED = "Stopped. What was answered so far is kept."


class Asked:
    """A question under way: `turn` holds the ids of its answers at once, `run` generates them."""

    def __init__(
        self,
        services: Services,
        columns: Sequence[Column],
        turns: Turns,
        turn: Turn,
        sampling: Sampling,
        system: str = "",
    ) -> None:
        """Prepare the answers of these columns; each continues from its own history, given by earlier `turns`.

        Raises:
            HydraError: the prompt is empty or too long, or the steering does not fit the model.
        """
        check_prompt(turn.question)
        self._talks = []
        for column in columns:
            messages = _conversation(history(services, turns, column.key), turn.question, system)
            talk = _Talk(column, messages, sampling)
            self._talks.append(talk)
            turn = turn.answered(column.key, services.answers.keep(talk.answer))
        self.turn = turn

    def run(self) -> Generator[None, None, None]:
        """Generate the answers, a token of each in turn; yields now and then, so that it can be stopped there."""
        looked = time.monotonic()
        unfinished = list(self._talks)
        try:
            while unfinished:
                for talk in list(unfinished):
                    if not talk.step():
                        unfinished.remove(talk)
                    if time.monotonic() - looked >= LOOK_SECONDS:
                        looked = time.monotonic()
                        yield
        finally:
            for talk in unfinished:
                talk.answer.end(STOPPED)


class _Talk:
    """A column that is answering."""

    def __init__(self, column: Column, messages: list[Message], sampling: Sampling) -> None:
        loaded = column.loaded
        self._tokens: Iterator[Token] = iter(())
        if loaded is None:
            self.answer = Answer(column.title, [], messages, AnswerSource(""), sampling)
            self.answer.end(column.problem)
            return
        self.answer = Answer(
            column.title,
            gated_modules(loaded.model),
            messages=messages,
            source=loaded.source(column.steering),
            sampling=sampling,
        )
        self._tokens = generate(
            loaded.model,
            loaded.tokenizer,
            messages,
            sampling,
            lock=loaded.lock,
            steering=column.steering,
            alternatives=ALTERNATIVES,
            on_prompt=self.answer.prompt.extend,
        )

    def step(self) -> bool:
        """Generate one more token; False at the end. An error ends this column alone, and stands in it."""
        if self.answer.stop_requested:
            self.answer.end(STOPPED)
            return False
        began = time.monotonic()
        try:
            token = next(self._tokens, None)
        except HydraError as error:
            self.answer.end(str(error))
            return False
        if token is None:
            self.answer.end()
            return False
        self.answer.tokens.append(token)
        self.answer.seconds += time.monotonic() - began
        return True


def check_prompt(prompt: str) -> None:
    """
    Raises:
        HydraError: the prompt is empty.
    """
    if not prompt.strip():
        raise HydraError("The prompt is empty. Type something, or choose an example.")


def free_memory(services: Services) -> str:
    """Unload the models; returns a sentence."""
    services.release()
    return "The models are unloaded. The next question loads them again."


def length_line(services: Services, run_id: str | None, model: str, prompt: str, system: str, turns: Turns) -> str:
    """The length of the conversation with this prompt, in tokens; "" unless it comes near the limit.

    A prompt that is too long is reported here, before it is sent.
    """
    if not prompt.strip():
        return ""
    try:
        name = services.base_name(run_id, resolve_model(services, model))
        tokenizer, config = services.tokenizer(name), services.config(name)
        length = len(encode_prompt(tokenizer, _conversation(history(services, turns, "run"), prompt, system)))
        recipe = services.run(run_id).recipe() if run_id else None
        virtual = recipe.tuner.virtual_tokens if recipe and recipe.tuning.has_virtual_tokens else 0
        room = room_for(config, length + virtual)
    except HydraError as error:
        return str(error)
    return f"{length:,} tokens with the conversation so far; {room:,} are left for the answer."


def _conversation(messages: Sequence[Message], prompt: str, system: str) -> list[Message]:
    first = [{"role": "system", "content": system.strip()}] if system.strip() else []
    return [*first, *messages, {"role": "user", "content": prompt}]
