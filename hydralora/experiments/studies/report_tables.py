"""A study's findings as tables of text: its arms, and what they measured of each task or component."""

from hydralora.experiments.studies.means import GroupKind, Mean
from hydralora.experiments.studies.measures import MEASURES
from hydralora.experiments.studies.report import Report


def table_rows(found: Report) -> list[list[str]]:
    """The report's table: the column names, then a row for each arm; columns that hold nothing are left out."""
    names = list(dict.fromkeys(name for line in found.table for name in line.measures))
    heads = ["arm", *[MEASURES[name].label for name in names], f"difference in {found.judged}", "verdict", "paper"]
    rows = [heads]
    for line in found.table:
        cells = [", ".join(filter(None, (line.arm, line.point)))]
        for name in names:
            mean, digits = line.measures.get(name), MEASURES[name].decimals
            spread = f" ± {mean.sd:.{digits}f}" if mean and mean.sd is not None and digits else ""
            cells.append(f"{mean.mean:,.{digits}f}{spread}" if mean else "-")
        compared = line.difference
        interval = f" [{compared.low:+.3f}, {compared.high:+.3f}]" if compared and compared.low is not None else ""
        cells.append(f"{compared.mean:+.3f}{interval}" if compared else "reference" if not line.versus else "-")
        cells.append(compared.verdict if compared else "")
        cells.append("" if line.paper is None else f"{line.paper:g}")
        rows.append(cells)
    used = [i for i in range(len(heads)) if any(row[i] for row in rows[1:])] if found.table else [0]
    return [[row[i] for i in used] for row in rows]


def report_table(found: Report) -> str:
    """The report as text."""
    rows = table_rows(found)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    failed = [f"Failed: {name}: {why}" for name, why in found.failed.items()]
    return "\n".join([found.title, found.question, "", *table, "", *failed, found.verdict])


def group_rows(found: Report, kind: GroupKind) -> list[list[str]]:
    """A row for each task or component, with each arm's loss and exact match there, after the column names.

    Empty where there are fewer than two: their numbers are the arms' own.
    """
    arms = {", ".join(filter(None, (line.arm, line.point))): line for line in found.table}
    names = list(dict.fromkeys(group.name for line in arms.values() for group in line.groups if group.kind == kind))
    if len(names) < 2:
        return []
    rows = [[kind, *arms]]
    for name in names:
        measured = [
            next((group.measures for group in line.groups if (group.kind, group.name) == (kind, name)), {})
            for line in arms.values()
        ]
        rows.append([name, *("-" if not each else _loss_and_match(each) for each in measured)])
    return rows


def _loss_and_match(measures: dict[str, Mean]) -> str:
    loss, match = (f"{measures[name].mean:.3f}" if name in measures else "-" for name in ("loss", "exact_match"))
    return f"{loss} / {match}"
