"""Broken versions of the core, each of which a named oracle must catch."""
