"""What to do where a library is missing or can't be loaded. Imports nothing that may be missing."""

from __future__ import annotations

NO_LIBRARY = "cannot open shared object file"
_PROJECTS = {"cv2": "opencv-python", "PIL": "pillow", "ai_edge_litert": "ai-edge-litert"}
"""Where the name to install is another than the name to import."""
_SYSTEM = {
    "libGL.so": "apt-get install libgl1, or the like of it",
    "libgthread": "apt-get install libglib2.0-0, or the like of it",
    "libglib": "apt-get install libglib2.0-0, or the like of it",
    "libEGL": "apt-get install libegl1 libgles2, or the like of it",
    "libGLES": "apt-get install libegl1 libgles2, or the like of it",
}


def is_missing_library(error: BaseException) -> bool:
    """Whether an import failed, or the loading of what it needs of the system."""
    return isinstance(error, ImportError) or (
        isinstance(error, OSError) and NO_LIBRARY in str(error)
    )


def cure(error: BaseException) -> str:
    """One line: what can't be imported, and how it can."""
    text = " ".join(str(error).split())
    name = (getattr(error, "name", None) or "").split(".")[0]
    if isinstance(error, ModuleNotFoundError) and name and name != "metaportrait_cli":
        project = _PROJECTS.get(name, name.replace("_", "-"))
        return f"the Python package {name} is missing: pip install {project}"
    if NO_LIBRARY in text:
        library = text.split(":")[0]
        known = (advice for start, advice in _SYSTEM.items() if library.startswith(start))
        advice = next(known, "install the system's package that has it")
        return f"the system's library {library} is missing: {advice}"
    return f"{name or 'a Python package'} can't be imported ({text}): reinstall it"
