def handle(req):
    """Answer a call. `req` is the body as text, `""` when there is none."""
    return f"You sent: {req}"
