"""The coordinator: catalog, servers, and which bucket lives where and is led by whom."""
