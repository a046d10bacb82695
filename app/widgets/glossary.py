"""The field's terms: each is explained where it stands, on hover, focus or touch (glossary.js)."""

import html
import re

TERMS = {
    "adapter": "What training adds to the base model: the small matrices A and B, and the router.",
    "adjusted Rand index": "How alike two groupings of the same rows are: 1 for the same groups, 0 for chance.",
    "base model": "The language model as it was before this training. Its own weights never change.",
    "component": "A group of rows that are alike, found in the data. Their number sets the number of heads.",
    "cosine": "How alike two directions are: 1 for the same, 0 for a right angle, -1 for opposite ones.",
    "exact match": "The share of held-out rows whose answer is the expected one, token for token.",
    "gate": "The weight of a head for one token, from 0 to 1. A token's gates add up to 1.",
    "head": "A part of the adapter that can learn a skill of its own: one of several matrices B, which share A.",
    "held-out": "Kept out of the training, so that scores tell about rows that the model has not learnt.",
    "HydraLoRA": "Fine-tuning with one shared matrix A, several heads B, and a router that mixes them for each token.",
    "LoRA": "Fine-tuning with two small matrices, A and B, beside each frozen one. It has one B and no router.",
    "loss": "How unexpected the right answers are to the model, in nats per token: lower is better.",
    "normalised mutual information": "How much one grouping tells about another: 1 for everything, 0 for nothing.",
    "PCA": "Principal components: a flat picture along the directions in which the points differ most.",
    "perplexity": "In t-SNE, about how many neighbours each point keeps close.",
    "rank": "The smaller side r of A and B: how many directions of change an adapter has in a layer.",
    "router": "A small matrix that reads a token's state and gives each head its gate.",
    "silhouette": "From -1 to 1: how much nearer rows are to their own component than to the next one.",
    "SSE": "Sum of squared errors: squared distances of the rows from the centre of their component.",
    "t-SNE": "A flat picture that keeps near points near. Distances between far groups mean little.",
    "token": "A piece of text that the model reads or writes at once: a word, a part of one, or a mark.",
    "UMAP": "A flat picture that keeps near points near. Distances between far groups mean little.",
}
_MEANINGS = {term.lower(): meaning for term, meaning in TERMS.items()}
_LONGEST_FIRST = "|".join(re.escape(term) for term in sorted(TERMS, key=len, reverse=True))
_TERM = re.compile(rf"(?<![\w-])({_LONGEST_FIRST})(s?)(?![\w-])", re.IGNORECASE)


def with_terms(text: str) -> str:
    """Text as HTML: escaped, and the first mention of each term with its meaning. A keyboard reaches the terms."""
    parts, end, seen = [], 0, set()
    for match in _TERM.finditer(text):
        term = match[1].lower()
        if term in seen:
            continue
        seen.add(term)
        meaning = html.escape(_MEANINGS[term])
        parts += [html.escape(text[end : match.start()])]
        parts += [f'<dfn tabindex="0" data-meaning="{meaning}">{match[0]}</dfn>']
        end = match.end()
    return "".join([*parts, html.escape(text[end:])])
