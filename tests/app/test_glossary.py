"""Terms are explained where they stand, and a text stays the text that it was."""

import html
import re

from hypothesis import given
from hypothesis import strategies as st

from app.page.text import say
from app.widgets.glossary import TERMS, with_terms

PIECES = st.sampled_from([*TERMS, "heads", "Gate", "<b>", "&amp;", '"', "ahead", "loss-free", " ", ", "])


@given(st.lists(PIECES, max_size=12).map("".join))
def test_a_text_with_terms_is_still_that_text(text: str) -> None:
    shown = with_terms(text)
    assert html.unescape(re.sub(r"</?dfn[^>]*>", "", shown)) == text
    assert re.sub(r'<dfn tabindex="0" data-meaning="[^"<>]*">[\w -]+</dfn>', "", shown).count("<") == 0


def test_the_first_mention_of_each_term_is_explained() -> None:
    marked = re.findall(r"<dfn[^>]*>([^<]*)</dfn>", say("Gates and heads: a gate for each head. Ahead, HydraLoRA."))
    assert marked == ["Gates", "heads", "HydraLoRA"]
    for term in TERMS:
        assert re.findall(r"<dfn[^>]*>([^<]*)</dfn>", with_terms(f"The {term}.")) == [term]
