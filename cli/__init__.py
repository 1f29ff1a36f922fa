"""The commands `flussd` and `fluss-sim`: options in, exit status out."""
