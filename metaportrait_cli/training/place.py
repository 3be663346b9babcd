"""Where a training runs: device, precision, and its part in several processes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from metaportrait_cli.devices import choose
from metaportrait_cli.errors import UsageError

SampleT = TypeVar("SampleT")
ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True)
class RunOptions:
    """Where and how long; no influence on what a step does."""

    device: str = "cpu"
    precision: str = "fp32"
    """fp32, bf16 (mixed), or auto: bf16 where it is fast."""
    compile: bool = False
    """Compile networks first: minutes, then faster steps."""
    workers: int = 0
    """Processes that make samples; 0 makes them in the loop."""
    minutes: float = math.inf
    """Stop, resumable, after this time."""
    stop_at: int | None = None
    """Stop, resumable, after this step."""
    log_every: int = 20
    judge_every: int = 1000
    save_minutes: float = 5.0


@dataclass(frozen=True)
class Place:
    """One process of a training. Under `torchrun` there are `world` of them, this is number
    `rank`; each takes other samples, and their gradients are averaged."""

    device: torch.device
    bf16: bool = False
    compile: bool = False
    workers: int = 0
    rank: int = 0
    world: int = 1

    @property
    def name(self) -> str:
        """The device, for the card."""
        on_gpu = self.device.type == "cuda"
        return torch.cuda.get_device_name(self.device) if on_gpu else self.device.type

    def autocast(self) -> Any:
        """Mixed precision, if the run is in it."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()

    def compiled(self, module: ModuleT) -> ModuleT:
        """The module, to be compiled at its first call if that is wished."""
        if self.compile:
            module.compile()
        return module

    def agreed(self, decision: bool) -> bool:
        """The first process's decision, or one would wait for ever for another's gradients."""
        if self.world == 1:
            return decision
        shared = torch.tensor(float(decision), device=self.device)
        torch.distributed.broadcast(shared, src=0)
        return bool(shared)

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Over all processes, in one message: networks are small here."""
        if self.world == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        parts = (flat / self.world).split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def batches(
        self,
        dataset: Dataset[SampleT],
        steps: range,
        *,
        count: int,
        collate: Callable[[list[SampleT]], Any] | None = None,
    ) -> Iterator[Any]:
        """This process's `count` samples of each step: they depend on its number alone."""
        of_a_step, first = count * self.world, self.rank * count
        starts = (step * of_a_step + first for step in steps)
        return iter(
            DataLoader(
                dataset,
                batch_sampler=[list(range(start, start + count)) for start in starts],
                num_workers=self.workers,
                collate_fn=collate,
                pin_memory=self.device.type == "cuda",
                # The loader draws from it; the run's own stays untouched.
                generator=torch.Generator().manual_seed(0),
            )
        )


@contextmanager
def taking_part(options: RunOptions) -> Iterator[Place]:
    """Where this process trains, together with the others if there are any. Raises `UsageError`."""
    name, dtype = choose(options.device, options.precision, half_on_cpu=True)
    if dtype == torch.float16:
        raise UsageError("training in fp16 is not stable: choose `precision` bf16 or fp32")
    device = torch.device(name)
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if world > 1 and name == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if world > 1:
        torch.distributed.init_process_group("nccl" if name == "cuda" else "gloo")
    try:
        yield Place(
            device=device,
            bf16=dtype == torch.bfloat16,
            compile=options.compile,
            workers=options.workers,
            rank=rank,
            world=world,
        )
        if world > 1:
            torch.distributed.barrier()  # the first one saves what all have learnt
    finally:
        if world > 1:
            torch.distributed.destroy_process_group()
