"""Answers as files: whole when they come back, refused when they are something else, and replayed without a network."""

import json
from pathlib import Path
from typing import Any

import pytest

from hydralora import ConfigError
from hydralora.figures import write_replay
from hydralora.inference.generation import Sampling, gated_modules, generate
from hydralora.inference.traces import AnswerSource, Trace, load_trace, make_trace, save_trace
from hydralora.tuner.steering import Steering
from tests.tiny_model import adapt, shake, tiny_llama

SCRIPT = "</script><img src=x onerror=alert(1)>"
ASK = [{"role": "user", "content": SCRIPT}]


@pytest.fixture(scope="module")
def trace(tokenizer: Any) -> Trace:
    model = shake(adapt(tiny_llama(), num_heads=3))
    sampling, steering, read = Sampling(8, 0.7, 0.9, 3), Steering(mute=(1,)), []  # type: ignore[var-annotated]
    tokens = list(generate(model, tokenizer, ASK, sampling, steering=steering, alternatives=4, on_prompt=read.extend))
    source = AnswerSource("tiny", run="a run", adapter_hash="0" * 64, steering=steering)
    return make_trace(tokens, read, gated_modules(model), ASK, sampling, source)


def test_a_trace_comes_back_whole(trace: Trace, tmp_path: Path) -> None:
    save_trace(trace, tmp_path / "t.json")
    assert load_trace(tmp_path / "t.json") == trace
    assert trace.prompt
    assert all(row[1] == 0 for token in trace.tokens for row in token.gates)
    for token in trace.tokens:
        shares = [one.probability for one in token.alternatives]
        assert len(shares) == 4
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) <= 1 + 1e-5


def test_no_path_of_this_machine_is_in_a_trace(tmp_path: Path) -> None:
    trace = make_trace([], [], [], ASK, Sampling(), AnswerSource(str(tmp_path / "models" / "mine")))
    assert trace.base == "mine"


def changed(trace: Trace, change: Any) -> str:
    data = json.loads(trace.model_dump_json())
    change(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: data.pop("tokens"), "tokens is missing"),
        (lambda data: data["tokens"][-1].update(gates=[]), "some tokens have gates and others have none"),
        (lambda data: data.update(version=2), "version"),
        (lambda data: data.update(more=1), "more"),
        (lambda data: data["tokens"][0].update(gates=[[0.5, 0.1, 0.1]] * 6), "don't sum to 1"),
        (lambda data: data["tokens"][0].update(gates=[[1.0, 0.0, 0.0]]), "1 modules, but 6"),
        (lambda data: data["tokens"][0].update(gates=[[1.0]] * 6), "equally many"),
        (lambda data: data["tokens"][0].update(text=3), "text"),
        (lambda data: data["tokens"][0]["alternatives"][0].update(probability=1.5), "probability"),
    ],
)
def test_what_is_no_trace_is_refused(trace: Trace, tmp_path: Path, change: Any, told: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(changed(trace, change), encoding="utf-8")
    with pytest.raises(ConfigError, match=told):
        load_trace(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b'{"kind": "x"}', b"[" * 100_000])
def test_any_other_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="not a trace"):
        load_trace(path)
    with pytest.raises(ConfigError, match="can't be read"):
        load_trace(tmp_path / "nothing.json")


def test_a_replayed_page_holds_texts_as_data_alone(trace: Trace, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write_replay(page, [("Tuned", trace.whose, trace.model_dump_json())])
    text = page.read_text(encoding="utf-8")
    assert "<img" not in text
    assert text.count("</script>") == 2
    data = text.partition('<script id="answers" type="application/json">')[2].partition("</script>")[0]
    (answer,) = json.loads(data)
    assert answer["name"] == "Tuned"
    assert Trace.model_validate(answer["trace"]) == trace
    assert "src=" not in text.replace(json.dumps(SCRIPT)[1:-1].replace("<", "\\u003c"), "").replace(data, "")
