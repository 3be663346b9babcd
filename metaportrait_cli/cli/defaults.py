"""Defaults of the user: a file `metaportrait.toml` in the working folder, and the environment.

    device = "cpu"          # for every command that has such an option

    [animate]
    size = 512
    skip_existing = true

The environment comes before the file: METAPORTRAIT_ANIMATE_SIZE=256. Options come before both.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metaportrait_cli.errors import UsageError

FILE = Path("metaportrait.toml")
PREFIX = "METAPORTRAIT"
NO_OPTIONS = (f"{PREFIX}_DEBUG", f"{PREFIX}_TEST_")


def default_map(group: Any, file: Path = FILE) -> dict[str, Any]:
    """The file's defaults as the command line takes them: by command, then by parameter.

    Raises `UsageError` for what no command has.
    """
    read = _read(file)
    common = {name: value for name, value in read.items() if not isinstance(value, dict)}
    own = {name: value for name, value in read.items() if isinstance(value, dict)}
    found, used = _of(group, common, own, where=str(file))
    unknown = set(common) - used
    if unknown:
        raise UsageError(f"{file}: no command has {', '.join(sorted(unknown))}")
    return found


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: can't be read as TOML: {error}") from None


def _of(
    group: Any, common: dict[str, Any], own: dict[str, Any], *, where: str
) -> tuple[dict[str, Any], set[str]]:
    for name in own:
        if name not in group.commands:
            raise UsageError(f"{where}: there is no command {name}")
    found, used = {}, set()
    for name, command in group.commands.items():
        wanted = own.get(name, {})
        if hasattr(command, "commands"):
            found[name], also = _of(command, common, wanted, where=f"{where} [{name}]")
            used |= also
            continue
        known = {param.name for param in command.params}
        for key in wanted:
            if key not in known:
                raise UsageError(f"{where} [{name}]: there is no option {key}")
        used |= known & set(common)
        found[name] = {key: common[key] for key in known & set(common)} | wanted
    return found, used


def readable(group: Any, file: Path = FILE) -> bool:
    """Whether `default_map` takes the file."""
    try:
        default_map(group, file)
    except UsageError:
        return False
    return True


def whence(error: Any) -> str:
    """Where a wrong value comes from that wasn't typed, to be added to what is said of it."""
    context: Any = getattr(error, "ctx", None)
    param: Any = getattr(error, "param", None)
    if context is None or param is None:
        return ""
    source = getattr(context.get_parameter_source(param.name), "name", "")
    if source == "ENVIRONMENT":
        return f"; it comes from {context.auto_envvar_prefix}_{param.name.upper()}"
    return f"; it comes from {FILE}" if source == "DEFAULT_MAP" else ""


def in_effect(file: Path = FILE) -> Iterator[tuple[str, str]]:
    """For `doctor`: each default that the user has set, and where. Raises `UsageError`."""
    for name, value in _read(file).items():
        for key, each in value.items() if isinstance(value, dict) else [("", value)]:
            yield f"{name} {key}".strip(), f"{each!r}, from {file}"
    for name, value in os.environ.items():
        if name.startswith(f"{PREFIX}_") and not name.startswith(NO_OPTIONS):
            yield name, f"{value!r}, from the environment"
