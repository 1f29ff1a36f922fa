"""The real runtime: epoll, files, threads and wiring around the pure core."""
