"""C#: the .NET SDK publishes the template's project with the handler in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stoker_builder.child import TimedOut
from stoker_builder.environment import Environment
from stoker_builder.errors import FailedInstall
from stoker_builder.languages.base import Inputs, Language, copy_template
from stoker_builder.languages.tools import cache_folder, give, need, run_as_builder, version
from stoker_builder.staging import sealed
from stoker_builder.templates import Template
from stoker_builder.tree import copy_tree
from stoker_sdk.errors import BadInput

if TYPE_CHECKING:
    from stoker_builder.plan import Plan
    from stoker_builder.workshop import Workshop


class CSharp(Language):
    """A class `Handler` in FunctionHandler.cs."""

    def inspect(self, handler: Path, template: Template) -> Inputs:
        need(template.name, dotnet="dotnet-sdk-8.0, from packages.microsoft.com")
        if not any(handler.glob("*.cs")):
            raise BadInput("Handler.cs is missing in the handler folder")
        return Inputs(f"dotnet {version('dotnet')}")

    def assemble(self, plan: Plan, folder: Path, environment: Environment, workshop: Workshop) -> None:
        source = workshop.staging / "dotnet"
        source.mkdir(mode=0o700)
        copy_template(plan, source)
        copy_tree(plan.request.handler, source / plan.template.handler_folder)
        give(source, workshop)
        variables = {
            "NUGET_PACKAGES": str(cache_folder("nuget", workshop)),
            "DOTNET_CLI_TELEMETRY_OPTOUT": "1",
            "DOTNET_NOLOGO": "1",
        }
        try:
            outcome = run_as_builder(["dotnet", "publish", "-c", "Release", "-o", "out"], source, variables, workshop)
        except TimedOut as error:
            raise FailedInstall(f"`dotnet publish` {error}: try again") from None
        if outcome.code:
            errors = [line.strip() for line in outcome.lines if "error" in line] or list(outcome.lines[-1:])
            raise BadInput(f"`dotnet publish` failed: {errors[0][:1000]}")
        folder.mkdir(mode=0o700)
        copy_tree(sealed(source / "out", workshop.staging), folder / "out")
        (folder / plan.template.handler_folder).mkdir()
