"""What scripts rely on: exit codes, stdout and stderr, files that appear whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from metaportrait_cli.cli.app import app
from tests.clips import decoded

ROOT = Path(__file__).parent.parent.parent
PROGRAM = (sys.executable, "-m", "metaportrait_cli")


def run(
    arguments: Sequence[str | Path], *, cwd: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def run_here(arguments: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    """The same within this process, where nothing has to be imported anew."""
    done = CliRunner().invoke(app, [*map(str, arguments)])
    return subprocess.CompletedProcess(
        [*map(str, arguments)], done.exit_code, done.stdout, done.stderr
    )


def error_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error; fails if there is more, or a traceback, or anything on stdout."""
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return errors[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["animate", "--help"],
        ["upscale", "--help"],
        ["evaluate", "--help"],
    ],
)
def test_help_imports_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['metaportrait', *{arguments!r}]\n"
        "from metaportrait_cli.__main__ import run\n"
        "try:\n    run()\nexcept SystemExit as done:\n    assert not done.code\n"
        "import os\n"
        "assert os.environ['OPENBLAS_NUM_THREADS']  # before numpy is imported\n"
        "assert os.environ['OPENCV_FOR_THREADS_NUM']  # before OpenCV is imported\n"
        "heavy = {'torch', 'cv2', 'mediapipe', 'numpy', 'av'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def of_python(code: str, *, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """What a Python of its own makes of some code."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=cwd,
        capture_output=True,
        check=False,
    )


