"""The colour and mark of each head in all figures; A is grey.

The colours follow Okabe and Ito's colour-blind safe set, each dark enough for a white ground and light enough for a
dark one: at least 3:1 on both. Marks tell the heads apart without colour.
"""

HEAD_COLOURS = ("#C46A00", "#2E8BC0", "#00875F", "#A0527F", "#8A7A00", "#C2410C", "#4F6BED", "#6B7280")
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
