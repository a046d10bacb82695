"""One of several processes that train a sharded model, as torchrun starts it.

The first one writes the logits before and after each step, for LoRA and for HydraLoRA, to the file named.
"""

import os
import sys
from typing import Any

import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from peft.utils.other import fsdp_auto_wrap_policy
from safetensors.torch import save_file
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

from tests.tiny_model import MLP, adapt, shake, tiny_llama

STEPS = 3
RATE = 0.5


def tuned(method: str) -> Any:
    """A tiny model with an adapter that changes its output, the same in every process."""
    if method == "hydralora":
        return shake(adapt(tiny_llama(), router_bias=True)).train()
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules=MLP, init_lora_weights=False, task_type="CAUSAL_LM")
    return get_peft_model(tiny_llama(), config).train()


def trained(model: Any, ids: torch.Tensor) -> list[torch.Tensor]:
    """Logits (rows, tokens, vocabulary) before and after each step of SGD."""
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learnt, lr=RATE)
    logits = []
    for _ in range(STEPS):
        output = model(input_ids=ids, labels=ids, use_cache=False)
        logits.append(output.logits.detach().clone())
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return [*logits, model(input_ids=ids, use_cache=False).logits.detach()]


def fsdp1(model: Any) -> Any:
    """Sharded as `accelerate` does it for PEFT's models."""
    return FullyShardedDataParallel(
        model, auto_wrap_policy=fsdp_auto_wrap_policy(model), device_id=torch.device("cpu"), use_orig_params=False
    )


def fsdp2(model: Any) -> Any:
    """Sharded block by block."""
    for block in model.get_base_model().model.layers:
        fully_shard(block)
    return fully_shard(model)


def main(out: str) -> None:
    dist.init_process_group("gloo")
    rank, count = dist.get_rank(), dist.get_world_size()
    ids = batch()
    results = {}
    for method in ("lora", "hydralora"):
        for name, shard in (("fsdp1", fsdp1), ("fsdp2", fsdp2)):
            for step, mine in enumerate(trained(shard(tuned(method)), ids.chunk(count)[rank])):
                parts = [torch.empty_like(mine) for _ in range(count)]
                dist.all_gather(parts, mine.contiguous())
                results[f"{method}.{name}.{step}"] = torch.cat(parts)
    if rank == 0:
        save_file(results, out)
    dist.barrier()
    os._exit(0)  # FSDP leaves gloo's threads at work, which abort an ordinary end now and then


def batch() -> torch.Tensor:
    """(4, 10)"""
    return torch.randint(5, 261, (4, 10), generator=torch.Generator().manual_seed(0))


if __name__ == "__main__":
    main(sys.argv[1])
