"""MetaPortrait: identity-preserving talking-head re-enactment on your own files."""

__version__ = "0.1.0"
