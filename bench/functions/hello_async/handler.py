async def handle(event: object, context: object) -> str:
    return "hello\n"
