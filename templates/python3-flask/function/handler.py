def handle(req):
    """Answer a call. `req` is the body as text; return text, or (body, status, headers)."""
    return f"You sent: {req}", 200, {"Content-Type": "text/plain; charset=utf-8"}
