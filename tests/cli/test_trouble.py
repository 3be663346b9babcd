"""Libraries that are missing, streams that are closed, and ends from outside."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import typer

from metaportrait_cli import Engine, OutOfMemoryError
from metaportrait_cli.cli.console import reporting
from metaportrait_cli.errors import FfmpegError
from metaportrait_cli.pipeline import doctor
from tests.cli.test_contract import PROGRAM, ROOT, error_line, run

NO_GL = "libGL.so.1: cannot open shared object file: No such file or directory"


@pytest.mark.parametrize(
    ("module", "raised", "cure"),
    [
        ("av", "ModuleNotFoundError(\"No module named 'av'\", name='av')", "pip install av"),
        ("cv2", f"ImportError({NO_GL!r})", "libGL.so.1 is missing: apt-get install libgl1"),
    ],
)
def test_a_missing_library_is_one_line_with_the_cure(
    module: str, raised: str, cure: str, tmp_path: Path
) -> None:
    (tmp_path / f"{module}.py").write_text(f"raise {raised}\n")
    broken = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = run(["animate", "a.png", "b.mp4"], cwd=tmp_path, environment=broken)
    assert done.returncode == 1
    assert cure in error_line(done)
    doctor = run(["doctor", "--json"], cwd=tmp_path, environment=broken)
    assert doctor.returncode == 1
    missing = [found["detail"] for found in json.loads(doctor.stdout) if not found["ok"]]
    assert cure in missing[0]


def test_a_doctor_takes_an_ffmpeg_that_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ffmpeg").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FfmpegError, match=r"\(no message\); install"):
        doctor._encoder()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("(interpreter->AllocateTensors())==(kTfLiteOk)"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        OSError("libLiteRt.so: failed to map segment from shared object"),
        ImportError("libSvtAv1Enc.so.4: failed to map segment from shared object"),
    ],
)
def test_exhausted_memory_has_a_code_of_its_own(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as left, reporting():
        raise error
    assert left.value.exit_code == 7
    assert capsys.readouterr().err.startswith("error: out of memory")


def test_a_working_folder_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    try:
        (tmp_path / "gone").rmdir()
    except OSError:
        pytest.skip("this system keeps it")
    with pytest.raises(typer.Exit) as left, reporting():
        raise AssertionError("work has begun")
    assert left.value.exit_code == 2
    assert "change into another" in capsys.readouterr().err


def test_too_few_addresses_are_told_before_libraries_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")  # Unix alone has it
    monkeypatch.setattr(resource, "getrlimit", lambda _: (700 << 20, resource.RLIM_INFINITY))
    with pytest.raises(OutOfMemoryError, match="700 MB of addresses, and needs 800 at least"):
        Engine()


def test_without_typer_too(tmp_path: Path) -> None:
    missing = "ModuleNotFoundError(\"No module named 'typer'\", name='typer')"
    (tmp_path / "typer.py").write_text(f"raise {missing}\n")
    done = run(["doctor"], cwd=tmp_path, environment={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert done.returncode == 1
    assert "pip install typer" in error_line(done)


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = f'metaportrait() {{ "{sys.executable}" -m metaportrait_cli "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_closed_streams_do_no_harm(tmp_path: Path) -> None:
    listed = shell("metaportrait weights list 2>&-", tmp_path)
    assert listed.returncode == 0
    assert "compact" in listed.stdout
    assert shell("metaportrait weights list >&-", tmp_path).returncode == 0
    failed = shell("metaportrait landmarks missing.mp4 2>&-", tmp_path)
    assert failed.returncode == 3
    unread = shell("metaportrait weights list | true; exit ${PIPESTATUS[0]}", tmp_path)
    assert unread.returncode == 0
    assert unread.stderr == ""


WITHIN_AN_IMPORT = """
import signal, sys, time
signal.raise_signal({number})
time.sleep(0.3)
sys.path.remove({folder!r})
del sys.modules["{module}"]
import {module}
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", ["typer", "numpy"])
def test_an_end_within_an_import_is_one_line(
    module: str,
    number: signal.Signals,
    portrait_path: Path,
    driver_path: Path,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    code = WITHIN_AN_IMPORT.format(number=int(number), folder=str(folder), module=module)
    (folder / f"{module}.py").write_text(code)
    done = subprocess.run(
        [*PROGRAM, "animate", str(portrait_path), str(driver_path)],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{folder}:{ROOT}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        # A shell starts what runs in the background deaf to interrupts.
        preexec_fn=partial(signal.signal, number, signal.SIG_DFL),
    )
    assert done.returncode == 128 + number
    words = "interrupted" if number == signal.SIGINT else "terminated"
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {words}")
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_the_program_is_a_module_too() -> None:
    assert PROGRAM[1:] == ("-m", "metaportrait_cli")


def test_names_that_the_machine_is_told_not_to_know_are_refused(tmp_path: Path) -> None:
    ascii_only = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    done = run(["animate", "a.png", "b.mp4", "-o", "ö.mp4"], cwd=tmp_path, environment=ascii_only)
    assert done.returncode == 2
    assert "PYTHONUTF8=1" in error_line(done)
