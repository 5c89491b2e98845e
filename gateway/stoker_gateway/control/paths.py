"""Which paths are clean, and what an unclean one should have been (contract section 2.1)."""

from __future__ import annotations

_DOTS = {"%2e": ".", ".%2e": "..", "%2e.": "..", "%2e%2e": ".."}


def clean_path(raw: str) -> str:
    """The path without doubled slashes and dot segments, a slash at its end kept. Nothing else is decoded.

    A clean path comes back as it is. Another answer is safe as a `Location`: it begins with one slash that
    neither a slash nor a backslash follows, so no browser takes it for another host.
    """
    kept: list[str] = []
    segments = raw.split("/")
    for segment in segments:
        match _DOTS.get(segment.lower(), segment):
            case "" | ".":
                continue
            case "..":
                del kept[-1:]
            case _:
                kept.append(segment)
    last = _DOTS.get(segments[-1].lower(), segments[-1])
    end = "/" if kept and last in ("", ".", "..") else ""
    cleaned = "/" + "/".join(kept) + end
    return cleaned if cleaned == raw else cleaned.replace("\\", "%5C")
