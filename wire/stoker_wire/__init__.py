"""The HTTP/1.1 engine: accept, frame, stream, pool, tunnel. Protocol classes on uvloop and httptools, nothing else.

Both sides are callback driven and create no task for an ordinary message. `server` turns bytes into `Exchange`s and
answers back into bytes; `client` keeps pools of connections and sends requests on them; `tunnel` joins two
connections after an upgrade.
"""
