"""The weights room: where files come from, whether they are whole, and strict loading.

:func:`resolve` turns what the user wrote into a checked file. ``weights.store`` turns a file into
a network every one of whose parameters came from it; it is a module of its own because it imports
torch, for which listing files need not wait.
"""

from metaportrait_cli.weights.manifest import ManifestEntry, bundled_path, read_manifest
from metaportrait_cli.weights.sources import resolve

__all__ = ["ManifestEntry", "bundled_path", "read_manifest", "resolve"]
