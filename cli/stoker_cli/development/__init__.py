"""What `stoker dev` is made of: a private platform, watchers, and a session that deploys what has changed."""
