"""Programs of others that load adapters, run by `hydralora with`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hydralora.cli import app
from tests.tiny_model import adapt, shake, tiny_llama

PROGRAM = """
import json, sys
from peft import PeftModel
from transformers import AutoModelForCausalLM

def main():
    base, adapter, *others = sys.argv[1:]
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    layers = sum(type(module).__name__ == "HydraLoraLayer" for module in model.modules())
    print(json.dumps({"layers": layers, "others": others, "file": sys.argv[0], "name": __name__, "path": sys.path[0]}))
    sys.exit(3)

if __name__ == "__main__":
    main()
"""
WITH = ["hydralora.cli", "with"]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m ARGUMENTS` in a folder of the user's."""
    root = Path(__file__).parents[3]
    paths = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder with a program and an adapter."""
    shake(adapt(tiny_llama())).save_pretrained(tmp_path / "adapter")
    (tmp_path / "reader").mkdir()
    (tmp_path / "reader" / "__init__.py").touch()
    (tmp_path / "reader" / "__main__.py").write_text(PROGRAM, encoding="utf-8")
    (tmp_path / "alone.py").write_text(PROGRAM, encoding="utf-8")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("module", ["reader", "alone"])
def test_a_program_that_doesnt_import_us_loads_an_adapter(module: str, folder: Path, model_folder: Path) -> None:
    arguments = [module, str(model_folder), "adapter", "--json", "--workspace=x", "-h", "--", "a b"]
    plain, ours = run(folder, *arguments), run(folder, *WITH, *arguments)
    assert "KeyError: 'HYDRALORA'" in plain.stderr
    assert ours.returncode == 3, ours.stderr
    file = folder / "reader" / "__main__.py" if module == "reader" else folder / "alone.py"
    assert json.loads(ours.stdout) == {
        "layers": 6,
        "others": ["--json", "--workspace=x", "-h", "--", "a b"],
        "file": str(file),
        "name": "__main__",
        "path": str(folder),
    }


@pytest.mark.slow
def test_output_and_errors_are_the_programs(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('{"a": 1}', encoding="utf-8")
    for arguments in (["json.tool", "rows.json"], ["json.tool", "--help"], ["json.tool", "missing.json"]):
        plain, ours = run(tmp_path, *arguments), run(tmp_path, *WITH, *arguments)
        assert (ours.returncode, ours.stdout) == (plain.returncode, plain.stdout)
        assert plain.stderr.splitlines()[-1:] == ours.stderr.splitlines()[-1:]


@pytest.mark.parametrize("module", ["no_such_program", "no_such.program", "./alone.py", "hydralora.data", ".x", ""])
def test_a_module_that_cant_be_run_is_one_line(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])  # the folder that we are in is put first
    result = CliRunner().invoke(app, ["with", module])
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"config error: with: Python finds no module {module!r} that can be run." in result.stderr
    assert len(result.stderr.splitlines()) == 1
