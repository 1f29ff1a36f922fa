"""What must hold in every run, one family of promises a file."""
