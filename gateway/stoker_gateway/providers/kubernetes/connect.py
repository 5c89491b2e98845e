"""Puts the parts together for one cluster: its API, the provider, the secrets."""

from __future__ import annotations

from pathlib import Path

from stoker_gateway.providers.kubernetes.api import open_api
from stoker_gateway.providers.kubernetes.manifests import Settings
from stoker_gateway.providers.kubernetes.provider import KubernetesProvider
from stoker_gateway.providers.kubernetes.registry import Registries
from stoker_gateway.providers.kubernetes.secrets import KubernetesSecrets
from stoker_gateway.providers.kubernetes.settings import ClusterSettings


async def connect(settings: ClusterSettings) -> tuple[KubernetesProvider, KubernetesSecrets]:
    """The caller starts and closes the provider, and with it the connections of both. Raises `StokerError`."""
    ca = Path(settings.registry_ca) if settings.registry_ca else None
    registries = Registries(plain=settings.plain_registries, ca=ca)
    kubeconfig = Path(settings.kubeconfig) if settings.kubeconfig else None
    api = await open_api(kubeconfig, settings.context)
    provider = KubernetesProvider(api, settings.namespaces, registries, Settings(run_as_user=settings.run_as_user))
    return provider, KubernetesSecrets(api)
