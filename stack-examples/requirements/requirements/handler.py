import humanize


def handle(req):
    """A number of bytes in words: `123456789` is `123.5 MB`."""
    if not req.strip().isdigit():
        return "Send a number of bytes."
    return humanize.naturalsize(int(req))
