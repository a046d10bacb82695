"""Components of rows in any language: tokens, terms, their number, and files in several scripts."""

import json
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score
from typer.testing import CliRunner

from hydralora.cli import app
from hydralora.components import Clusters, cluster
from hydralora.components.describe import class_terms
from hydralora.components.features import fit_features
from hydralora.components.phrases import phrases
from hydralora.components.scripts import MIXED, script_note, script_of, script_shares
from hydralora.components.tokens import characters, normalized, tokens, words
from tests.multilingual import LANGUAGES, rows_of_kinds, sets_of_kinds

SPACED = ("ar", "bn", "he", "hi", "ko", "vi")


def found(code: str, kinds: str, rows: int = 150, seed: int = 0) -> tuple[Clusters, float]:
    texts, tasks = rows_of_kinds(code, kinds, rows, seed)
    clusters = cluster(texts, seed=seed)
    return clusters, float(adjusted_rand_score(tasks, clusters.labels))


@pytest.mark.parametrize("code", LANGUAGES)
def test_three_kinds_are_found_in_every_language(code: str) -> None:
    for kinds in sets_of_kinds(code)[::2]:  # tests.benchmarks.languages has the others
        clusters, ari = found(code, kinds)
        assert clusters.k == 3, kinds
        assert ari >= 0.8, kinds


@pytest.mark.parametrize("code", ["zh", "ko", "en"])
def test_their_number_is_the_same_for_more_rows(code: str) -> None:
    clusters, ari = found(code, "everyday", rows=600, seed=1)
    assert (clusters.k, ari >= 0.8) == (3, True)
    assert clusters.choice is not None
    assert clusters.choice.merged
    assert f"the curve's elbow is {clusters.choice.elbow}" in clusters.choice.sentence


def test_new_rows_go_to_their_kind() -> None:
    clusters, _ = found("th", "everyday")
    texts, tasks = rows_of_kinds("th", "everyday", 90, seed=7)
    assert adjusted_rand_score(tasks, clusters.assign(texts)) >= 0.8
    rows, _ = rows_of_kinds("th", "everyday", 150)
    assert clusters.assign(rows) == clusters.labels.tolist()


@pytest.mark.parametrize("code", SPACED)
def test_terms_are_whole_words(code: str) -> None:
    """Each occurs in a row with no letter or mark before or behind it."""
    clusters, _ = found(code, "everyday")
    texts = normalized("\n".join(rows_of_kinds(code, "everyday", 150)[0]))
    for component in clusters.components:
        assert component.terms
        for term in component.terms:
            places = [match.span() for match in re.finditer(re.escape(term), texts)]
            assert any(not _goes_on(texts[first - 1]) and not _goes_on(texts[last]) for first, last in places), term


def _goes_on(character: str) -> bool:
    return unicodedata.category(character)[0] in "LM"


@pytest.mark.parametrize("code", ["zh", "ja", "th", "km"])
def test_terms_without_spaces_are_no_single_characters(code: str) -> None:
    clusters, _ = found(code, "everyday")
    texts = normalized("\n".join(rows_of_kinds(code, "everyday", 150)[0]))
    for component in clusters.components:
        assert len(component.terms) >= 3
        for term in component.terms:
            assert term in texts
            assert len(characters(term)) >= 2
            assert unicodedata.category(term[0])[0] == "L"
            places = (match.end() for match in re.finditer(re.escape(term), texts))
            assert any(unicodedata.category(texts[end])[0] != "M" for end in places), term
        pairs = [(a, b) for a in component.terms for b in component.terms if a != b]
        assert not any(a in b for a, b in pairs)


def test_a_phrase_is_no_fragment_of_a_longer_one() -> None:
    free = phrases([f"{before}北京大学{behind}" for before in "天地人" for behind in "日月星"])
    assert "北京大学" in free
    assert not {"北京", "京大", "大学", "北京大", "京大学", "天北京", "大学日"} & set(free)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("अंग्रेज़ी में है", ["अंग्रेज़ी", "में", "है"]),
        ("தமிழ் மொழி", ["தமிழ்", "மொழி"]),
        ("مُدَرِّس جديد", ["مُدَرِّس", "جديد"]),
        ("می\u200cروم", ["می\u200cروم"]),
        ("שָׁלוֹם", ["שָׁלוֹם"]),
        ("İZMİR", ["izmir"]),
        ("ＡＢＣ", ["abc"]),
    ],
)
def test_words_keep_their_marks(text: str, expected: list[str]) -> None:
    assert words(text) == tokens(text) == [normalized(word) for word in expected]


