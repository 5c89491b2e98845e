"""How a command of ours reads its flags: as click does, plus faas-cli's `--flag=false`."""

from __future__ import annotations

from typing import Any

import click

_TRUE = ("true", "t", "1")
_FALSE = ("false", "f", "0")


class Command(click.Command):
    """A command whose boolean flags also take `=true` and `=false`, because scripts for faas-cli write them
    so.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", {"help_option_names": ["-h", "--help"], "max_content_width": 110})
        super().__init__(*args, **kwargs)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        flags = {
            name: param.secondary_opts[0] if param.secondary_opts else ""
            for param in self.params
            if isinstance(param, click.Option) and param.is_flag and param.is_bool_flag
            for name in param.opts
        }
        return super().parse_args(ctx, plain_flags(args, flags))


def plain_flags(arguments: list[str], flags: dict[str, str]) -> list[str]:
    """The arguments with `--flag=true` written `--flag`, and `--flag=false` written as its opposite or left
    out.

    `flags` has the opposite of each boolean flag, or an empty string when it has none (it is then off by
    default).
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    plain: list[str] = []
    for argument in arguments[:end]:
        name, _, value = argument.partition("=")
        if name not in flags or value.lower() not in _TRUE + _FALSE:
            plain.append(argument)
        elif value.lower() in _TRUE:
            plain.append(name)
        elif flags[name]:
            plain.append(flags[name])
    return plain + arguments[end:]
