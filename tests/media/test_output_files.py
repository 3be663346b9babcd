"""Results are complete or absent, and nothing is overwritten unasked."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metaportrait_cli.errors import MediaError, UsageError
from metaportrait_cli.media import outputs as module
from metaportrait_cli.media.encoding import Encoding
from metaportrait_cli.media.outputs import (
    atomic_output,
    check_output,
    claimed,
    is_result,
    new_folders_used,
)
from metaportrait_cli.media.picture_folder import FolderWriter
from metaportrait_cli.media.stills import write_still
from metaportrait_cli.media.writer import check_video_name

ROOT = Path(__file__).parent.parent.parent


def test_a_free_name_is_fine(tmp_path: Path) -> None:
    check_output(tmp_path / "a.mp4", overwrite=False, is_input=[tmp_path / "b.mp4"])


def test_an_existing_output_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"x")
    with pytest.raises(UsageError, match="exists"):
        check_output(path, overwrite=False, is_input=[])
    check_output(path, overwrite=True, is_input=[])


@pytest.mark.parametrize("link", [False, True])
def test_an_input_is_never_the_output(tmp_path: Path, *, link: bool) -> None:
    source = tmp_path / "a.mp4"
    source.write_bytes(b"x")
    path = source
    if link:
        path = tmp_path / "b.mp4"
        path.symlink_to(source)
    with pytest.raises(UsageError, match="input"):
        check_output(path, overwrite=True, is_input=[source])


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="doesn't exist"):
        check_output(tmp_path / "no" / "such" / "a.mp4", overwrite=False, is_input=[])
    with pytest.raises(UsageError, match="is a folder"):
        check_output(tmp_path, overwrite=True, is_input=[])
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="not a folder"):
        check_output(tmp_path / "file" / "a.mp4", overwrite=False, is_input=[])
    with pytest.raises(UsageError, match="can't be written"):
        check_output(tmp_path / ("n" * 300 + ".mp4"), overwrite=False, is_input=[])


def test_the_last_folder_is_made_for_a_result(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with pytest.raises(KeyError), claimed(path, overwrite=False):
        raise KeyError
    assert not path.parent.exists()
    with claimed(path, overwrite=False), atomic_output(path) as partial:
        partial.write_text("done")
    assert [each.name for each in path.parent.iterdir()] == ["a.txt"]


def test_a_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Permissions don't stop root, under which tests may run.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UsageError, match="read-only"):
        check_output(tmp_path / "a.mp4", overwrite=False, is_input=[])


@pytest.mark.parametrize("name", ["a.mp4", "-rf $HOME 'x' 日本.mp4", "日" * 80 + ".mp4", "noext"])
def test_atomic_output_appears_at_the_end(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with atomic_output(path) as partial:
        partial.write_bytes(b"new")
        assert partial.parent == tmp_path
        assert partial.suffix in {path.suffix, ".partial"}
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_atomic_output_leaves_nothing_behind(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")

    def fail_midway() -> None:
        with atomic_output(path) as partial:
            partial.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        fail_midway()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_two_runs_do_not_share_an_output(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with claimed(path, overwrite=False):
        with pytest.raises(UsageError, match="another run"), claimed(path, overwrite=True):
            pass
        with claimed(tmp_path / "b.mp4", overwrite=False), atomic_output(path) as partial:
            partial.write_bytes(b"new")
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_outputs_of_a_run_differ_from_each_other_and_from_its_inputs(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"x")
    for outputs in ((tmp_path / "a.mp4", photo), (tmp_path / "a.mp4", tmp_path / "a.mp4")):
        with (
            pytest.raises(UsageError, match="input"),
            claimed(*outputs, None, overwrite=True, is_input=[photo]),
        ):
            pass
    assert os.listdir(tmp_path) == ["photo.jpg"]


def test_a_killed_run_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from metaportrait_cli.media.outputs import atomic_output, claimed\n"
        "path = Path(sys.argv[1])\n"
        "with claimed(path, overwrite=False), atomic_output(path) as partial:\n"
        "    partial.write_bytes(b'half')\n"
        "    with atomic_output(partial) as again:\n"
        "        again.write_bytes(b'half')\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    for name in ("a.mp4", "日" * 80 + ".mp4", "noext"):
        subprocess.run([sys.executable, "-c", code, tmp_path / name], check=False, cwd=ROOT)
        assert len(os.listdir(tmp_path)) == 3
    with claimed(tmp_path / "other.mp4", overwrite=False):
        assert os.listdir(tmp_path) == [".other.mp4.claim"]
    assert os.listdir(tmp_path) == []


KILLED_ANYWHERE = """
import os, signal, sys
from itertools import count
from pathlib import Path
from metaportrait_cli.media.outputs import atomic_folder, atomic_output, claimed

