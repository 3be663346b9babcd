"""Networks in safetensors files: written whole or not at all, read strictly or not at all.

One file may hold several networks. Tensor names begin with the part (``warping.``); the metadata
holds the architecture's name and the parts' configs as JSON, so a file says how to build it.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.media.outputs import atomic_output
from metaportrait_cli.networks.network import Network
from metaportrait_cli.weights.tensors import opened, read_header

KEYS_IN_MESSAGE = 3
LARGEST_SETTING = 8192
"""A config from elsewhere could ask for a network that takes hours to build."""

NetworkT = TypeVar("NetworkT", bound=Network)
Shapes = Mapping[str, Sequence[int]]


def save_networks(
    path: Path,
    parts: Mapping[str, Network],
    *,
    architecture: str,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write networks (each with a ``config`` dataclass) to one file, replacing it atomically."""
    tensors = {
        f"{part}.{key}": value.detach().contiguous()
        for part, network in parts.items()
        for key, value in network.state_dict().items()
    }
    configs = {part: vars(network.config) for part, network in parts.items()}
    metadata = {
        **(notes or {}),
        "architecture": architecture,
        "config": json.dumps(configs, sort_keys=True),
    }
    save_tensors(path, tensors, metadata)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, whole or not at all; a full disk is an `OSError` with its name."""
    with atomic_output(path) as partial:
        try:
            save_file(dict(tensors), partial, dict(metadata))
        except SafetensorError as error:
            full = "No space left" in str(error) or "too large" in str(error)
            raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(path)) from None


def load_network(
    network_type: type[NetworkT],
    path: Path,
    *,
    part: str,
    device: torch.device | str = "cpu",
) -> NetworkT:
    """Build the network that ``part`` of the file describes, with weights from the file alone.

    Raises WeightsError naming missing and unexpected tensors and wrong shapes.
    """
    header = read_header(path)
    if part not in header.configs:
        held = ", ".join(sorted(header.configs))
        raise WeightsError(f"{path}: holds no {part!r} network, only {held}")
    network = build_empty(network_type, header.configs[part], where=f"{path} ({part})")
    prefix = f"{part}."
    found = {
        key.removeprefix(prefix): shape
        for key, shape in header.shapes.items()
        if key.startswith(prefix)
    }
    wanted = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    check_tensors(found=found, wanted=wanted, where=f"{path} ({part})")
    with opened(path, device=str(device)) as file:
        state = {key: file.get_tensor(prefix + key) for key in wanted}
    _check_values(state, like=network.state_dict(), where=f"{path} ({part})")
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval()


def build_empty(network_type: type[NetworkT], fields: Mapping[str, Any], *, where: str) -> NetworkT:
    """The network on the meta device: shapes without memory."""
    try:
        config = network_type.config_type(**{key: _setting(v) for key, v in fields.items()})
        with torch.device("meta"):
            return network_type(config)
    except (ArithmeticError, AttributeError, LookupError) as error:
        raise WeightsError(f"{where}: its config does not fit this version ({error})") from None
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"{where}: its config does not fit this version: {reason}") from None


def check_tensors(*, found: Shapes, wanted: Shapes, where: str) -> None:
    """Raise WeightsError unless both have the same keys with the same shapes."""
    missing = sorted(wanted.keys() - found.keys())
    unexpected = sorted(found.keys() - wanted.keys())
    misshapen = [
        f"{key} is {_shape(found[key])}, not {_shape(wanted[key])}"
        for key in sorted(found.keys() & wanted.keys())
        if tuple(found[key]) != tuple(wanted[key])
    ]
    problems = [
        f"{len(keys)} {what}: {_abbreviated(keys)}"
        for what, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of wrong shape", misshapen),
        )
        if keys
    ]
    if problems:
        raise WeightsError(f"{where}: weights do not fit the network; {'; '.join(problems)}")


def _check_values(state: Mapping[str, Tensor], *, like: Mapping[str, Tensor], where: str) -> None:
    """Raise WeightsError for numbers of another kind, and for such as spoil every picture."""
    for key, value in state.items():
        if value.is_floating_point() != like[key].is_floating_point():
            raise WeightsError(f"{where}: {key} holds {value.dtype}, not {like[key].dtype}")
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise WeightsError(f"{where}: {key} holds NaN or infinity; convert or train it again")


def _setting(value: Any) -> Any:
    """A value of a config: JSON has lists where configs have tuples."""
    if isinstance(value, list):
        return tuple(_setting(item) for item in value)
    if isinstance(value, int | float) and not abs(value) <= LARGEST_SETTING:
        raise ValueError(f"{value} is more than any network here has of anything")
    return value


def _abbreviated(items: Sequence[str]) -> str:
    rest = len(items) - KEYS_IN_MESSAGE
    shown = ", ".join(items[:KEYS_IN_MESSAGE])
    return f"{shown}, and {rest} more" if rest > 0 else shown


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a number"


def tensors_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all that a network stores."""
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def assign(network: NetworkT, state: Mapping[str, Tensor], *, where: str) -> NetworkT:
    """Give a (meta) network its weights, strictly."""
    check_tensors(
        found={key: value.shape for key, value in state.items()},
        wanted=tensors_of(network),
        where=where,
    )
    _check_values(state, like=network.state_dict(), where=where)
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval()
