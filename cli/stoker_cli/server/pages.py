"""The process of the pages: started when somebody opens one."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

from stoker_cli.pages_flags import PagesOptions
from stoker_cli.server.listening import listen_privately
from stoker_cli.server.supervisor import Child
from stoker_gateway.providers.local.launch import RunDir
from stoker_sdk.data_dir import DataDir


def pages_child(
    options: PagesOptions,
    data: DataDir,
    run: RunDir,
    gateway: str,
    environment: Mapping[str, str],
    *,
    pipeline: str,
    pipeline_stays: bool,
    has_workers: bool,
) -> Child:
    """The child, and its socket, which is ours: who connects while the process is away waits there. `gateway` is the
    address of functions and of the git remote for those who see the pages on a host of their own; `pipeline` the git
    pipeline's, empty where there is none.
    """
    listener = listen_privately(run.pages_socket)
    settings = {
        "data_dir": str(data.path),
        "listen_fd": listener.fileno(),
        "control_socket": str(run.control_socket),
        "pipeline": pipeline,
        "pipeline_stays": pipeline_stays,
        "proxy_socket": str(run.worker_socket(0)) if has_workers else "",
        "host": options.host,
        "gateway": gateway if options.host else "",
        "public_badges": options.public_badges,
        "github_client_id": options.github_client_id,
        "github_secret_file": str(options.github_secret_file or ""),
        "github_api_url": options.github_api_url,
        "idle_seconds": options.idle_seconds,
    }

    def command(ready: int) -> list[str]:
        return [sys.executable, "-P", "-m", "stoker_gateway.pages", json.dumps(settings | {"ready_fd": ready})]

    return Child("the pages", command, environment, (listener.fileno(),), wanted_by=listener)
