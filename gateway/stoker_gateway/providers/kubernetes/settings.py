"""What the platform is told of the cluster that it runs functions on; light, so that the command can read it."""

from __future__ import annotations

from typing import Final

import msgspec

from stoker_sdk.names import DEFAULT_NAMESPACE

DEFAULT_DEPLOY_DEADLINE: Final = 120.0
"""Seconds after which a rollout without progress has failed, where function and operator say nothing."""


class ClusterSettings(msgspec.Struct, frozen=True):
    """`kubeconfig` is empty where the platform is a pod of the cluster itself. `run_as_user` is functions' user id;
    None leaves it to the cluster (OpenShift). `plain_registries` speak HTTP without TLS. `deploy_deadline`: in seconds.
    `function_group` is the group of the Function resources in operator mode, and else empty.
    """

    kubeconfig: str = ""
    context: str = ""
    namespaces: tuple[str, ...] = (DEFAULT_NAMESPACE,)
    plain_registries: tuple[str, ...] = ()
    registry_ca: str = ""
    run_as_user: int | None = 12000
    deploy_deadline: float = DEFAULT_DEPLOY_DEADLINE
    function_group: str = ""
