"""Puts the parts together for one cluster: its API, the provider, the secrets."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Final

from stoker_gateway.providers.kubernetes.api import Api, open_api
from stoker_gateway.providers.kubernetes.lease import Candidate
from stoker_gateway.providers.kubernetes.manifests import Settings
from stoker_gateway.providers.kubernetes.operator.provider import OperatorProvider
from stoker_gateway.providers.kubernetes.provider import KubernetesProvider
from stoker_gateway.providers.kubernetes.registry import Registries
from stoker_gateway.providers.kubernetes.secrets import KubernetesSecrets
from stoker_gateway.providers.kubernetes.settings import ClusterSettings

LEASE: Final = "stoker"
"""In the first namespace of functions, where whoever looks after the same functions finds it."""


async def connect(settings: ClusterSettings) -> tuple[KubernetesProvider, KubernetesSecrets]:
    """The caller starts and closes the provider, and with it the connections of both. Raises `StokerError`."""
    ca = Path(settings.registry_ca) if settings.registry_ca else None
    registries = Registries(plain=settings.plain_registries, ca=ca)
    kubeconfig = Path(settings.kubeconfig) if settings.kubeconfig else None
    api = await open_api(kubeconfig, settings.context)
    return _make_provider(api, settings, registries), KubernetesSecrets(api)


def _make_provider(api: Api, settings: ClusterSettings, registries: Registries) -> KubernetesProvider:
    wishes = Settings(settings.run_as_user, settings.deploy_deadline)
    candidate = Candidate(api, settings.namespaces[0], LEASE, f"{socket.gethostname()}-{os.urandom(4).hex()}")
    if settings.function_group:
        return OperatorProvider(api, settings.namespaces, registries, settings.function_group, wishes, candidate)
    return KubernetesProvider(api, settings.namespaces, registries, wishes, candidate)
