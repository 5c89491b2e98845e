"""Measures the platform beside its peers: `python -m bench [FIGURE ...]`, from the repository's root."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import cluster, dev, fork, languages, many_pushes, memory, proxy, push, queue, replica, report, wake
from bench.processes import BenchError, work_on_load_core
from stoker_sdk.errors import StokerError

Family = Callable[[Path], list[report.Figure]]

FAMILIES: tuple[tuple[Family, tuple[str, ...]], ...] = (
    (proxy.proxy_figures, ("proxy_vs_nginx", "proxy_vs_aiohttp", "proxy_p99_vs_nginx")),
    (proxy.python_figures, ("python_vs_flask",)),
    (replica.replica_figures, ("replica_vs_uvicorn",)),
    (fork.fork_figures, ("fork_vs_loop",)),
    (languages.node_figures, ("node_vs_http",)),
    (languages.go_figures, ("go_vs_http",)),
    (wake.wake_figures, ("wake_p50_ms", "wake_p99_ms")),
    (wake.wake_pandas_figures, ("wake_pandas_p50_ms",)),
    (memory.replica_figures, ("replica_uss_mb",)),
    (memory.idle_figures, ("idle_pss_mb",)),
    (queue.accept_figures, ("async_accept_vs_publish",)),
    (queue.relaxed_figures, ("async_accept_vs_publish_relaxed",)),
    (queue.drain_figures, ("async_drain_vs_sync",)),
    (dev.dev_figures, ("dev_reload_p95_ms",)),
    (cluster.service_figures, ("pod_vs_service",)),
    (cluster.deploy_figures, ("deploy_vs_kubectl",)),
    (push.push_figures, ("push_vs_docker",)),
    (many_pushes.pushes_figures, ("pushes_p99",)),
    (memory.thousand_figures, ("functions_1000_mb", "list_1000_ms")),
)
"""What is measured together, and which figures it gives."""

_ON_CLUSTER = (cluster.__name__, push.__name__)
"""Those that need a cluster, or its Docker Engine."""


def main(names: Sequence[str]) -> int:
    """0: everything asked for was measured, whether or not it reached its threshold. 1: not. 2: no such figure."""
    unknown = [name for name in names if name not in report.THRESHOLDS]
    if unknown:
        print(f"no such figure: {', '.join(unknown)}; there are {', '.join(report.THRESHOLDS)}", file=sys.stderr)
        return 2
    wanted = list(names) or list(report.THRESHOLDS)
    work_on_load_core()
    print(f"load average before: {os.getloadavg()[0]:.2f} (other work on the machine makes figures worse)")
    families = _families(set(wanted))
    figures = [figure for family, keys in families for figure in _measure(family, keys)]
    measured = {figure.key for figure in figures}
    missing = [key for _, keys in families for key in keys if key not in measured]
    report.write(figures, forget=missing)
    print(f"\n{report.table(figures, missing)}\n\nwritten to {report.LATEST}")
    return 1 if missing else 0


def _families(wanted: set[str]) -> list[tuple[Family, tuple[str, ...]]]:
    """Those that give what is wanted; without a cluster the ones that need none."""
    families = [(family, keys) for family, keys in FAMILIES if wanted.intersection(keys)]
    if cluster.is_there():
        return families
    on_cluster = [keys for family, keys in families if family.__module__ in _ON_CLUSTER]
    if on_cluster:
        print(f"{', '.join(key for keys in on_cluster for key in keys)} left out, {cluster.LEFT_OUT}")
    return [(family, keys) for family, keys in families if family.__module__ not in _ON_CLUSTER]


def _measure(family: Family, keys: Sequence[str]) -> list[report.Figure]:
    """A family's figures in a temporary folder; none when it fails, so that the others are still measured."""
    print(f"{', '.join(keys)} ...", end=" ", flush=True)
    begun = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="stoker-bench-") as folder:
            Path(folder).chmod(0o711)  # functions run as users of their own and must get to their artefacts
            figures = family(Path(folder))
    except (BenchError, StokerError) as error:
        print(f"FAILED: {error}", flush=True)
        return []
    except Exception:
        print("FAILED:", flush=True)
        traceback.print_exc()
        return []
    print(f"{time.monotonic() - begun:.0f} s", flush=True)
    return figures


if __name__ == "__main__":
    try:
        sys.exit(main([name for argument in sys.argv[1:] for name in argument.replace(",", " ").split()]))
    except BenchError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit("bench: stopped; everything that it had started is stopped too")
