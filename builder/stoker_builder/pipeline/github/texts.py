"""Markdown that is shown on GitHub: a log's tail, and a preview's comment. Pure; what strangers wrote stays text."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import quote

from stoker_sdk.runs import GONE, Run, RunLine

MAX_TEXT: Final = 60_000
"""Bytes of a check's text; GitHub takes 65,535."""
MARK: Final = "<!-- stoker: preview -->"
"""First line of our comment, by which it is found again."""
_SHAPES: Final = re.compile(
    r"\b(gh[pousr]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{16,})|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_HIDDEN: Final = "(secret)"
_CUT: Final = "(earlier lines are left out)"


def log_tail(lines: Iterable[RunLine], function: str, secrets: Sequence[str]) -> str:
    """The last lines of one function, or of the whole run, as a code block that nothing in them can leave."""
    wanted = [line for line in lines if not function or line.function == function]
    texts = [f"{line.function}: {line.text}" if line.function and not function else line.text for line in wanted]
    hidden = hide("\n".join(texts), secrets).encode()
    if len(hidden) > MAX_TEXT:
        hidden = f"{_CUT}\n".encode() + hidden[-MAX_TEXT:].partition(b"\n")[2]
    text = hidden.decode(errors="replace")
    if not text:
        return ""
    longest = max((len(found) for found in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def hide(text: str, secrets: Sequence[str]) -> str:
    """Without the secrets, as they are, in base64 and as in a URL, and without what looks like a token of GitHub's."""
    forms = {form for secret in secrets if len(secret) >= 4 for form in _forms(secret)}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, _HIDDEN)
    return _SHAPES.sub(_HIDDEN, text)


def _forms(secret: str) -> Iterable[str]:
    data = secret.encode()
    return secret, quote(secret, safe=""), base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode()


def preview_comment(run: Run, log_url: str) -> str:
    """The comment of a pull request: where its functions are, or why they are not."""
    if run.push.sha == GONE:
        return f"{MARK}\nThe preview of this pull request is removed.\n"
    rows = [f"| {_code(each.name)} | {_where(each.url, each.state, each.reason)} |" for each in run.functions]
    table = "\n".join(["", "| function | preview |", "|---|---|", *rows, ""]) if rows else "\n"
    state = f"{run.state}: {_code(run.reason)}" if run.reason else run.state
    return f"{MARK}\nPreview of {run.push.sha[:7]}: {state} ([log]({log_url}))\n{table}"


def _where(url: str, state: str, reason: str) -> str:
    if state == "deployed" and url:
        return f"<{url}>"
    if state == "unchanged":
        return "not changed by this pull request"
    return f"{state}: {_code(reason)}" if reason else state


def _code(text: str) -> str:
    """As code in a table's cell: there are no links, pictures, HTML and mentions in it."""
    line = " ".join(text.replace("`", "'").replace("\\", "/").split())[:300]
    return "`" + line.replace("|", "\\|") + "`"
