"""The proxy process: owns every byte of a call. One event loop, one route table, no truth of its own."""
