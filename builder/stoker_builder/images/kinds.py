"""The names of those who build functions, as flags have them."""

from __future__ import annotations

from typing import Final

LOCAL: Final = "local"
DOCKER: Final = "docker"
BUILDKIT: Final = "buildkit"

BUILDERS: Final = (LOCAL, DOCKER, BUILDKIT)
IMAGE_BUILDERS: Final = (DOCKER, BUILDKIT)
"""Those that make images."""
