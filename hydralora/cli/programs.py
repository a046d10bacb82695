"""The command that runs other programs with HydraLoRA's adapters known to PEFT."""

import os
import runpy
import sys
from importlib.util import find_spec
from typing import Annotated

import typer

from hydralora.cli.options import app
from hydralora.cli.output import say
from hydralora.errors import ConfigError


@app.command("with", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def with_(
    module: Annotated[str, typer.Argument(help="The program's module, such as lm_eval.")],
    arguments: Annotated[list[str] | None, typer.Argument(metavar="ARGS...", help="The program's own.")] = None,
) -> None:
    """Run a Python program as `python -m MODULE ARGS...` does, with HydraLoRA imported so that it loads our adapters.

    Processes that the program starts don't import it.
    """
    if not sys.flags.safe_path and sys.path[:1] != [os.getcwd()]:
        sys.path.insert(0, os.getcwd())  # where python -m looks first
    try:
        check_module(module)
    except ConfigError as error:
        say(f"{error.kind} error: {error}")
        raise typer.Exit(1) from None
    if module == "lm_eval":
        from hydralora.inference.benchmarks import register_backend

        register_backend()
    sys.argv = [module, *(arguments or [])]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def check_module(module: str) -> None:
    """
    Raises:
        ConfigError: Python finds no such module, or it can't be run.
    """
    try:
        spec = find_spec(module)
        if spec is not None and spec.submodule_search_locations is not None:  # a package
            spec = find_spec(f"{module}.__main__")
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise ConfigError(
            f"with: Python finds no module {module[:200]!r} that can be run. Install it where hydralora is "
            "installed, and name it as `python -m` takes it: without a path and without .py."
        )
