"""The matrices of runs' adapters, read once for all sessions."""

from hydralora.analysis import Weights, read_weights

from ..services import Services
from ..services.cache import ResultKind

WEIGHTS = ResultKind[Weights]("weights", keep=8, of_adapter=True)


def why_no_adapter(services: Services, run_id: str | None) -> str:
    """Why a run has no adapter to draw, and what to do; "" if it has one."""
    if not run_id:
        return "No run is chosen. Train one first to see its A and heads here."
    run = services.run(run_id)
    if not (method := run.recipe().tuning).has_matrices:
        return f"This run was trained by {method.name}: it has no A and no heads. Choose a HydraLoRA or LoRA run."
    if not run.has_adapter:
        return "This run has saved no adapter yet. Its A and heads are drawn when training ends."
    return ""


def adapter_hash(services: Services, run_id: str) -> str | None:
    """sha256 of a run's adapter, from its state; results computed from the adapter are cached under it."""
    return services.run(run_id).state().adapter_hash


def adapter_weights(services: Services, run_id: str) -> Weights:
    """The A matrices and heads of a run's adapter.

    Raises:
        HydraError: the adapter can't be read.
    """
    run, key = services.run(run_id), adapter_hash(services, run_id)
    return services.cache.remember(
        WEIGHTS, run_id, key, compute=lambda: read_weights(run.adapter, model=run.recipe().model)
    )
