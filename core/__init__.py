"""The pure core: events in, effects out, with no clock, file, socket, thread or chance."""
