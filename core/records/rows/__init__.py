"""Rows in bytes: compacted, indexed and aligned ones (record formats, section 4)."""
