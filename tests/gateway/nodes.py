"""Three nodes of one cluster on this machine, run by nothing but the rendered manifests and an API server.

A node is a mount namespace with a bpffs of its own and a read-only root, a cgroup slice, a kubelet that tells of
devices, and an agent in a network namespace of its own: its pod. Mounts of the manifests that cannot be at their place
(/host/cgroup, /tls, /pod-resources) are given to the programs by where they are here; all other arguments, variables
and capabilities are the manifests'. Kubelet's part is played by `Node`: it starts what an object says.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.cluster import access
from agent.config import CertsConfig
from agent.identity import keeper, tls
from agent.kernel import cgroups as tree
from lab.config import MODEL
from lab.machine import cgroups, network, processes, substrate
from lab.machine.processes import Process
from lab.machine.substrate import program
from tests.apiserver import ApiServer
from tests.conftest import skip_or_fail
from tests.daemonset.rendered import arguments, capabilities, container, one, pod_spec, render
from tests.kube import agent_pod, kubeconfig, pod

Json = dict[str, Any]
LIMIT_S = 60.0
ENDING_S = 1.0
KUBELET = (sys.executable, "-m", "lab.machine.kubelet")
ENGINE_PORT, CONTROL_PORT = 8000, 8900


@dataclass
class Site:
    """What all nodes share."""

    lab: str
    slice: Path
    folder: Path
    server: ApiServer
    kubeconfig: Path
    logs: Path
    running: list[Process] = field(default_factory=list)

    @property
    def hosts(self) -> Path:
        """Names for the nodes' resolver, where a test wrote some before they boot: the cluster's DNS."""
        return self.folder / "hosts"

    @property
    def environment(self) -> dict[str, str]:
        return {"KUBECONFIG": str(self.kubeconfig)}

    async def start(self, name: str, command: Sequence[str]) -> Process:
        given = [f"{key}={value}" for key, value in self.environment.items()]
        process = await processes.start(name, ["env", *given, *command], self.logs)
        self.running.append(process)
        return process

    async def stop(self) -> None:
        """Ends all at once. Nobody is left who had to notice it, so what drains is not waited for."""
        async with asyncio.TaskGroup() as group:
            for process in self.running:
                group.create_task(process.stop(ENDING_S))

    def apply(self, name: str) -> None:
        """kubectl apply -k, of what the API server of the tests knows: the Secrets and the DaemonSet."""
        for document in render(name):
            if document["kind"] in ("Secret", "DaemonSet"):
                self.server.put(document)

    def keep_certificates(self) -> None:
        """Runs the keeper once, and puts the Secrets where kubelet would mount them."""
        controllers = (one("base", "Deployment", "sonde-controller")["metadata"]["namespace"],)
        config = CertsConfig(None, True, "sonde-system", controllers, None)
        keeper.keep(config, access.find(self.kubeconfig), keeper._now)
        for (collection, _, name), value in self.server.store.objects.items():
            if collection == "/api/v1/secrets":
                folder = self.folder / "secrets" / name
                folder.mkdir(parents=True, exist_ok=True)
                for file in (tls.CA, tls.CERTIFICATE, tls.KEY):
                    (folder / file).write_bytes(base64.b64decode(value["data"][file]))
        # the programs' users read them, as fsGroup makes it on Kubernetes
        for path in [self.folder / "secrets", *(self.folder / "secrets").rglob("*"), self.kubeconfig]:
            path.chmod(0o755 if path.is_dir() else 0o644)

    def secret(self, name: str) -> str:
        return str(self.folder / "secrets" / name)


@contextmanager
def cluster_ground(lab: str, namespaces: int) -> Iterator[Site]:
    """A network with so many pods' namespaces, a slice and a folder, all gone afterwards, and an API server in it."""
    choice = substrate.choose(lab, None)
    if choice.kind.value != "namespaces" or shutil.which("unshare") is None:
        skip_or_fail("kernel", choice.why[0] if choice.why else "no program 'unshare'")
    folder = Path("/tmp") / lab  # short, for sockets; writable for the controller's user by mode
    folder.mkdir(mode=0o755)
    (folder / "logs").mkdir()
    lab_slice = cgroups.slice_of(tree.root(), lab)
    try:
        network.build(lab, namespaces)
        cgroups.make(lab_slice)
        with network.inside(network.node_namespace(lab)):
            server = ApiServer(token="t", host=network.NODE_ADDRESS)
            try:
                yield Site(lab, lab_slice, folder, server, kubeconfig(folder, server.url, "t"), folder / "logs")
            finally:
                server.stop()
    finally:
        cgroups.remove(lab_slice)
        network.remove(lab)
        shutil.rmtree(folder)


