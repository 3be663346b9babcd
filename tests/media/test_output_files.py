"""Results are complete or absent, and nothing is overwritten unasked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from metaportrait_cli.errors import UsageError
from metaportrait_cli.media.outputs import atomic_output, check_output


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
        check_output(tmp_path / "no" / "a.mp4", overwrite=False, is_input=[])
    with pytest.raises(UsageError, match="is a folder"):
        check_output(tmp_path, overwrite=True, is_input=[])
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="not a folder"):
        check_output(tmp_path / "file" / "a.mp4", overwrite=False, is_input=[])
    with pytest.raises(UsageError, match="can't be written"):
        check_output(tmp_path / ("n" * 300 + ".mp4"), overwrite=False, is_input=[])


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
