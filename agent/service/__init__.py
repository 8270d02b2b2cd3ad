"""The running process: it watches, records and sends until it is stopped."""
