import pandas  # type: ignore


def handle(event: object, context: object) -> str:
    return f"{pandas.Series([20, 22]).sum()}\n"
