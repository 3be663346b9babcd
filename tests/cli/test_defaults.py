from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from metaportrait_cli.cli.app import app
from metaportrait_cli.cli.defaults import FILE, in_effect

runner = CliRunner()


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def line(*arguments: str) -> str:
    done = runner.invoke(app, arguments)
    assert done.exit_code == 2, done.output
    return done.stderr


def test_options_come_before_the_environment_and_that_before_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    FILE.write_text("strength = 7.0\n[animate]\nstrength = 5.0\n")
    assert "--strength 5.0" in line("animate", "a.png", "b.mp4")
    assert "--strength 7.0" in line("upscale", "a.mp4")
    monkeypatch.setenv("METAPORTRAIT_ANIMATE_STRENGTH", "6")
    assert "--strength 6.0" in line("animate", "a.png", "b.mp4")
    assert "--strength 4.0" in line("animate", "a.png", "b.mp4", "--strength", "4")
    shown = " ".join(runner.invoke(app, ["animate", "--help"]).output.split())
    assert "default: 5.0" in shown
    assert "env var" not in shown
    assert ("animate strength", f"5.0, from {FILE}") in list(in_effect())
    assert ("METAPORTRAIT_ANIMATE_STRENGTH", "'6', from the environment") in list(in_effect())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("sise = 3", "no command has sise"),
        ("[animate]\nsise = 3", "[animate]: there is no option sise"),
        ("[animat]\nsize = 3", "there is no command animat"),
        ("size", "can't be read as TOML"),
    ],
)
def test_what_no_command_has_is_refused(content: str, words: str) -> None:
    FILE.write_text(content)
    told = line("animate", "a.png", "b.mp4")
    assert told.startswith(f"error: {FILE}")
    assert words in told
    assert len(told.splitlines()) == 1


def test_a_file_from_windows_is_read() -> None:
    FILE.write_bytes(b"\xef\xbb\xbf[animate]\r\nstrength = 5.0\r\n")
    assert "--strength 5.0" in line("animate", "a.png", "b.mp4")


def test_a_wrong_value_tells_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    FILE.write_text('[animate]\nsize = "big"\n')
    assert f"it comes from {FILE}" in line("animate", "a.png", "b.mp4")
    monkeypatch.setenv("METAPORTRAIT_ANIMATE_SIZE", "bigger")
    assert "it comes from METAPORTRAIT_ANIMATE_SIZE" in line("animate", "a.png", "b.mp4")
    assert "it comes from" not in line("animate", "a.png", "b.mp4", "--size", "huge")


@pytest.mark.parametrize("arguments", [["--version"], ["animate", "--help"], ["doctor", "-h"]])
def test_help_comes_whatever_is_wrong_with_the_defaults(arguments: list[str]) -> None:
    FILE.write_text("size")
    assert runner.invoke(app, arguments).exit_code == 0


@pytest.mark.parametrize("content", ["size", "sise = 3"])
def test_doctor_tells_what_is_wrong_with_the_defaults(content: str) -> None:
    FILE.write_text(content)
    done = runner.invoke(app, ["doctor", "--json"])
    found = {item["name"]: item for item in json.loads(done.stdout)}
    assert not found[FILE.name]["ok"]
    assert "mend it" in found[FILE.name]["detail"]
    assert done.exit_code in (1, 2)  # 1 where the installation isn't whole either


@pytest.mark.parametrize("name", ["VERSION", "INSTALL_COMPLETION", "SHOW_COMPLETION"])
def test_the_environment_asks_for_no_version_or_completion(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"METAPORTRAIT_{name}", "1")
    assert "--strength 4.0" in line("animate", "a.png", "b.mp4", "--strength", "4")
