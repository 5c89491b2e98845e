def handle(req):
    return f"You said: {req or 'pass a value to the function'}"
