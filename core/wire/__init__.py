"""What travels: API keys, message classes, error codes, and the codecs of the hot messages."""