def test_the_end_is_python_s_own_but_for_its_modules(tmp_path: Path) -> None:
    code = (
        "import atexit, sys\n"
        "from metaportrait_cli.__main__ import main\n"
        "class Late:\n    def __del__(self): print('taken apart')\n"
        "late = Late()\n"
        "sys.argv = ['metaportrait', 'animate']\n"
        "try:\n    main()\nfinally:\n    atexit.register(print, 'let go')\n"
    )
    done = of_python(code, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == b"let go\n"


def test_without_networks_torch_is_not_imported() -> None:
    code = (
        "import sys\n"
        "from metaportrait_cli.pipeline import animate, compensation\n"
        "from metaportrait_cli.render.named import rendering_named\n"
        "rendering_named('none')\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_help_tells_the_exit_codes(tmp_path: Path) -> None:
    shown = " ".join(run(["--help"], cwd=tmp_path).stdout.split())
    for promise in ("3 unreadable media", "4 no face", "130 interrupted"):
        assert promise in shown


def test_path_on_stdout_and_the_rest_on_stderr(
    portrait_path: Path, driver_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    report = tmp_path / "run.json"
    arguments = ["animate", "-s", portrait_path, "-d", driver_path, "--crop", "--size", "128"]
    arguments += ["--end", "1"]
    done = run([*arguments, "--report", report], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "portrait--driver.mp4\n"
    assert "24/24 frames" in done.stderr
    assert len(decoded(tmp_path / "portrait--driver.mp4")) == 24
    told = json.loads(report.read_text())
    assert told["frames"] == 24
    assert told["settings"]["size"] == 128
    assert set(told["stage_ms_per_frame"]) >= {"decode", "landmarks", "render", "encode"}
    assert told["peak_memory_mb"] > 50

    again = run_here(arguments)
    assert again.returncode == 2
    assert "--overwrite" in error_line(again)
    skipped = run_here([*arguments, "--skip-existing", "--json"])
    assert skipped.returncode == 0
    assert json.loads(skipped.stdout)["skipped"] is True
    quiet = run([*arguments, "--overwrite", "--quiet", "--json"], cwd=tmp_path)
    assert quiet.returncode == 0
    assert quiet.stderr == ""
    assert json.loads(quiet.stdout)["frames"] == 24


def test_bad_files_are_one_line_and_exit_3(
    portrait_path: Path, driver_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "empty.mp4": b"",
        "noise.mp4": os.urandom(5000),
        "text.mp4": b"this is not a clip\n" * 50,
        "half.png": portrait_path.read_bytes()[:3000],
        "pointer.motion.npz": b"version https://git-lfs.github.com/spec/v1\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    noise = ["animate", "-s", portrait_path, "-d", "noise.mp4"]
    assert error_line(run(noise, cwd=tmp_path)) == error_line(run_here(noise))
    for name in (*files, "missing.mp4"):
        done = run_here(["animate", "-s", portrait_path, "-d", name])
        assert done.returncode == 3, (name, done.stderr)
        assert name in error_line(done)
    for name in ("half.png", "missing.jpg", "empty.mp4"):
        done = run_here(["animate", "-s", name, "-d", driver_path])
        assert done.returncode == 3, (name, done.stderr)
        assert name in error_line(done)
    assert {path.name for path in tmp_path.iterdir()} == set(files)


def test_usage_errors_exit_2(
    portrait_path: Path, driver_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = ["animate", "-s", portrait_path, "-d", driver_path]
    for wrong in (
        ["--strength", "9"],
        ["--face", "left"],
        ["--reference-frame", "best"],
        ["--reference-frame", "5000"],
        ["-o", "missing/folder/out.mp4"],
        ["-o", "out.xyz"],
        ["-o", str(driver_path), "--overwrite"],
    ):
        done = run_here([*base, *wrong])
        assert done.returncode == 2, (wrong, done.stderr)
        error_line(done)
    for wrong in (["--no-such-option"], ["--motion", "wild"], ["--size", "large"]):
        done = run_here([*base, *wrong])
        assert done.returncode == 2, (wrong, done.stderr)
        error_line(done)
    assert list(tmp_path.iterdir()) == []


def test_no_face_exits_4(driver_path: Path, tmp_path: Path) -> None:
    Image.new("RGB", (200, 150), (90, 120, 90)).save(tmp_path / "wall.png")
    done = run(["animate", "-s", "wall.png", "-d", driver_path], cwd=tmp_path)
    assert done.returncode == 4
    assert "wall.png: no face found (200x150)" in error_line(done)


def test_missing_ffmpeg_exits_6(portrait_path: Path, driver_path: Path, tmp_path: Path) -> None:
    hidden = {"PATH": "/nonexistent", "IMAGEIO_FFMPEG_EXE": "/nonexistent/ffmpeg"}
    done = run(
        ["animate", "-s", portrait_path, "-d", driver_path], cwd=tmp_path, environment=hidden
    )
    assert done.returncode == 6, done.stderr
    assert "ffmpeg" in error_line(done)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupt_leaves_nothing(
    number: signal.Signals, portrait_path: Path, driver_path: Path, tmp_path: Path
) -> None:
    arguments = ["animate", "-s", portrait_path, "-d", driver_path, "-o", "out.mp4"]
    child = subprocess.Popen(
        [*PROGRAM, *map(str, arguments)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what runs in the background deaf to interrupts.
        preexec_fn=partial(signal.signal, number, signal.SIG_DFL),  # noqa: PLW1509
    )
    deadline = time.monotonic() + 60
    # The partial file tells that the last stage is running.
    while not list(tmp_path.glob("*.partial.*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(number)
    stdout, stderr = child.communicate(timeout=30)
    assert child.returncode == 128 + number, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    assert list(tmp_path.iterdir()) == []


def test_landmarks_command(driver_path: Path, tmp_path: Path) -> None:
    done = run(["landmarks", "-i", driver_path, "--end", "0.5", "--quiet"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "driver.motion.npz\n"
    wrong = run_here(["landmarks", "-i", driver_path, "-o", "points.npz"])
    assert wrong.returncode == 2
    assert ".motion.npz" in error_line(wrong)


def test_doctor_finds_everything(tmp_path: Path) -> None:
    done = run(["doctor", "--json"], cwd=tmp_path)
    found = {item["name"]: item for item in json.loads(done.stdout)}
    for name in ("ffmpeg", "encoder libx264", "landmark model", "device", "torch"):
        assert found[name]["ok"], found[name]
    assert done.returncode in (0, 1)  # 1 where another OpenCV is installed beside ours


def test_an_interrupt_while_arguments_are_read_is_told(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from typer.core import TyperGroup\n"
        "def interrupted(*_, **__): raise KeyboardInterrupt\n"
        "TyperGroup.make_context = interrupted\n"
        "from metaportrait_cli.__main__ import main\n"
        "sys.argv = ['metaportrait', 'animate', 'a.jpg', 'b.mp4']\n"
        "main()\n"
    )
    done = of_python(code, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (130, b"error: interrupted\n")
