"""What the next log of a training will use of the steps since the last one; checkpoints keep it."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hydralora.files import read_json_object, write_json
from hydralora.training.parallel import Processes

UNLOGGED = "unlogged.json"  # in a checkpoint


@dataclass(frozen=True)
class Unlogged:
    """Sums of the losses of the steps since the last log, by one process or by all.

    Attributes:
        answers: of the losses on the answers.
        added: of the weighted losses besides those, divided as the steps' losses are.
        logged: the step of the last log.
    """

    answers: torch.Tensor | float = 0.0
    added: torch.Tensor | float = 0.0
    logged: int = 0

    @classmethod
    def of_checkpoint(cls, checkpoint: Path, processes: Processes, step: int) -> "Unlogged":
        """Those that a checkpoint at this step keeps; the first process goes on with the sums of all."""
        saved = read_json_object(checkpoint / UNLOGGED)
        sums = cls(saved.get("answers") or 0.0, saved.get("added") or 0.0, saved.get("logged", step))
        return sums if processes.is_first else cls(logged=sums.logged)

    def of_all(self, processes: Processes) -> "Unlogged":
        """The sums of all processes, which take part."""
        if processes.count == 1:
            return self
        sums = torch.tensor([float(self.answers), float(self.added)], dtype=torch.float64)
        answers, added = processes.total(sums).tolist()
        return replace(self, answers=answers, added=added)

    def save(self, checkpoint: Path) -> None:
        values = {"answers": float(self.answers), "added": float(self.added), "logged": self.logged}
        write_json(checkpoint / UNLOGGED, values)
