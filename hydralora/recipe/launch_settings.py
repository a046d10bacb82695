"""Where a run is trained, and by how many processes."""

from typing import Any, Literal

from pydantic import Field, model_validator

from hydralora.recipe.section import Section


class LaunchSettings(Section):
    processes: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes on a machine that train together; each takes batch_size rows of every batch.",
    )
    nodes: int = Field(
        1, ge=1, le=64, description="Nodes of a SLURM job that train together, each with as many processes."
    )
    executor: Literal["local", "slurm"] = Field(
        "local", description="Where the run is trained: on this machine, or as a SLURM job (needs the extra slurm)."
    )
    slurm: dict[str, Any] | None = Field(
        None, description="Parameters of the SLURM job by submitit's names, such as slurm_partition and timeout_min."
    )
    fsdp: bool | str | list[str] | None = Field(
        None, description="fsdp of transformers' TrainingArguments, passed unchanged."
    )
    fsdp_config: dict[str, Any] | str | None = Field(
        None, description="fsdp_config of transformers' TrainingArguments: settings, or a JSON file."
    )
    deepspeed: dict[str, Any] | str | None = Field(
        None, description="deepspeed of transformers' TrainingArguments: settings, or a JSON file."
    )

    @property
    def all_processes(self) -> int:
        """Of all nodes."""
        return self.nodes * self.processes

    @model_validator(mode="after")
    def _nodes_are_of_a_cluster(self) -> "LaunchSettings":
        if self.nodes > 1 and self.executor == "local":
            raise ValueError("launch.nodes above 1 needs launch.executor=slurm; on one machine, use launch.processes")
        return self
