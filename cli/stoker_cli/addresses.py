"""An address as a flag's value."""

from __future__ import annotations

import click


class Address(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """HOST:PORT; the port may be 0 for any free one."""

    name = "HOST:PORT"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            self.fail(f"{value!r} is not an address: write HOST:PORT, such as 127.0.0.1:8080")
        return host.strip("[]"), int(port)
