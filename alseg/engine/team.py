"""One run on several devices: `torchrun --nproc-per-node N -m alseg run ...`.

The process of rank 0 leads: it alone writes, asks the oracle and decides what comes next. The others follow
its orders (train, ask, score) and take their share of each. A process that was started alone is a team of
one, for which nothing here costs anything.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import inspect
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from alseg.calling import in_words
from alseg.errors import Unreachable, UserMistake

T = TypeVar("T")
BACKENDS = ("gloo/", "NCCL", "ProcessGroup")  # what torch's plain RuntimeErrors of a team are known by
PATIENCE = timedelta(days=30)  # for which followers wait while a person labels


class Team:
    """This process's place in a team: `rank` of `size`, and what its members do together."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This member's part of what is to be done."""
        return items[self.rank :: self.size] if self.size > 1 else items

    def check_batches(self, size: int) -> None:
        """UserMistake where training batches of `size` do not hold two images for each member."""
        least = 2 * self.size
        if size < least:
            raise UserMistake(
                f"{self.size} processes need batches of {least} images or more, two for each: give fewer processes or "
                f"-o train.batch_size={least}."
            )

    def check_terms(self, terms: Sequence[Any]) -> None:
        """UserMistake where several processes would train with terms, whose losses are of a whole batch."""
        if terms and self.size > 1:
            raise UserMistake(
                "Training with terms takes one process: start the run without torchrun, or without terms."
            )

    def tell(self, *order: Any) -> None:
        """The leader's order to the followers, of what JSON holds."""
        if self.size > 1 and self.leads:
            self._from(0, order)

    def told(self) -> list[Any]:
        """A follower's next order."""
        order: list[Any] = self._from(0, None)
        return order

    def gathered(self, mine: T) -> list[T]:
        """What each member found, of what JSON holds, by rank; everybody gets all."""
        if self.size == 1:
            return [mine]
        return [self._from(rank, mine if rank == self.rank else None) for rank in range(self.size)]

    def total(self, part: Tensor) -> Tensor:
        """The sum of the members' tensors."""
        if self.size > 1:
            with together():
                dist.all_reduce(part)
        return part

    def mean(self, tensors: Iterable[Tensor]) -> None:
        """Set the members' tensors to their mean."""
        if self.size > 1:
            with together():
                for tensor in tensors:
                    dist.all_reduce(tensor)
                    tensor /= self.size

    @torch.no_grad()
    def equal(self, model: Any) -> None:
        """Give every member the leader's model."""
        if self.size > 1:
            with together():
                for tensor in model.state_dict().values():
                    dist.broadcast(tensor, 0)

    def wrapped(self, step: nn.Module, device: torch.device) -> nn.Module:
        """A module whose backward pass averages the gradients over the members."""
        if self.size == 1:
            return step
        places = [torch.cuda.current_device()] if device.type == "cuda" else None
        # each member's norms keep their own statistics until `mean`; the option was renamed in torch 2.15
        names = inspect.signature(DistributedDataParallel).parameters
        option = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
        options: Any = {option: False, "device_ids": places, "find_unused_parameters": True}
        return DistributedDataParallel(step, **options)

    def _from(self, rank: int, value: Any) -> Any:
        """What one member says, as JSON."""
        words = bytearray(json.dumps(value).encode()) if rank == self.rank else bytearray()
        length = torch.tensor([len(words)])
        with together():
            dist.broadcast(length, rank)
            text = torch.frombuffer(words, dtype=torch.uint8) if words else torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(text, rank)
        return value if rank == self.rank else json.loads(text.numpy().tobytes())


ALONE = Team()


def is_of_team(error: BaseException) -> bool:
    """Whether an error is torch.distributed's: such as where another process has died."""
    if isinstance(error, dist.DistError):
        return True
    says = isinstance(error, RuntimeError) and any(name in str(error) for name in BACKENDS)
    return says and dist.is_initialized()


@contextlib.contextmanager
def together() -> Iterator[None]:
    """What all members do inside; Unreachable where it fails since one cannot be reached any more."""
    try:
        yield
    except RuntimeError as error:
        if not is_of_team(error):
            raise
        raise Unreachable(
            "Another process of this run has ended or cannot be reached: see what it said, start all again by "
            f"torchrun, and `alseg resume` goes on from the last phase. Here that is {in_words(error)}."
        ) from error


def join() -> Team:
    """The team that torchrun made, or one of this process alone."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    if not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
        atexit.register(_leave)
    return Team(dist.get_rank(), dist.get_world_size())


def _leave() -> None:
    """End the process group, after all that holds it: gloo's threads abort a process that ends with them."""
    gc.collect()
    dist.destroy_process_group()