def job(folder):
    with claimed(folder / "new" / "a.mp4", folder / "b", overwrite=True, pictures=True):
        with atomic_output(folder / "new" / "a.mp4") as partial:
            partial.write_bytes(b"whole")
            with atomic_output(partial) as again:
                again.write_bytes(b"whole")
        with atomic_folder(folder / "b") as partial:
            (partial / "000000.png").write_bytes(b"new")

def killed_at(step):
    steps = count()
    touching = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "fcntl.flock")
    def hook(event, arguments):
        write = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (write or event in touching) and next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

def outcome(step, folder):
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "000000.png").write_bytes(b"old")
    if (child := os.fork()) == 0:
        killed_at(step)
        job(folder)
        os._exit(0)
    done = os.waitpid(child, 0)[1] == 0
    pictures = [path for path in folder.glob("*b*/*.png")]
    assert len(pictures) >= 1, (step, pictures)  # the old ones or the new, under whichever name
    job(folder)
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    assert found == ["b", "b/000000.png", "new", "new/a.mp4"], (step, found)
    assert (folder / "b" / "000000.png").read_bytes() == b"new"
    return done

steps = next(step for step in count() if outcome(step, Path(sys.argv[1]) / str(step)))
print(steps)
"""


def test_killed_at_any_step_a_run_can_be_made_again(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", KILLED_ANYWHERE, tmp_path],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 15


def test_what_cannot_be_swept_keeps_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".b.mp4.claim").write_text("99999999\nb.mp4")

    def kept(claim: Path, descriptor: int) -> None:
        if "b" in claim.name:
            raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(module, "_remove_leftovers", kept)
        with claimed(tmp_path / "a.avi", overwrite=False):
            pass
    with claimed(tmp_path / "b.mp4", overwrite=False):
        pass


def test_a_folder_being_swept_is_no_other_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed job is begun again while another job's run removes what it has left."""
    path = tmp_path / "a.mp4"
    (tmp_path / ".a.mp4.claim").write_text("1\na.mp4")
    sweeping, claiming = threading.Event(), threading.Event()
    remove = module._remove_leftovers

    def slowly(claim: Path, descriptor: int) -> None:
        if threading.current_thread() is sweeper:
            sweeping.set()
            assert not claiming.wait(0.2)
        remove(claim, descriptor)

    monkeypatch.setattr(module, "_remove_leftovers", slowly)
    sweeper = threading.Thread(target=module._sweep, args=(tmp_path,))
    sweeper.start()
    sweeping.wait()
    with claimed(path, overwrite=False):
        claiming.set()
    sweeper.join()
    assert os.listdir(tmp_path) == []


