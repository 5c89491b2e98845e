"""What the platform is told of the cluster that it runs functions on; light, so that the command can read it."""

from __future__ import annotations

import msgspec

from stoker_sdk.names import DEFAULT_NAMESPACE


class ClusterSettings(msgspec.Struct, frozen=True):
    """`kubeconfig` is empty where the platform is a pod of the cluster itself. `run_as_user` is functions' user id;
    None leaves it to the cluster (OpenShift). `plain_registries` speak HTTP without TLS.
    """

    kubeconfig: str = ""
    context: str = ""
    namespaces: tuple[str, ...] = (DEFAULT_NAMESPACE,)
    plain_registries: tuple[str, ...] = ()
    registry_ca: str = ""
    run_as_user: int | None = 12000
