"""Imports run downwards only, rooms on one level don't know each other, and the engine doesn't know the app."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENGINE = (
    {"errors"},
    {"files"},
    {"tuner", "models", "projection"},
    {"recipe"},
    {"data"},
    {"components", "runs"},
    {"inference"},
    {"analysis"},
    {"training", "figures"},
    {"transfer", "bench", "experiments", "worker"},
    {"cli"},
)
APP = (
    {"guards", "headers", "widgets"},
    {"services"},
    {"page", "actions"},
    {"tabs", "streams", "teaching"},
    {"ui"},
    {"__main__"},
)
FORBIDDEN_IN_THE_ENGINE = {"app", "gradio", "plotly"}


def imported(path: Path) -> Iterator[str]:
    """Dotted names of everything that a file imports, at its top or inside a function.

    The app imports its own files by relative names, since it is called `app` here and `hydralora_app` where it is
    installed; the engine by absolute ones.
    """
    package = module(path).split(".")[: -1 if path.name != "__init__.py" else None]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            if package[0] == "hydralora":
                assert not node.level, f"{path}: a relative import"
            elif package[0] == "app":
                assert node.level or not (node.module or "").startswith("app"), f"{path}: an import by the name app"
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{name.name}" for name in node.names)


def files(package: str) -> list[Path]:
    """All but what names the package as a whole."""
    whole = {ROOT / package / "__init__.py", ROOT / "app" / "editable" / "hydralora_app" / "__init__.py"}
    return [path for path in sorted((ROOT / package).rglob("*.py")) if path not in whole]


def room(name: str) -> str:
    """The file or folder of a package that a module is in: "tuner" for hydralora.tuner.layer."""
    return name.split(".")[1]


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def level(levels: tuple[set[str], ...], name: str) -> int:
    found = [i for i, names in enumerate(levels) if name in names]
    assert found, f"{name} has no level yet: give it one in {Path(__file__).name}"
    return found[0]


@pytest.mark.parametrize(("package", "levels"), [("hydralora", ENGINE), ("app", APP)])
def test_imports_run_downwards(package: str, levels: tuple[set[str], ...]) -> None:
    for path in files(package):
        mine = room(module(path))
        for name in imported(path):
            if name.split(".")[0] != package or room(name) == mine:
                continue
            assert level(levels, room(name)) < level(levels, mine), f"{module(path)} imports {name}"


def test_every_level_is_real() -> None:
    for package, levels in (("hydralora", ENGINE), ("app", APP)):
        assert {room(module(path)) for path in files(package)} == set().union(*levels)


def test_the_engine_knows_no_app() -> None:
    for path in (ROOT / "hydralora").rglob("*.py"):
        drawing = {"plotly"} if path.parent.name == "figures" else set()
        assert not (FORBIDDEN_IN_THE_ENGINE - drawing) & {name.split(".")[0] for name in imported(path)}, path


def test_actions_know_no_gradio() -> None:
    """Neither themselves nor through what they import of the app."""
    seen: set[Path] = set()
    waiting = list((ROOT / "app" / "actions").rglob("*.py"))
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in imported(path):
            assert name.split(".")[0] != "gradio", f"{path} imports gradio"
            parts = name.split(".")
            places = [ROOT.joinpath(*parts[:end]) for end in range(2, len(parts) + 1)]
            candidates = [file for place in places for file in (place.with_suffix(".py"), place / "__init__.py")]
            waiting += [found for found in candidates if parts[0] == "app" and found.exists()]
    assert len(seen) > 5
