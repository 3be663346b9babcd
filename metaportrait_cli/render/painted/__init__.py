"""Renderers that a person has been learnt into."""
