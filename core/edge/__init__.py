"""Between bytes and typed events: frames, requests, replies, and the budget of what is accepted."""
