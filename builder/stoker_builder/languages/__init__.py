"""What a build does differently for each language, behind one interface (`base.Language`)."""

from __future__ import annotations

from stoker_builder.languages.base import Language
from stoker_builder.languages.csharp import CSharp
from stoker_builder.languages.go import Go
from stoker_builder.languages.node import Node
from stoker_builder.languages.program import Script
from stoker_builder.languages.python import Python
from stoker_builder.languages.ruby import Ruby
from stoker_builder.templates import Template

_LANGUAGES: dict[str, type[Language]] = {
    "python": Python,
    "node": Node,
    "go": Go,
    "ruby": Ruby,
    "csharp": CSharp,
    "program": Script,
}


def language_of(template: Template) -> Language:
    """The steps of the language that the template names; its loading has checked the name."""
    return _LANGUAGES[template.toolchain]()
