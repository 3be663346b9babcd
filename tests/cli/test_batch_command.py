"""`batch` and `--report` as scripts see them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from metaportrait_cli.cli.app import app

runner = CliRunner()
ROOT = Path(__file__).parents[2]


def test_a_line_for_each_job_and_exit_8(
    portrait_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.mp4").write_bytes(bytes(100))
    Path("jobs.jsonl").write_text(
        json.dumps({"source": str(portrait_path), "driver": "bad.mp4", "output": "a.mp4"})
    )
    done = runner.invoke(app, ["batch", "jobs.jsonl", "--weights", "none"])
    assert done.exit_code == 8, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["exit_code"] == 3
    assert "error: 1 of 1 jobs failed" in done.stderr
    wrong = runner.invoke(app, ["batch", "jobs.jsonl", "--sources", "*.png"])
    assert wrong.exit_code == 2
    assert "--sources" in wrong.stderr
    half = runner.invoke(app, ["batch", "jobs.jsonl", "--sign", "cert.pem"])
    assert (half.exit_code, "go together" in half.stderr) == (2, True)


def test_libraries_write_nothing_among_results() -> None:
    code = """
import os
from metaportrait_cli.cli.console import put, stdout_alone
with stdout_alone():
    os.write(1, b"a node is lost\\n")
    print("another")
    put("one")
put("two")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("one\ntwo\n", "a node is lost\nanother\n")


def test_a_report_replaces_nothing_unasked(
    portrait_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("face.png").write_bytes(portrait_path.read_bytes())
    Path("a.mp4").write_bytes(bytes(100))
    Path("old.json").write_text("precious")
    for report, message in (
        ("face.png", "is also an input"),
        ("a.mp4", "is also an input"),
        ("old.json", "--overwrite"),
        ("no/such/folder.json", "doesn't exist"),
        (".", "folder"),
    ):
        done = runner.invoke(
            app, ["animate", "face.png", "a.mp4", "-o", "o.mp4", "--report", report]
        )
        assert done.exit_code == 2, done.stderr
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
    assert Path("old.json").read_text() == "precious"
    assert Path("face.png").read_bytes() == portrait_path.read_bytes()
    assert sorted(os.listdir()) == ["a.mp4", "face.png", "old.json"]


def test_names_do_nothing_to_the_terminal(portrait_path: Path, tmp_path: Path) -> None:
    name = tmp_path / "a\x1b]0;owned\x07\u202e.mp4"
    name.write_bytes(bytes(100))
    done = runner.invoke(
        app, ["animate", str(portrait_path), str(name), "-o", str(tmp_path / "o.mp4")]
    )
    assert done.exit_code == 3
    assert done.stderr.strip().isprintable()