def limited(held: Json, command: Sequence[str]) -> list[str]:
    """A container's user and capabilities."""
    context = held["securityContext"]
    user = str(context.get("runAsUser", 65532))
    bounding = ",".join(["-all", *(f"+{name}" for name in capabilities(held))])
    flags = ["--no-new-privs", "--inh-caps=-all", f"--bounding-set={bounding}"]
    if user != "0" and is_open_to_all(Path(__file__)) and is_open_to_all(Path(sys.executable)):
        flags += [f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    return ["setpriv", *flags, *command]


def is_open_to_all(path: Path) -> bool:
    """Whether another user can get there: a clone in a closed folder runs as root, which changes its rights only."""
    return all(folder.stat().st_mode & 0o005 == 0o005 for folder in path.absolute().parents)


@dataclass
class Node:
    """One node; `index` is its agent's network namespace."""

    site: Site
    name: str
    index: int
    overlay: str = "base"
    agent: Process | None = None
    document: Json | None = None  # of the agent's pod
    engines: dict[str, Process] = field(default_factory=dict)
    documents: dict[str, Json] = field(default_factory=dict)
    _holder: subprocess.Popen[str] | None = None

    @property
    def slice(self) -> Path:
        return self.site.slice / f"{self.name}.slice"

    @property
    def ip(self) -> str:
        return network.pod_address(self.index)

    @property
    def spec(self) -> Json:
        return pod_spec(self.overlay, "DaemonSet", "sonde-agent")

    @property
    def devices(self) -> Path:
        return self.site.folder / self.name

    def boot(self) -> None:
        """Its mounts: bpffs, the pod's empty folders, and everything else read-only."""
        self.devices.mkdir()
        cgroups.make(self.slice)
        empty = {volume["name"] for volume in self.spec["volumes"] if "emptyDir" in volume}
        mounts = [m for held in (*self.spec["initContainers"], *self.spec["containers"]) for m in held["volumeMounts"]]
        places = sorted({mount["mountPath"] for mount in mounts if mount["name"] in empty})
        script = ["mount -t bpf bpf /sys/fs/bpf"]
        # a root of its own that can be made read-only; what the test writes is beside it
        # /tmp stays as it is, because the test's own files are there
        script += ["mount --bind /tmp /tmp", "mount -o remount,bind,ro /"]
        if self.site.hosts.exists():
            script.append(f"mount --bind {self.site.hosts} /etc/hosts")
        script += [f"mount -t tmpfs tmpfs {place}" for place in places if place != "/tmp"]
        script += ["echo ready", "exec sleep infinity"]
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", "; ".join(script)]
        self._holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"

    def halt(self) -> None:
        """The namespace goes, and with it every pin."""
        if self._holder is not None:
            self._holder.kill()
            self._holder.wait()
            assert self._holder.stdout is not None
            self._holder.stdout.close()

    def inside(self, command: Sequence[str]) -> list[str]:
        assert self._holder is not None
        there = ["sh", "-c", 'cd "$0" && exec "$@"', os.getcwd(), *command]  # entering leads to the root folder
        entered = ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--", *there]
        return network.enter_command(network.pod_namespace(self.site.lab, self.index), entered)

    def command(self, title: str, arguments_: Sequence[str] | None = None) -> list[str]:
        """What a container of the agent's pod runs, as it runs it."""
        held = container(self.spec, title)
        places = {
            "/host/cgroup": str(self.slice),
            "/tls": self.site.secret("sonde-agent-tls"),
            "/pod-resources": str(self.devices),
        }
        values = {"NODE_NAME": self.name, "HOST_IP": "127.0.0.1"}
        given = arguments(held, values, places) if arguments_ is None else list(arguments_)
        return self.inside(limited(held, [sys.executable, "-u", "-m", "agent", *given]))

    async def start_kubelet(self, *devices: str) -> None:
        """Its PodResources, with NAMESPACE/POD=RESOURCE:ID."""
        socket = self.devices / "kubelet.sock"
        await self.site.start(f"{self.name}-kubelet", [*KUBELET, f"--socket={socket}", *devices])

    async def start_agent(self) -> None:
        """As kubelet starts the pod: init container, container, an address in the status."""
        title = f"{self.name}-load"
        environment = [f"{key}={value}" for key, value in self.site.environment.items()]
        await processes.finish(title, ["env", *environment, *self.command("load")], self.site.logs, LIMIT_S)
        self.agent = await self.site.start(f"{self.name}-agent", self.command("agent"))
        await processes.listening(self.agent, self.ip, 9431, LIMIT_S)
        self.document = agent_pod(f"sonde-agent-{self.name}", self.name, self.ip)
        self.site.server.put(self.document)

    async def stop_agent(self) -> None:
        """As kubelet ends a pod: the preStop hook, SIGTERM, and the object goes."""
        held = container(self.spec, "agent")
        _, *hook = held["lifecycle"]["preStop"]["exec"]["command"]
        environment = [f"{key}={value}" for key, value in self.site.environment.items()]
        command = ["env", *environment, *self.command("agent", hook)]
        await processes.finish(f"{self.name}-prestop", command, self.site.logs, LIMIT_S)
        assert self.agent is not None
        assert self.document is not None
        await self.agent.stop()
        self.site.server.delete(self.document)

    async def start_pod(self, name: str, index: int, **labels: str) -> None:
        """An engine in a cgroup and a network namespace of its own, and its object."""
        ip = network.pod_address(index)
        document = pod(name, self.name, ip, **labels)
        document["metadata"]["uid"] = uid = f"00000000-0000-4000-8000-{index:012}"
        scope = cgroups.container_scope(self.slice, uid, f"{index:064x}")
        cgroups.make(scope)
        command = program(
            "lab",
            "engine",
            *("--host", ip, "--port", str(ENGINE_PORT), "--control-port", str(CONTROL_PORT)),
            *("--pod", name, "--model", MODEL, "--slow", "1", "--log", str(self.site.logs / f"{name}.truth")),
        )
        entered = network.enter_command(network.pod_namespace(self.site.lab, index), command)
        self.engines[name] = await self.site.start(name, cgroups.enter_command(scope, entered))
        await processes.listening(self.engines[name], ip, ENGINE_PORT, LIMIT_S)
        self.documents[name] = document
        self.site.server.put(document)

    async def start_client(self, name: str, index: int, command: Sequence[str]) -> Json:
        """A pod that serves nothing; its object."""
        document = pod(name, self.name, network.pod_address(index), app="client")
        document["metadata"]["uid"] = uid = f"00000000-0000-4000-8000-{index:012}"
        scope = cgroups.container_scope(self.slice, uid, f"{index:064x}")
        cgroups.make(scope)
        self.site.server.put(document)
        entered = network.enter_command(network.pod_namespace(self.site.lab, index), command)
        await self.site.start(name, cgroups.enter_command(scope, entered))
        return document


def controller_command(site: Site, values: Mapping[str, str], overlay: str = "base") -> list[str]:
    """The controller's container; its Secret is readable for its user, as fsGroup makes it."""
    held = container(pod_spec(overlay, "Deployment", "sonde-controller"), "controller")
    given = arguments(held, values, {"/tls/agents": site.secret("sonde-controller-tls")})
    return limited(held, [sys.executable, "-u", "-m", "controller", *given])
