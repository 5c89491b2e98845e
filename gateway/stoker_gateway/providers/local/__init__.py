"""The provider of one machine: replicas are processes, forked warm by the fork server."""
