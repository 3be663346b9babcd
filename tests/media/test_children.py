"""No ffmpeg outlives the program that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metaportrait_cli.media import process
from metaportrait_cli.media.process import PIPE_BYTES, Child

ROOT = Path(__file__).parent.parent.parent
PROGRAM = """
import signal
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup may have turned it off
from metaportrait_cli.media.process import Child
with Child(["sleep", "60"]) as child:
    print(child.process.pid, flush=True)
    child.process.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a call of Linux")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
def test_children_end_with_their_parent(number: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.send_signal(number)
    parent.communicate()
    for _ in range(200):
        if not is_running(child):
            return
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    pytest.fail("it outlived its parent")


def is_running(process: int) -> bool:
    """Whether there is such a process, and not only its remains."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="a call of Linux")
def test_pipes_are_wide_where_the_system_grants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl  # noqa: PLC0415  not everywhere

    def through() -> int:
        with Child(["cat"], feed=True, collect=True) as child:
            assert child.process.stdin is not None
            assert child.process.stdout is not None
            child.process.stdin.write(b"picture")
            assert child.wait() == 0
            assert child.process.stdout.read() == b"picture"
            return fcntl.fcntl(child.process.stdout, fcntl.F_GETPIPE_SZ)

    assert through() == PIPE_BYTES
    monkeypatch.setattr(process, "PIPE_BYTES", -1)
    assert through() < PIPE_BYTES
