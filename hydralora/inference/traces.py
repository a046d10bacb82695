"""Traces: files with an answer and its gates, saved by a chat and read without a model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator, model_validator

from hydralora.data.examples import Message
from hydralora.errors import ConfigError
from hydralora.files import write_text
from hydralora.inference.generation import Sampling, Token
from hydralora.recipe.reading import validation_message
from hydralora.tuner.steering import Steering, described_steering

MOST_BYTES = 200 * 2**20
MOST_QUOTED = 500  # characters of a quoted reason
DIGITS = 6  # of a gate, in the file
SUM_TOLERANCE = 1e-3

Text = Annotated[str, Field(max_length=1_000_000)]
Name = Annotated[str, Field(max_length=500)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TraceAlternative(Strict):
    id: int
    text: Text
    probability: Share


class TraceToken(Strict):
    """A token; `gates` is (modules, N), empty without an adapter."""

    id: int
    text: Text
    gates: list[list[Share]]
    alternatives: list[TraceAlternative] = []


class TraceSampling(Strict):
    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int


class TraceMessage(Strict):
    role: Literal["system", "user", "assistant"]
    content: Text


class Trace(Strict):
    """An answer to a conversation, token by token.

    Attributes:
        base: the base model's id, or its folder's name; `base_hash` the sha256 of its weights.
        run: its id, or None for the base model alone; `adapter_hash` the sha256 of its adapter's weights.
        steering: how the gates were set (`Steering.describe`); None where the router set them.
        modules: names of the adapted modules, the order of a token's gates.
        messages: the conversation, the question last.
        prompt: its tokens, including special ones, with the gates with which they were read.
        tokens: those of the answer.
    """

    kind: Literal["hydralora-trace"] = "hydralora-trace"
    version: Literal[1] = 1
    base: Name
    base_hash: Name | None = None
    run: Name | None = None
    adapter_hash: Name | None = None
    steering: dict[str, JsonValue] | None = None
    sampling: TraceSampling
    modules: list[Name]
    messages: list[TraceMessage]
    prompt: list[TraceToken] = []
    tokens: list[TraceToken]

    @model_validator(mode="after")
    def _gates_fit(self) -> "Trace":
        heads = {len(row) for token in (*self.prompt, *self.tokens) for row in token.gates}
        if len(heads) > 1:
            raise ValueError(f"tokens have gates of {sorted(heads)} heads; they must have equally many")
        if len({bool(token.gates) for token in (*self.prompt, *self.tokens)}) > 1:
            raise ValueError("some tokens have gates and others have none")
        for place, token in enumerate((*self.prompt, *self.tokens), 1):
            if token.gates and len(token.gates) != len(self.modules):
                raise ValueError(
                    f"token {place} has gates of {len(token.gates)} modules, but {len(self.modules)} are named"
                )
            if any(not math.isclose(sum(row), 1, abs_tol=SUM_TOLERANCE) for row in token.gates):
                raise ValueError(f"token {place} has gates that don't sum to 1")
        return self

    @field_validator("steering")
    @classmethod
    def _can_be_asked(cls, steering: dict[str, JsonValue] | None) -> dict[str, JsonValue] | None:
        return steering if steering is None else described_steering(steering).describe()

    @property
    def whose(self) -> str:
        """The source of the answer in words: the run, its adapter's hash, and how its gates were set."""
        return answered_by(self.run, self.adapter_hash, bool(self.modules), self.source.steering)

    @property
    def source(self) -> "AnswerSource":
        """The source of the answer."""
        steering = described_steering(self.steering) if self.steering else None
        return AnswerSource(self.base, self.base_hash, self.run, self.adapter_hash, steering)

    @property
    def text(self) -> str:
        """The answer."""
        return "".join(token.text for token in self.tokens)


def answered_by(run: str | None, adapter_hash: str | None, gated: bool, steering: Steering | None) -> str:
    """The source of an answer in words; `gated` is whether there are gates."""
    if not run:
        return "no adapter"
    gates = f"gates {steering.in_words() if steering else 'by the router'}" if gated else "no gates"
    return f"run {run}, adapter {(adapter_hash or '')[:8]}, {gates}"


@dataclass(frozen=True)
class AnswerSource:
    """The source of an answer: base model, run and adapter as in `Trace`, and the steering of the gates."""

    base: str
    base_hash: str | None = None
    run: str | None = None
    adapter_hash: str | None = None
    steering: Steering | None = None


def make_trace(
    tokens: Sequence[Token],
    prompt: Sequence[Token],
    modules: Sequence[str],
    messages: Sequence[Message],
    sampling: Sampling,
    source: AnswerSource,
) -> Trace:
    """The trace of a generated answer."""
    base = source.base
    return Trace(
        base=Path(base).name if Path(base).is_absolute() else base,  # no path of this machine goes into a file
        base_hash=source.base_hash,
        run=source.run,
        adapter_hash=source.adapter_hash,
        steering=source.steering.describe() if source.steering else None,
        modules=list(modules),
        messages=[TraceMessage.model_validate(message) for message in messages],
        sampling=TraceSampling.model_validate(vars(sampling)),
        prompt=[_token(token) for token in prompt],
        tokens=[_token(token) for token in tokens],
    )


def save_trace(trace: Trace, path: Path) -> None:
    """Write a trace as JSON.

    Raises:
        ConfigError: the file can't be written.
    """
    try:
        write_text(path, trace.model_dump_json())
    except OSError as error:
        raise ConfigError(f"{path}: can't be written ({error.strerror or error}). Give another file.") from error


def load_trace(path: Path) -> Trace:
    """A trace that `save_trace` wrote, checked field by field.

    Raises:
        ConfigError: the file is not a trace.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError(f"{path}: larger than {MOST_BYTES // 2**20} MB, so it isn't read. Save a shorter answer.")
        return Trace.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"{path}: can't be read ({error.strerror or error}). Give a trace that a chat saved."
        ) from error
    except ValidationError as error:
        reason = validation_message(error)[:MOST_QUOTED]
        raise ConfigError(f"{path}: not a trace of a chat. {reason}") from error


def _token(token: Token) -> TraceToken:
    return TraceToken(
        id=token.id,
        text=token.text,
        gates=[[round(gate, DIGITS) for gate in row] for row in token.gates],
        alternatives=[
            TraceAlternative(
                id=alternative.id, text=alternative.text, probability=min(1.0, round(alternative.probability, DIGITS))
            )
            for alternative in token.alternatives
        ],
    )