def test_equal_text_has_equal_tokens() -> None:
    for text in ("Tiếng Việt, café", "한국어로 번역", "ガラス", "น้ำ ทำ"):
        assert tokens(text) == tokens(unicodedata.normalize("NFD", text))
    assert normalized("น้ำ") == "น้ำ"


def test_a_vowel_sign_stays_at_its_letter() -> None:
    assert "".join(characters("เป็นภาษา")) == "เป็นภาษา"
    assert characters("เป็นภาษา") == ["เป็", "น", "ภา", "ษา"]
    assert not any(unicodedata.category(token[0])[0] == "M" for token in tokens("แปลเป็นภาษาอังกฤษ ខ្មែរ မြန်မာ"))


def test_ascii_text_has_the_tokens_of_any_text() -> None:
    text = "Don't add 3.5 + x_2 (or A1)!"
    assert (
        tokens(text) == tokens(f"{text} é")[:-1] == ["don", "'", "t", "add", "3", ".", *"5 + x_2 ( or a1 ) !".split()]
    )


def test_plain_tfidf_reads_them_too() -> None:
    encoder, _ = fit_features(["แปลเป็นภาษาไทย", "翻译成英文"], "tfidf", 0, None)
    assert encoder(["翻译"]).sum() > 0


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("What is this?", "Latin"),
        ("naïve café", "Latin"),
        ("请用 Python 写一个程序", "Han"),
        ("英語に翻訳してください", "Japanese"),
        ("Что это?", "Cyrillic"),
        ("Translate into English: 火车明天九点开", MIXED),
        ("3 + 4 = ?", None),
    ],
)
def test_the_script_of_a_row(text: str, script: str | None) -> None:
    assert script_of(text) == script


def test_rows_in_several_scripts_are_said_to_be_so() -> None:
    english, chinese = (rows_of_kinds(code, "office", 60)[0] for code in ("en", "zh"))
    note = cluster(english + chinese[:40]).note
    assert note == (
        "The rows are in several scripts: 60% Latin, 40% Han. Components may follow the language rather than the task."
    )
    assert cluster(english + chinese[:5]).note == ""
    assert cluster(english).note == ""


def test_a_task_between_two_languages_is_no_mixture() -> None:
    chinese = rows_of_kinds("zh", "office", 30)[0]
    assert (
        script_note(script_shares([f"Translate into English: {row}" for row in chinese] + ["What is this?"] * 60)) == ""
    )


def test_the_command_says_so(tmp_path: Path) -> None:
    rows = [row for code in ("en", "ru") for row in rows_of_kinds(code, "office", 30)[0]]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"instruction": row, "output": "x"}) + "\n" for row in rows), encoding="utf-8")
    said = CliRunner().invoke(app, ["clusters", str(file)]).stdout
    assert "several scripts: 50% Latin, 50% Cyrillic" in said
    answer = json.loads(CliRunner().invoke(app, ["clusters", str(file), "--json"]).stdout)
    assert answer["scripts"] == {"Latin": 0.5, "Cyrillic": 0.5}
    assert "several scripts" in answer["note"]


def test_a_component_without_letters_has_terms_in_any_language() -> None:
    assert class_terms(["1 + 2", "翻译"], [np.array([0]), np.array([1])])[0]


def test_three_plain_skills_stay_three() -> None:
    """Two of them share more words than either does with the third; there are too few groups to be wordings."""
    skills = ("name a fruit, ripe fruit {}", "which tool repairs engine {}", "city far north, winter city {}")
    codes = [chr(97 + i % 26) + chr(97 + i * 7 % 26) for i in range(40)]
    clusters = cluster([skill.format(code) for code in codes for skill in skills])
    assert adjusted_rand_score([i % 3 for i in range(120)], clusters.labels) == 1
