"""Where the API server is and how to prove who asks; the only door to the kubernetes library.

Owns configuration, credentials and transport (proxies, TLS, tokens that are renewed); refuses to know what is asked.
The library's models are not used: they cost 4.7 ms a pod, and one odd object fails a whole list.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import urllib3
import yaml
from kubernetes import client, config
from kubernetes.config.config_exception import ConfigException

Configure = Callable[[], client.Configuration]

CONNECT_S = 5.0
WATCHES = 64  # connections kept; each watch holds one


class AccessError(Exception):
    """It is not known how to reach an API server; the text says what was looked at and what to do."""


class Access:
    """Opens requests with the credentials of the moment. Its methods may be called from several threads."""

    def __init__(self, configure: Configure) -> None:
        self.configure = configure
        self._load()

    def _load(self) -> None:
        self._configuration = self.configure()
        self._configuration.connection_pool_maxsize = WATCHES
        self._client = client.ApiClient(self._configuration)

    @property
    def host(self) -> str:
        return str(self._configuration.host).rstrip("/")

    def renew(self) -> None:
        """Reads the credentials again: the server refused those we have. Raises AccessError."""
        self._load()

    def open(
        self, path: str, headers: Mapping[str, str], read_s: float, method: str = "GET", body: bytes | None = None
    ) -> Any:
        """A urllib3 response whose body is not read yet. Raises urllib3's errors, and OSError without credentials.

        The library renews tokens when it is asked for the Authorization header: a service account's each minute, those
        of kubeconfig plugins when they expire.
        """
        return self._client.rest_client.pool_manager.request(
            method,
            self.host + path,
            body=body,
            headers={**headers, **self._authorization()},
            timeout=urllib3.Timeout(connect=CONNECT_S, read=read_s),
            preload_content=False,
            decode_content=True,
            retries=False,
            redirect=False,
        )

    def _authorization(self) -> dict[str, str]:
        try:
            settings: list[Any] = list(self._configuration.auth_settings().values())
        except ConfigException as error:  # the file of a token was just empty
            raise OSError(f"no credentials: {error}") from error
        found = {each["key"]: each["value"] for each in settings if each["in"] == "header" and each["value"]}
        return {key: value.strip() for key, value in found.items()}  # a token's file may end in a new line


def find(kubeconfig: Path | None = None, environ: Mapping[str, str] = os.environ) -> Access:
    """Access by a kubeconfig if one is named, by the pod's service account inside a cluster, else by the user's
    kubeconfig ($KUBECONFIG or ~/.kube/config). Raises AccessError."""
    if kubeconfig is not None:
        return _access(lambda: _from_kubeconfig(kubeconfig), f"kubeconfig {kubeconfig}")
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return _access(_from_service_account, "the pod's service account")
    return _access(lambda: _from_kubeconfig(None), "$KUBECONFIG or ~/.kube/config")


def of_kubelet(url: str, ca: Path | None, kubeconfig: Path | None = None) -> Access:
    """Access to a kubelet with the credentials for the API server. Raises AccessError.

    Without `ca` its certificate is not verified: most kubelets sign their own.
    """
    server = find(kubeconfig)

    def configure() -> client.Configuration:
        configuration = server.configure()
        configuration.host = url.rstrip("/")
        configuration.verify_ssl = ca is not None
        configuration.ssl_ca_cert = str(ca) if ca else None
        return configuration

    return Access(configure)


def _access(configure: Configure, where: str) -> Access:
    def explained() -> client.Configuration:
        try:
            return configure()
        except (ConfigException, yaml.YAMLError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise AccessError(f"no access to an API server by {where}: {said}") from error

    return Access(explained)


def _from_service_account() -> client.Configuration:
    configuration = client.Configuration()
    config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    return configuration


def _from_kubeconfig(path: Path | None) -> client.Configuration:
    configuration = client.Configuration()
    config.load_kube_config(  # type: ignore[no-untyped-call]
        config_file=str(path) if path else None, client_configuration=configuration, persist_config=False
    )
    return configuration
