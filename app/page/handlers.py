"""Event handlers: errors become messages, and only the newest request of a kind may fill the page."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import gradio as gr

from ..headers import ARRIVED
from ..services import Services
from .text import as_message

QUIET: dict[str, Any] = {
    "api_visibility": "private",
    "show_progress": "hidden",
}  # for listeners that report progress in text

Component = Any  # a Gradio component; its events are added at run time
Updates = dict[Component, Any]  # new value or update by component; other components stay unchanged
P = ParamSpec("P")
R = TypeVar("R")


def handler(function: Callable[P, R]) -> Callable[P, R]:
    """Turn the errors of a handler into the page's messages; it may be a generator of updates.

    A generator that yields nothing changes nothing. Left alone, Gradio would empty all its outputs.
    """
    if inspect.isgeneratorfunction(function):
        streams = cast(Callable[P, Iterator[Updates]], function)

        @wraps(function)
        def stream(*args: P.args, **kwargs: P.kwargs) -> Iterator[Updates]:
            empty = True
            try:
                for update in streams(*args, **kwargs):
                    empty = False
                    yield update
            except Exception as error:
                raise as_message(error) from error
            if empty:
                yield gr.skip()

        return cast(Callable[P, R], stream)

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise as_message(error) from error

    return run


def cancel_then(
    event: Callable[..., Component], going: Sequence[Component], function: Callable[[], object], outputs: Component
) -> Component:
    """Cancel listeners at an event, then fill `outputs` by another listener, which is returned.

    One listener with `cancels=` would cancel only after its function has answered. Until then what is going on fills
    the page, and a busy server takes seconds.
    """
    event(None, None, None, cancels=list(going), **QUIET)
    return event(function, None, outputs, **QUIET)


def latest(
    services: Services, kind: str, about_run: bool = False
) -> Callable[[Callable[P, R]], Callable[Concatenate[gr.Request, P], R]]:
    """A `handler` that fills the page only while no newer request of its kind has begun in the same session.

    When a generator ends, Gradio sends its last update again, which would overwrite the output of a newer request. A
    superseded one therefore ends with an empty update.

    Args:
        about_run: whether its first argument is the run concerned (`Sessions.switch_to`).
    """

    def decorate(function: Callable[P, R]) -> Callable[Concatenate[gr.Request, P], R]:
        def begin(request: gr.Request, args: tuple[object, ...]) -> Callable[[], bool]:
            run_id = cast(str | None, args[0]) if about_run else None
            return services.sessions.newest(request.session_hash or "", kind, run_id, arrival(request))

        def run(request: gr.Request, *args: P.args, **kwargs: P.kwargs) -> R:
            is_newest = begin(request, args)
            result = handler(function)(*args, **kwargs)
            return result if is_newest() else cast(R, gr.skip())

        def stream(request: gr.Request, *args: P.args, **kwargs: P.kwargs) -> Iterator[Updates]:
            is_newest = begin(request, args)
            updates = cast(Callable[P, Iterator[Updates]], handler(function))(*args, **kwargs)
            for update in updates:
                if not is_newest():
                    yield gr.skip()
                    return
                yield update

        listener = stream if inspect.isgeneratorfunction(function) else run
        return cast(Callable[Concatenate[gr.Request, P], R], _with_request(listener, function))

    return decorate


def arrival(request: gr.Request) -> int | None:
    """When a request arrived, for `Sessions`; None if this server did not stamp it (headers.py)."""
    return getattr(getattr(request, "request", None), "scope", {}).get(ARRIVED)


def _with_request(listener: Callable[..., object], function: Callable[..., object]) -> Callable[..., object]:
    """Give `listener` the signature of `function` with a request first, so that Gradio passes one in."""
    signature = inspect.signature(function)
    request = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=gr.Request)
    listener.__name__, listener.__doc__ = function.__name__, function.__doc__
    listener.__annotations__ = {"request": gr.Request} | dict(function.__annotations__)
    cast(Any, listener).__signature__ = signature.replace(parameters=[request, *signature.parameters.values()])
    return listener
