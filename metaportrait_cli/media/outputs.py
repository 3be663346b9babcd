"""Where results go: checked and claimed before the work, complete or absent after it."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from metaportrait_cli.errors import UsageError

try:
    import fcntl
except ImportError:  # Windows: there a name is checked, and not claimed
    fcntl = None

_NAME_BYTES = 255
"""The longest file name that common file systems take."""
_PICTURE = re.compile(r"[0-9]{6,}\.png")
_CLAIM = ".claim"
_PATIENCE_SECONDS = 5.0
_TRIES = 5


def is_result(path: Path) -> bool:
    """Whether something is there that could be lost: more than an empty file or folder."""
    if path.is_dir():
        return any(path.iterdir())
    return os.path.lexists(path) and not (path.is_file() and path.stat().st_size == 0)


def is_full(error: OSError) -> bool:
    """Whether there was no room for a file."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def picture_name(number: int) -> str:
    """Of a picture in a folder of a clip's."""
    return f"{number:06}.png"


def check_output(
    path: Path, *, overwrite: bool, is_input: Sequence[Path], pictures: bool = False
) -> None:
    """Make sure that a result may be written to `path`, before any work is done for it.

    `pictures`: it will be a folder of them, which may replace another such folder.

    Raises:
        UsageError: something is there and `overwrite` is off, it is another folder or one of the
            files in `is_input`, or its folder is read-only, or missing by more than its last part.
    """
    try:
        _check_folder(path)
        if path.is_dir() and not (pictures and _holds_pictures_alone(path)):
            raise UsageError(f"{path} is a folder: name a file in it, or what is not there yet")
        if path.absolute() in [source.absolute() for source in is_input]:
            raise UsageError(f"{path} is also an input or another output: choose another name")
        if not is_result(path):
            return
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise UsageError(f"{path} is no regular file: choose another name for the output")
        for source in is_input:
            if path.exists() and source.exists() and path.samefile(source):
                raise UsageError(f"{path} is also an input or another output: choose another name")
        if not overwrite:
            raise UsageError(f"{path} exists: choose another name, or allow it with `overwrite`")
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}") from error


def check_folder(path: Path) -> None:
    """Make sure that `make_folder` can make it, before any work is done for it.

    Raises `UsageError`.
    """
    nearest = next(each for each in (path, *path.absolute().parents) if os.path.lexists(each))
    if not nearest.is_dir():
        raise UsageError(f"{path} can't be a folder of results: {nearest} is none")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(f"folder {nearest} is read-only: choose another")


def make_folder(path: Path) -> None:
    """Makes the folder that results go into, if it isn't there. Raises `UsageError`."""
    check_folder(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path} can't be a folder of results: {error.strerror}") from None


def _holds_pictures_alone(folder: Path) -> bool:
    return all(_PICTURE.fullmatch(path.name) for path in folder.iterdir())


@contextmanager
def claimed(
    *outputs: Path | None,
    overwrite: bool,
    is_input: Sequence[Path] = (),
    pictures: bool = False,
) -> Iterator[None]:
    """Checks all outputs of a run, and keeps their names for it until the end of the block.

    They must differ; `pictures` as of `check_output`. What a run that was killed has left in their
    folders is removed.

    Raises:
        UsageError: as `check_output`, or another run is writing to one of them.
    """
    taken = list(is_input)
    with ExitStack() as claims:
        for path in outputs:
            if path is not None:
                check_output(path, overwrite=overwrite, is_input=taken, pictures=pictures)
                claims.enter_context(_folder_of(path))
                claims.enter_context(_claim(path))
                check_output(path, overwrite=overwrite, is_input=taken, pictures=pictures)
                taken.append(path)
        for folder in {path.absolute().parent for path in outputs if path is not None}:
            _sweep(folder)
        yield


def _check_folder(path: Path) -> None:
    folder = path.parent
    if not folder.exists():
        if not folder.parent.is_dir() or os.path.lexists(folder):
            raise UsageError(f"folder {folder} doesn't exist: create it, or choose another")
        folder = folder.parent  # the last folder is made when something comes into it
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder: choose another place for {path.name}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"folder {folder} is read-only: choose another place for {path.name}")


@contextmanager
def new_folders_used(folders: Iterable[Path]) -> Iterator[None]:
    """Of folders that aren't there yet, those that nothing came into within the block are removed
    again, whoever made them."""
    missing = {folder for folder in folders if not folder.exists()}
    try:
        yield
    finally:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextmanager
def _folder_of(path: Path) -> Iterator[None]:
    """Makes the folder of a result; one that nothing came into is removed again."""
    with new_folders_used([path.parent]):
        path.parent.mkdir(exist_ok=True)
        yield


@contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """Yield a hidden sibling of `path` to write to; it becomes `path` if all goes well.

    It bears the suffix of `path`. On any exception, Ctrl-C included, it is removed and a file
    that was at `path` stays as it was. A full disk within the block is told with this name.

    Raises:
        UsageError: the folder is missing or read-only, or the name can't be taken.
    """
    _check_folder(path)
    partial = path.with_name(_partial_name(path.name, os.getpid()))
    with _folder_of(path):
        try:
            try:
                yield partial
            except OSError as error:
                if error.filename is None and is_full(error):
                    raise OSError(error.errno, error.strerror, str(path)) from error
                raise
            try:
                os.replace(partial, path)
            except OSError as error:
                raise UsageError(f"{path} can't be written: {error.strerror}") from error
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """The same for a folder of pictures, which is there already when the block begins.

    It takes the place of another one; a folder that holds anything else is an error.
    """
    _check_folder(path)
    partial = path.with_name(_partial_name(path.name, os.getpid()))
    with _folder_of(path):
        try:
            try:
                partial.mkdir()
                yield partial
                if path.is_dir() and _holds_pictures_alone(path):
                    _replace_folder(path, partial)
                else:
                    os.rename(partial, path)
            except OSError as error:
                if error.filename is not None and Path(error.filename).parent == partial:
                    raise OSError(error.errno, error.strerror, str(path)) from error
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EACCES):
                    raise UsageError(f"{path} can't be written: {error.strerror}") from error
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _replace_folder(path: Path, partial: Path) -> None:
    """Folders can't be replaced in one step: the old one steps aside, and `_remove_leftovers` puts
    it back if this is as far as a run comes."""
    aside = path.with_name(_aside_name(path.name, os.getpid()))
    os.rename(path, aside)
    try:
        os.rename(partial, path)
    except OSError:
        os.rename(aside, path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _partial_name(name: str, process: int) -> str:
    stem, suffix = os.path.splitext(name)
    return hidden_name(stem, f".{process}.partial{suffix}")


def _aside_name(name: str, process: int) -> str:
    return hidden_name(name, f".{process}.old")


def hidden_name(stem: str, ending: str) -> str:
    """`.{stem}{ending}`, the stem shortened to what file systems take."""
    room = _NAME_BYTES - 1 - len(os.fsencode(ending))
    stem = os.fsencode(stem)[:room].decode(errors="ignore")
    return f".{stem}{ending}"


@contextmanager
def _claim(path: Path) -> Iterator[None]:
    """A locked file beside `path` that names it and this process; the lock ends with the process,
    however that ends."""
    claim = path.with_name(hidden_name(path.name, _CLAIM))
    try:
        with _one_at_a_time(path.parent):
            descriptor = _locked(claim, create=True)
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}") from error
    if descriptor is None:
        raise UsageError(f"{path} is being written by another run: choose another name, or wait")
    try:
        _remove_leftovers(claim, descriptor)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, os.fsencode(f"{os.getpid()}\n{path.name}"), 0)
        yield
    finally:
        claim.unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Whoever sweeps a folder holds each claim in it for a moment, as if it were a run's.

    Another program may have locked the folder for its own reasons: that is not waited for long.
    """
    descriptor = None
    until = time.monotonic() + _PATIENCE_SECONDS
    try:
        with contextlib.suppress(OSError):  # missing, unreadable, or without locks
            descriptor = os.open(folder, os.O_RDONLY)
            while fcntl is not None and time.monotonic() < until:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(0.005)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _locked(claim: Path, *, create: bool) -> int | None:
    """A descriptor of the file with a lock on it, None if another run holds it or it is gone."""
    tries = _TRIES
    while True:
        try:
            descriptor = os.open(claim, os.O_RDWR | (os.O_CREAT if create else 0), 0o666)
        except FileNotFoundError:
            if not create:
                return None
            tries -= 1
            if not tries:  # nothing can be made in such a folder
                raise
            claim.parent.mkdir(exist_ok=True)  # who had made it has just ended with no result
            continue
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:  # a file system without locks
            return descriptor
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(claim)):
                return descriptor
        os.close(descriptor)  # whoever held it has just removed it


def _sweep(folder: Path) -> None:
    """Removes what runs that were killed have left."""
    if fcntl is None:
        return
    with _one_at_a_time(folder):
        for claim in folder.glob(f".*{_CLAIM}"):
            with contextlib.suppress(OSError):
                descriptor = _locked(claim, create=False)
                if descriptor is None:
                    continue
                try:
                    _remove_leftovers(claim, descriptor)
                    claim.unlink(missing_ok=True)
                finally:
                    os.close(descriptor)  # or nobody here could take that name any more


def _remove_leftovers(claim: Path, descriptor: int) -> None:
    process, _, name = os.fsdecode(os.pread(descriptor, 4096, 0)).partition("\n")
    if not process.isdecimal() or not name or "/" in name:
        return
    partial = _partial_name(name, int(process))
    aside = claim.with_name(_aside_name(name, int(process)))
    if aside.is_dir() and not os.path.lexists(claim.with_name(name)):
        os.rename(aside, claim.with_name(name))
    for left in (partial, _partial_name(partial, int(process)), aside.name):
        if claim.with_name(left).is_dir():
            shutil.rmtree(claim.with_name(left), ignore_errors=True)
        else:
            claim.with_name(left).unlink(missing_ok=True)
