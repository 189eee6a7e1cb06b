"""The weights of a model or training term as they are stored: by name, in safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from alseg.calling import described
from alseg.engine.calls import called, told
from alseg.errors import AlsegError


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """What is stored of it, by name; AlsegError where something of it cannot be."""
    name = told(module).name
    state: dict[str, Any] = called(name, module.state_dict, "state_dict")
    for key, value in state.items():
        if isinstance(value, UninitializedParameter | UninitializedBuffer):
            raise AlsegError(f"{name} has {key!r} of a lazy layer, which has no shape yet: give its number of inputs.")
        if not _is_storable(value):
            raise AlsegError(
                f"{name} has {described(value)} as {key!r} in its state_dict, which safetensors does not store: keep "
                "it in a parameter or buffer, a dense tensor, and do without get_extra_state."
            )
    return state


def stored(module: nn.Module, facts: Mapping[str, Any]) -> bytes:
    """Its weights as a file of safetensors, with facts about its training as metadata."""
    # copied, since safetensors refuses tensors that share memory, as those of a layer in two places do
    tensors = {key: value.detach().to("cpu", copy=True).contiguous() for key, value in weights_of(module).items()}
    return save(tensors, {"training": json.dumps(dict(facts))})


def _is_storable(value: Any) -> bool:
    try:
        save({"": value.detach().new_empty(0)})
    except Exception:  # for each that it does not take safetensors raises another
        return False
    return True
