"""The processes of a data-parallel training, as torchrun and accelerate start them.

Every process draws the same curriculum and takes the same decisions; the first one alone writes.
"""

from __future__ import annotations

import os
from typing import Any, TypeVar

T = TypeVar("T")


def rank() -> int:
    """Return the number of this process; 0 where there is one process."""
    return int(os.environ.get("RANK", "0")) if world_size() > 1 else 0


def world_size() -> int:
    """Return the number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join() -> None:
    """Meet the other processes, and take the GPU that is this one's; nothing for one process."""
    if world_size() == 1:
        return
    import torch
    from accelerate import PartialState

    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    PartialState(cpu=not on_gpu, **({} if on_gpu else {"backend": "gloo"}))


def from_first(value: T) -> T:
    """Return the value that the first process has, in all of them."""
    if world_size() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]  # type: ignore[no-any-return]


def gathered(values: list[Any]) -> list[Any]:
    """Return the lists of all processes as one, in the order of the processes."""
    if world_size() == 1:
        return values
    from accelerate.utils import gather_object

    return list(gather_object(values))


def wait_for_all() -> None:
    """Wait until every process has come here."""
    if world_size() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()
