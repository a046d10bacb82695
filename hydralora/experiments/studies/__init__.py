"""Studies: questions that are answered by many ordinary runs, each declared in one file (`declared/`)."""

from hydralora.runs.run import Label

TAG = "study"


def study_label(study: str, name: str, title: str) -> Label:
    """The label of a run of a study.

    Args:
        study: the study's id.
        name: what it runs, for people.
    """
    return Label(name, f"One of the runs of the study {title!r}.", (TAG, study))


def study_of(label: Label) -> str | None:
    """The id of the study that a run belongs to, from its label; None if it belongs to none."""
    kind, *rest = label.tags or ("",)
    return rest[0] if kind == TAG and rest else None
