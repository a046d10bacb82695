"""The colour and mark of each head in all figures (Okabe and Ito's colour-blind safe set); A is grey."""

HEAD_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#3D3D3D")
HEAD_MARKS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "bowtie")
NEUTRAL = ("#4C78A8", "#B279A2", "#54A24B", "#9D755D", "#72B7B2", "#BAB0AC")  # for everything but heads
A_COLOUR = "#7A7A7A"
A_MARK = "x"


def head_colour(head: int) -> str:
    """Colour of head 0, 1, ...; beyond eight heads colours repeat, and labels distinguish them."""
    return HEAD_COLOURS[head % len(HEAD_COLOURS)]


def head_mark(head: int) -> str:
    return HEAD_MARKS[head % len(HEAD_MARKS)]


def head_name(head: int) -> str:
    """Heads are counted from 1 on screen."""
    return f"head {head + 1}"
