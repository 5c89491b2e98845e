"""The platform's own git remote: bare repositories, git's `http-backend` before them, and a hook that makes runs."""
