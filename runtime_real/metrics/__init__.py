"""What a running cluster tells its operators over HTTP; loaded only when it is asked for."""
