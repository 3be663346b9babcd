"""Every help text of every command, read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from metaportrait_cli.cli.app import app
from metaportrait_cli.cli.options import PANELS, known_weights

ROOT = Path(__file__).parents[2]
runner = CliRunner()


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands with their names, and the parameters they declare."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


ALL = dict(commands(typer.main.get_command(app)))


def shown(path: tuple[str, ...]) -> str:
    done = runner.invoke(app, [*path, "--help"], terminal_width=100)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_nothing_of_a_help_text_is_lost(path: tuple[str, ...]) -> None:
    text = shown(path)
    flat, bare = " ".join(text.split()), "".join(text.split())
    for param in ALL[path].params:
        assert param.help, param.name
        assert "".join(param.help.split()) in bare, param.name
        for option in (*param.opts, *param.secondary_opts):
            assert not option.startswith("-") or option in flat
        default = param.default
        if isinstance(default, (int, float, str)) and not isinstance(default, bool):
            assert f"default: {default}" in flat, param.name
    assert "<bool>" not in text
    assert not re.search(r"<(path|str|int|float|list)", text)
    assert not re.search(r" [.;]( |$)", flat)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_panels_and_examples(path: tuple[str, ...]) -> None:
    text = shown(path)
    headings = re.findall(r"^(\w+):$", text, re.MULTILINE)
    assert headings == [*sorted(headings[:-1], key=PANELS.index), "Examples"]
    examples = text.split("Examples:\n")[1].strip().splitlines()
    own = [words for e in examples if (words := e.split())[1:][: len(path)] == [*path]]
    assert own
    for words in own:
        known = {o for param in ALL[path].params for o in (*param.opts, *param.secondary_opts)}
        assert {word for word in words if re.fullmatch(r"--?[a-z-]+", word)} <= known


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_the_page_of_commands_has_their_examples(path: tuple[str, ...]) -> None:
    page = (ROOT / "docs" / "commands.md").read_text()
    section = page.split(f"## metaportrait {' '.join(path)}\n")[1].split("\n## ")[0]
    assert ALL[path].epilog in section


def test_the_groups_show_their_commands() -> None:
    text = " ".join(runner.invoke(app, ["--help"]).output.split())
    for path in ALL:
        assert path[0] in text
    assert "8 part of a batch failed" in text
    nothing = runner.invoke(app, [])
    assert nothing.exit_code == 2
    assert "Usage: " in nothing.stderr


def test_completion_knows_weights_and_devices() -> None:
    assert known_weights("compact_") == ["compact_sr", "compact_start"]
    environment = {
        "_METAPORTRAIT_COMPLETE": "complete_bash",
        "COMP_WORDS": "metaportrait animate --device ",
        "COMP_CWORD": "3",
    }
    done = runner.invoke(app, prog_name="metaportrait", env=environment)
    assert done.output.split() == ["auto", "cpu", "cuda", "mps"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["animate", "--sise", "3"], "No such option: --sise"),
        (["animat"], "Did you mean 'animate'"),
        (["upscale", "a.mp4", "--device", "tpu"], "--device"),
        (["upscale", "a.mp4", "--window", "many"], "--window"),
        (["weights", "convert", "a.pth"], "--output"),
        (["upscale"], "give a clip"),
        (["upscale", "a.mp4", "-i", "b.mp4"], "one clip at a time"),
        (["animate", "clip.mp4"], "give either --source or --portrait"),
        (["animate", "a.png", "b.png", "-s", "c.png"], "a.png"),
        (["animate", "a.png", "b.mp4", "--source-face", "left"], "--source-face 'left'"),
        (["animate", "a.png", "b.mp4", "--strength", "9"], "--strength 9.0"),
        (["personalize"], "give either a --video or --photos"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], words: str) -> None:
    done = runner.invoke(app, arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line


@pytest.mark.parametrize("path", sorted(ALL), ids=" ".join)
def test_what_may_replace_may_also_be_passed_over(path: tuple[str, ...]) -> None:
    options = {option for param in ALL[path].params for option in param.opts}
    assert ("--overwrite" in options) == ("--skip-existing" in options)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_can_tell_more(path: tuple[str, ...]) -> None:
    assert "--verbose" in {option for param in ALL[path].params for option in param.opts}
