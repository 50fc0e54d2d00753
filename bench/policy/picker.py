"""One picker of a simulation: keeps a Fleet from what it can see, asks a policy, counts what it sent."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np

from bench.policy.prefixes import PrefixIndex
from bench.policy.requests import Request
from bench.policy.signals import KernelView, PageView, Pod
from controller.endpoints.failures import Failures, Trust
from controller.endpoints.health import STREAM_FLOOR_S, State, Vigil
from controller.endpoints.row import WARM_CHUNKS
from controller.model import KernelSignal
from controller.policies import speed
from controller.policies.adapters import Adapters
from controller.policies.admission import Budgets
from controller.policies.fleet import EJECTED, FIELDS, STALLED, UNREADY, Fleet, Job, Policy
from controller.policies.kept import Prices
from controller.policies.parts import ENGINE, Engine
from controller.policies.price import forecast

LEARN_S = 0.1
MEANS = 0.01  # weight of one request in the means of lengths
NAN = float("nan")
TRANSIT_S = 0.005  # after which a page made then may know a request
# a field of a view that fleets do not have yet, or no more, is not shown
KERNEL_SEEN = [row for row, name in enumerate(KernelView.ROWS) if name in FIELDS]
KERNEL_AT = [FIELDS.index(KernelView.ROWS[row]) for row in KERNEL_SEEN]
PAGE_AT = FIELDS.index(PageView.ROWS[0])


Sheds = Callable[[Fleet, Job, Random], bool]


@dataclass(frozen=True, slots=True)
class Rival:
    """A policy and what its picker is shown."""

    name: str
    policy: Policy
    kernel: bool = False  # counts by the pods' kernels
    scrape_s: float | None = None  # engines' pages, this often
    responses: bool = True  # first bytes of its own requests, as a picker sees that is shown response bodies
    prefixes: bool = False  # keeps an index of what it sent where
    engine: Engine = ENGINE  # what the rule `sonde` takes an engine to be
    budgets: Budgets | None = None  # by which the rule `sonde` lets requests wait or go
    sheds: Sheds | None = None  # a peer's rule of whom to refuse


class Picker:
    def __init__(self, rival: Rival, pods: list[Pod], kernel: KernelView, rng: Random, others: int = 1) -> None:
        self.rival = rival
        self.fleet = Fleet([f"pod-{index}" for index in range(len(pods))])
        self.memory: Any = rival.policy.new()
        self.index = PrefixIndex([pod.engine.gpu.kv_tokens for pod in pods]) if rival.prefixes else None
        self.rng = rng
        self._pods = pods
        self._kernel = kernel if rival.kernel else None
        self._kernel_at_s = -1.0
        self._pages = PageView(pods, rival.scrape_s, rng) if rival.scrape_s else None
        self._others = others  # pickers, this one included
        self._reserved: list[deque[Request]] = [deque() for _ in pods]
        self._shown: list[deque[Request]] = [deque() for _ in pods]
        self._unpaged: list[deque[float]] = [deque() for _ in pods]
        self._waits: set[Request] = set()  # counted in own_waiting
        self._uncached: dict[Request, float] = {}
        self._jobs: dict[Request, Job] = {}
        self._vigils = [Vigil() for _ in pods]
        self._failures = [Failures() for _ in pods]
        self._distrusted = False  # any endpoint, now
        self._cold: dict[int, int] = {}  # new pods, and how many runs of gaps each had when it came
        self._learned_s = 0.0
        self._adapters = Adapters()
        self._adapters.place(self.fleet.ids)
        self._loading: dict[Request, float] = {}  # when first bytes were due without the load of an adapter
        self._unready = np.zeros(len(pods))

    def set_ready(self, pod: int, ready: bool, now_s: float, new: bool) -> None:
        self._unready[pod] = 0.0 if ready else UNREADY
        self.fleet.standing[pod] = self._unready[pod]
        if ready and new:
            self.fleet.ready_at_s[pod] = now_s
            self._cold[pod] = len(self._pods[pod].engine.gaps)

    def choose(self, request: Request, now_s: float) -> tuple[Job, int]:
        """What it would do with the request now."""
        fleet = self.fleet
        fleet.now_s = now_s
        self._refresh(now_s)
        job = Job(
            request.prompt_tokens, None, priority=request.priority, blocks=request.blocks, session=request.session
        )
        if self.index is not None and request.blocks:
            job.uncached = self.index.uncached(request.blocks, request.prompt_tokens)
        if request.adapter is not None:
            job.adapter_wait_s = self._adapters.wait_s(str(request.adapter), now_s)
        return job, self.rival.policy.choose(fleet, job, self.rng, self.memory)

    def send(self, request: Request, job: Job, at: int, now_s: float) -> None:
        fleet = self.fleet
        uncached = float(request.prompt_tokens if job.uncached is None else job.uncached[at])
        self._uncached[request] = uncached
        self._waits.add(request)
        self._reserved[at].append(request)
        self._unpaged[at].append(now_s)
        for field, amount in (
            (fleet.reserved, 1.0),
            (fleet.unpaged, 1.0),
            (fleet.own_waiting, 1.0),
            (fleet.queued_tokens, uncached),
            (fleet.own_in_flight, 1.0),
            (fleet.own_tokens, request.prompt_tokens),
        ):
            field[at] += amount
        fleet.own_open[at] += 1.0
        self._remember(request, job, at, uncached)

    def _remember(self, request: Request, job: Job, at: int, uncached: float) -> None:
        fleet, policy = self.fleet, self.rival.policy
        speed.sent(fleet, at, uncached * self._others)
        fleet.mean_prompt_tokens += MEANS * (request.prompt_tokens - fleet.mean_prompt_tokens)
        fleet.mean_uncached_tokens += MEANS * (uncached - fleet.mean_uncached_tokens)
        if self.index is not None and request.blocks:
            self.index.insert(at, request.blocks)
        if request.adapter is not None:
            self._use_adapter(request, job, at)
        self._jobs[request] = job
        policy.sent(fleet, at, job, self.memory)

    def _use_adapter(self, request: Request, job: Job, at: int) -> None:
        """And, where it has to be loaded, expects a first byte so much later."""
        fleet, ttft_s, whole_s = self.fleet, NAN, 0.0
        if isinstance(self.memory, Prices):
            told = forecast(replace(job, adapter_wait_s=None), self.memory, at)
            ttft_s, whole_s = told.ttft_s, told.ttft_s + told.gap_s * fleet.mean_output_tokens
        if self._adapters.use(fleet.ids[at], str(request.adapter), fleet.now_s, whole_s) and ttft_s == ttft_s:
            self._loading[request] = fleet.now_s + ttft_s

    def first_byte(self, request: Request, now_s: float) -> None:
        """Its answer has begun, which a picker that is not shown responses does not learn."""
        if self.rival.responses:
            self.fleet.now_s = now_s
            self._stop_waiting(request)
            job = self._jobs[request]
            self.rival.policy.first_byte(self.fleet, request.pod, job, request.ttft_s, self.memory)

    def ended(self, request: Request, now_s: float) -> None:
        fleet, at = self.fleet, request.pod
        fleet.now_s = now_s
        self._stop_waiting(request)
        self._loading.pop(request, None)
        del self._uncached[request]
        fleet.own_in_flight[at] -= 1.0
        fleet.own_open[at] -= 1.0
        fleet.own_tokens[at] -= request.prompt_tokens
        if request in self._reserved[at]:
            self._reserved[at].remove(request)
            fleet.reserved[at] -= 1.0
        if not request.failed:
            fleet.mean_output_tokens += MEANS * (request.output_tokens - fleet.mean_output_tokens)
            if self.index is not None and request.final_blocks:
                self.index.insert(at, request.final_blocks)
        self._judge(request, now_s)
        whole_s = float("nan") if request.failed else now_s - request.sent_s
        self.rival.policy.ended(fleet, at, self._jobs.pop(request), whole_s, self.memory)

    def _stop_waiting(self, request: Request) -> None:
        if request in self._waits:
            self._waits.remove(request)
            self.fleet.own_waiting[request.pod] -= 1.0
            self.fleet.queued_tokens[request.pod] -= self._uncached[request]

    def _refresh(self, now_s: float) -> None:
        fleet = self.fleet
        if self._kernel is not None:
            self._kernel.refresh(now_s)
            if self._kernel.at_s > self._kernel_at_s:
                self._kernel_at_s = self._kernel.at_s
                fleet.matrix[KERNEL_AT] = self._kernel.rows[KERNEL_SEEN]
                self._reconcile()
                self._warm()
            self._watch(now_s)
            if now_s - self._learned_s >= LEARN_S:
                self._learned_s = now_s
                speed.learn(fleet, self.rival.engine)
        if self._pages is not None:
            for index in self._pages.refresh(now_s):
                fleet.matrix[PAGE_AT : PAGE_AT + len(PageView.ROWS), index] = self._pages.rows[:, index]
                self._forget_paged(index)

    def _forget_paged(self, at: int) -> None:
        sent, page_s = self._unpaged[at], self.fleet.engine_at_s[at] - TRANSIT_S
        while sent and sent[0] <= page_s:
            sent.popleft()
            self.fleet.unpaged[at] -= 1.0

    def _warm(self) -> None:
        """A new pod is cold until it has answered so much."""
        for at, runs in list(self._cold.items()):
            if sum(number for _, number, _ in self._pods[at].engine.gaps[runs:]) >= WARM_CHUNKS:
                del self._cold[at]
                self.fleet.ready_at_s[at] = float("nan")

    def _reconcile(self) -> None:
        """What the kernel counts now is reserved no more; of what it shows as waiting, ours are the youngest."""
        fleet, at_s = self.fleet, self._kernel_at_s
        for at, reserved in enumerate(self._reserved):
            while reserved and reserved[0].arrived_s <= at_s:
                self._shown[at].append(reserved.popleft())
                fleet.reserved[at] -= 1.0
            if not self.rival.responses:
                shown = self._shown[at]
                while len(shown) > fleet.waiting[at]:
                    answered = shown.popleft()
                    if answered in self._loading:
                        self._adapters.learn(max(0.0, at_s - self._loading.pop(answered)))
                    self._stop_waiting(answered)

    def _watch(self, now_s: float) -> None:
        """Standing by the production code's judgement of who answers."""
        assert self._kernel is not None
        if self._kernel.dead:
            return
        fleet = self.fleet
        if self._distrusted:
            self._eject(now_s)
        for at, pod in enumerate(self._pods):
            silent_s = self._kernel_at_s - pod.progress_s(self._kernel_at_s) if pod.in_flight else 0.0
            if silent_s < STREAM_FLOOR_S and self._vigils[at].state is State.FINE:
                continue  # nothing to judge
            state = self._vigils[at].watch(self._signal(at, pod), now_s)
            ejected = EJECTED if fleet.standing[at] % 2 else 0.0
            fleet.standing[at] = self._unready[at] + ejected + (0.0 if state is State.FINE else STALLED)

    def _judge(self, request: Request, now_s: float) -> None:
        """By the production code's rule of who is ejected."""
        failures = self._failures[request.pod]
        if request.failed:
            failures.failed(now_s)
            self._distrusted = True
        else:
            failures.succeeded(now_s)

    def _eject(self, now_s: float) -> None:
        fleet = self.fleet
        trusts = [failures.trust(now_s) for failures in self._failures]
        shunned = [
            trust is Trust.EJECTED or (trust is Trust.TRIAL and fleet.own_in_flight[at] > 0)
            for at, trust in enumerate(trusts)
        ]
        if 2 * sum(shunned) > len(trusts):  # then the fault lies elsewhere
            shunned = [False] * len(trusts)
        for at, failures in enumerate(self._failures):
            fleet.failures[at] = failures.rate(now_s)
            fleet.standing[at] = self._unready[at] + (EJECTED if shunned[at] else 0.0)

    def _signal(self, at: int, pod: Pod) -> KernelSignal:
        fleet = self.fleet
        at_s = self._kernel_at_s
        progress_s = min(pod.progress_s(at_s), at_s)
        in_flight, waiting = int(fleet.in_flight[at]), int(fleet.waiting[at])
        return KernelSignal(
            true_at_s=at_s,
            in_flight=in_flight,
            waiting=waiting,
            started=0,
            progress=int(progress_s * 1e4),
            progress_at_s=progress_s if in_flight else None,
            usual_ttft_s=_known(fleet.ttft_s[at]),
            usual_gap_s=_known(fleet.gap_s[at]),
        )


def _known(value: float) -> float | None:
    return None if value != value else float(value)
