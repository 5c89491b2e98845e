"""What `stoker serve` is made of: folders, sockets, the processes, and the order of their lives."""
