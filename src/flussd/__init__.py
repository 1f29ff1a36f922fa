"""flussd: a Fluss-compatible streaming store whose distributed core is pure code."""

__version__ = "0.1.0"