def test_a_folder_that_another_run_just_removed(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.mp4"
    with module._folder_of(path):
        path.parent.rmdir()
        with module._claim(path):
            assert os.listdir(path.parent) == [".a.mp4.claim"]


def test_runs_that_share_a_new_folder_leave_none_empty(tmp_path: Path) -> None:
    new, own = tmp_path / "new", tmp_path / "own"
    own.mkdir()
    with new_folders_used([new, own]):
        runs = [claimed(new / f"{n}.mp4", overwrite=False) for n in range(2)]
        for run in runs:
            run.__enter__()
        for run in runs:  # neither has a result; the first can't remove what the second is in
            run.__exit__(None, None, None)
        assert new.is_dir()
    assert list(tmp_path.iterdir()) == [own]


def test_a_full_disk_is_told_of_a_picture_and_of_a_folder_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    picture = np.zeros((8, 10, 3), np.uint8)
    with pytest.raises(OSError, match="No space left") as told:
        write_still(tmp_path / "a.png", picture)
    assert told.value.filename == str(tmp_path / "a.png")
    with pytest.raises(OSError, match="No space left") as told:  # noqa: SIM117
        with FolderWriter(tmp_path / "frames", comment="") as writer:
            writer.write(picture)
    assert told.value.filename == str(tmp_path / "frames")
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_told_with_the_name_of_the_output(tmp_path: Path) -> None:
    def fill() -> None:
        with atomic_output(tmp_path / "a.json"), Path("/dev/full").open("w") as full:
            full.write("x")

    with pytest.raises(OSError, match=r"No space left.*a\.json"):
        fill()


def test_a_folder_appears_at_the_end_or_not_at_all(tmp_path: Path) -> None:
    path, pictures = tmp_path / "frames", [np.full((8, 10, 3), n, np.uint8) for n in range(3)]
    with claimed(path, overwrite=False), FolderWriter(path, comment="AI-generated") as writer:
        for picture in pictures:
            writer.write(picture)
        assert not path.exists()
    assert sorted(each.name for each in path.iterdir()) == [f"00000{n}.png" for n in range(3)]
    with Image.open(path / "000001.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), pictures[1])
        assert picture.info["Comment"] == "AI-generated"
    other = tmp_path / "other"
    no_picture = np.zeros((8, 10, 7), np.uint8)
    with pytest.raises(TypeError), FolderWriter(other) as writer:
        [writer.write(picture) for picture in (pictures[0], no_picture)]
    with pytest.raises(MediaError, match="no frames"), FolderWriter(other):
        pass
    assert sorted(each.name for each in tmp_path.iterdir()) == ["frames"]


def write_folder(path: Path, pictures: int, *, overwrite: bool) -> None:
    with claimed(path, overwrite=overwrite, pictures=True), FolderWriter(path) as writer:
        for _ in range(pictures):
            writer.write(np.zeros((8, 8, 3), np.uint8))


def test_a_folder_of_pictures_is_replaced_by_another_and_nothing_else_is(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    path.mkdir()
    write_folder(path, 3, overwrite=False)  # an empty one can't be lost
    with pytest.raises(UsageError, match="exists"):
        write_folder(path, 2, overwrite=False)
    with pytest.raises(UsageError, match="is a folder"):
        check_output(path, overwrite=True, is_input=[])
    write_folder(path, 2, overwrite=True)
    assert sorted(each.name for each in path.iterdir()) == ["000000.png", "000001.png"]
    (path / "notes.txt").touch()
    with pytest.raises(UsageError, match="is a folder"):
        write_folder(path, 2, overwrite=True)
    assert [each.name for each in tmp_path.iterdir()] == ["frames"]


def test_a_folder_that_stepped_aside_comes_back_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    write_folder(path, 3, overwrite=False)
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "sys.path.insert(0, 'tests/media')\nfrom test_output_files import write_folder\n"
        "rename = os.rename\n"
        "os.rename = lambda *paths: (rename(*paths), os.kill(os.getpid(), 9))\n"
        "write_folder(Path(sys.argv[1]), 1, overwrite=True)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=False)
    assert not path.exists()
    with claimed(path, overwrite=True, pictures=True):
        pass
    assert [each.name for each in tmp_path.iterdir()] == ["frames"]
    assert len(list(path.iterdir())) == 3


def test_an_empty_file_is_no_result(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.touch()
    assert not is_result(path)
    check_output(path, overwrite=False, is_input=[])
    path.write_bytes(b"x")
    assert is_result(path)


def test_folders_of_runs_that_were_killed_are_removed(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nimport numpy as np\n"
        "from metaportrait_cli.media.outputs import claimed\n"
        "from metaportrait_cli.media.picture_folder import FolderWriter\n"
        "path = Path(sys.argv[1])\n"
        "with claimed(path, overwrite=False), FolderWriter(path) as writer:\n"
        "    writer.write(np.zeros((8, 8, 3), np.uint8))\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    path = tmp_path / "frames"
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=False)
    assert any(each.name.endswith(".partial") for each in tmp_path.iterdir())
    with claimed(path, overwrite=False):
        assert not any(each.name.endswith(".partial") for each in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "codec", "crf", "words"),
    [
        ("frames.mp4", "png", None, "a folder"),
        ("frames.png", "png", None, "a folder"),
        ("frames", "png", 20, "means nothing"),
        ("frames", "auto", None, "png gives a folder"),
    ],
)
def test_names_of_folders_and_of_clips(name: str, codec: str, crf: int | None, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_video_name(Path(name), Encoding(codec, crf))
    check_video_name(Path("frames"), Encoding("png"))
    with pytest.raises(UsageError, match=r"choose one of them$"):
        check_video_name(Path("overlay.npz"), or_folder=False)
