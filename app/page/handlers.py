"""How events of the page are handled: errors become messages, and only the newest request of a kind fills the page."""

import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import gradio as gr

from ..services import Services
from .text import as_message

QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}  # listeners that tell in words
LATEST = QUIET | {"trigger_mode": "always_last"}  # those that show what is chosen: no change may pass unseen

Component = Any  # of Gradio, whose events are added to its classes at run time
Updates = dict[Component, Any]  # by component, its new value or an update; what is not in it stays as it is
P = ParamSpec("P")
R = TypeVar("R")


def handler(function: Callable[P, R]) -> Callable[P, R]:
    """A handler, or one that yields updates, whose errors become the page's messages.

    One that yields nothing changes nothing: Gradio would empty all that it may fill.
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


def latest(
    services: Services, kind: str, about_run: bool = False
) -> Callable[[Callable[P, R]], Callable[Concatenate[gr.Request, P], R]]:
    """A `handler` that fills the page only as long as nothing newer of its kind has begun in the same session.

    At the end of one that is superseded Gradio would send what it yielded last once more, over what the newer one has
    filled; so it ends with an update of nothing.

    Args:
        about_run: whether its first argument is the run that it is about (`Sessions.switch_to`).
    """

    def decorate(function: Callable[P, R]) -> Callable[Concatenate[gr.Request, P], R]:
        def begin(request: gr.Request, args: tuple[object, ...]) -> Callable[[], bool]:
            run_id = cast(str | None, args[0]) if about_run else None
            return services.sessions.newest(request.session_hash or "", kind, run_id)

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
        return cast(Callable[Concatenate[gr.Request, P], R], _asking_for_request(listener, function))

    return decorate


def _asking_for_request(listener: Callable[..., object], function: Callable[..., object]) -> Callable[..., object]:
    """Give a function the signature of another with the request before it, by which Gradio hands that in."""
    signature = inspect.signature(function)
    request = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=gr.Request)
    listener.__name__, listener.__doc__ = function.__name__, function.__doc__
    listener.__annotations__ = {"request": gr.Request} | dict(function.__annotations__)
    cast(Any, listener).__signature__ = signature.replace(parameters=[request, *signature.parameters.values()])
    return listener
