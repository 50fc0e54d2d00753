"""The event loop: requests from clients through pickers to engines and back, under faults. Deterministic by seed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any

from bench.policy.adapters import Adapters
from bench.policy.cache import Cache
from bench.policy.engine import INFINITY, Engine
from bench.policy.faults import Absent, AgentDead, AgentLies, AgentStuck, Dark, Far, Fault, Hang, Lossy, Slow
from bench.policy.gate import Gate
from bench.policy.hardware import Gpu
from bench.policy.picker import Picker, Rival
from bench.policy.requests import Request
from bench.policy.signals import KernelView, Pod

TIMEOUT_S = 60.0  # of a client without a first byte
CONNECT_TIMEOUT_S = 1.0
RTO_S = 0.2  # the least TCP retransmission timeout of Linux
MAX_LORAS = 4

Effect = Callable[[float, Any], None]


@dataclass(frozen=True, slots=True)
class Plant:
    """The pool under test, and who sends to it."""

    gpus: tuple[Gpu, ...]
    faults: tuple[Fault, ...] = ()
    pickers: int = 1
    kernel_period_s: float = 0.02
    caching: bool = False
    adapter_load_s: float = 0.0


class Simulation:
    """One run. Requests are changed in place: afterwards they say what became of them."""

    def __init__(self, plant: Plant, rival: Rival, requests: Sequence[Request], seed: int) -> None:
        self._requests = requests
        self.pods = [Pod(self._engine(gpu, plant)) for gpu in plant.gpus]
        self._kernel = KernelView(self.pods, plant.kernel_period_s)
        others = plant.pickers
        self.pickers = [
            Picker(rival, self.pods, self._kernel, Random(f"{seed} picker {number}"), others)
            for number in range(plant.pickers)
        ]
        self._gates = [Gate(picker, self.at, self._dispatch) for picker in self.pickers]
        self._chance = Random(f"{seed} network")
        self._events: list[tuple[float, int, Callable[[float, Any], None], Any]] = []
        self._order = count()
        self._due: dict[Engine, float] = {}
        self._unanswered: deque[Request] = deque()
        self.end_s = INFINITY
        for fault in plant.faults:
            self._schedule(fault)

    @staticmethod
    def _engine(gpu: Gpu, plant: Plant) -> Engine:
        cache = Cache() if plant.caching else None
        adapters = Adapters(MAX_LORAS, plant.adapter_load_s) if plant.adapter_load_s else None
        return Engine(gpu, cache, adapters)

    def run(self, until_s: float) -> None:
        """Sends all requests and follows them; what is not over at `until_s` never will be."""
        events = self._events
        for number, request in enumerate(self._requests):
            request.picker = number % len(self.pickers)
            while events and events[0][0] <= request.at_s:
                now_s, _, happen, subject = heappop(events)
                happen(now_s, subject)
            self._arrive(request.at_s, request)
        while events and events[0][0] <= until_s:
            now_s, _, happen, subject = heappop(events)
            happen(now_s, subject)

    def at(self, time_s: float, happen: Callable[[float, Any], None], subject: Any) -> None:
        heappush(self._events, (time_s, next(self._order), happen, subject))

    def _arrive(self, now_s: float, request: Request) -> None:
        request.sent_s = now_s
        self._time_out(now_s)
        if request.bypass_pod >= 0:
            request.pod = request.bypass_pod
        else:
            self._gates[request.picker].offer(now_s, request)
            return
        self._dispatch(now_s, request)

    def _dispatch(self, now_s: float, request: Request) -> None:
        """The request leaves for the pod it was given."""
        if request.bypass_pod < 0:
            self._unanswered.append(request)
        pod = self.pods[request.pod]
        if pod.gone_dark:
            self.at(now_s + CONNECT_TIMEOUT_S, self._fail, request)
        else:
            self.at(now_s + self._way_s(pod, 1 + request.prompt_tokens // 350), self._reach, request)

    def _way_s(self, pod: Pod, segments: int = 1) -> float:
        """One way, with what lost packets cost: the first loss a timeout, each in a row twice as long."""
        way_s = pod.one_way_s
        if pod.loss:
            lost = 1 - (1 - pod.loss) ** segments
            wait_s = RTO_S
            while self._chance.random() < lost:
                way_s += wait_s
                wait_s, lost = 2 * wait_s, pod.loss
        return way_s

    def _reach(self, now_s: float, request: Request) -> None:
        """The request is at its pod."""
        if request.over:
            return
        pod = self.pods[request.pod]
        request.arrived_s = now_s
        request.waiting = True
        pod.count(now_s, 1, 1)
        pod.engine.add(request, now_s)
        pod.note_page(now_s)
        self._follow(pod)

    def _follow(self, pod: Pod) -> None:
        """Makes sure the engine's next boundary is an event."""
        next_s = pod.engine.next_s
        if next_s != self._due.get(pod.engine):
            self._due[pod.engine] = next_s
            if next_s != INFINITY:
                self.at(next_s, self._step, pod)

    def _step(self, now_s: float, pod: Pod) -> None:
        engine = pod.engine
        if now_s != engine.next_s:  # the run was cut meanwhile
            return
        first, finished = engine.advance()
        for request in first:
            request.waiting = False
            pod.count(now_s, 0, -1, answered=1)
            pod.first_tokens.append((now_s, now_s - request.arrived_s))
            self.at(now_s + self._way_s(pod), self._begin_answer, request)
        for request in finished:
            pod.count(now_s, -1, 0)
            self.at(max(now_s + self._way_s(pod), request.first_s), self._end_answer, request)
        if first or finished or engine.waiting:
            pod.note_page(now_s)
        self._due[engine] = INFINITY
        self._follow(pod)

    def _begin_answer(self, now_s: float, request: Request) -> None:
        request.first_s = now_s
        if request.bypass_pod < 0 and not request.over:
            self.pickers[request.picker].first_byte(request, now_s)

    def _end_answer(self, now_s: float, request: Request) -> None:
        if request.over:
            return
        request.end_s = now_s
        self._close(now_s, request)

    def _fail(self, now_s: float, request: Request) -> None:
        request.failed = True
        self._close(now_s, request)

    def _close(self, now_s: float, request: Request) -> None:
        request.over = True
        if request.bypass_pod < 0:
            self.pickers[request.picker].ended(request, now_s)

    def _time_out(self, now_s: float) -> None:
        """Clients that waited too long for a first byte go away."""
        unanswered = self._unanswered
        while unanswered and unanswered[0].sent_s < now_s - TIMEOUT_S:
            request = unanswered.popleft()
            if request.over or request.first_s == request.first_s:
                continue
            if request.waiting:
                pod = self.pods[request.pod]
                pod.count(now_s, -1, -1)
                pod.engine.remove(request, now_s)
                self._follow(pod)
            self._fail(now_s, request)

    # faults

    def _schedule(self, fault: Fault) -> None:
        begin, end = self._effects()[type(fault)]
        self.at(fault.at_s, begin, fault)
        if fault.until_s != INFINITY:
            self.at(fault.until_s, end, fault)

    def _effects(self) -> dict[type[Fault], tuple[Effect, Effect]]:
        return {
            Slow: (self._slow, self._normal),
            Hang: (self._hang, self._resume),
            Far: (self._far, self._near),
            Lossy: (self._lossy, self._lossless),
            Dark: (self._dark, self._lit),
            Absent: (self._leave, self._join),
            AgentDead: (self._silence, self._speak),
            AgentLies: (self._lie, self._speak),
            AgentStuck: (self._stick, self._speak),
        }

    def _each(self, fault: Any) -> list[Pod]:
        return [self.pods[index] for index in fault.pods]

    def _set_speed(self, now_s: float, fault: Any, prefill: float, decode: float) -> None:
        for pod in self._each(fault):
            pod.engine.set_speed(prefill, decode, now_s)
            self._follow(pod)

    def _slow(self, now_s: float, fault: Slow) -> None:
        self._set_speed(now_s, fault, fault.prefill, fault.decode)

    def _normal(self, now_s: float, fault: Slow | Absent) -> None:
        self._set_speed(now_s, fault, 1.0, 1.0)

    def _hang(self, now_s: float, fault: Hang) -> None:
        for pod in self._each(fault):
            pod.engine.hang(now_s)
            pod.page_frozen = True

    def _resume(self, now_s: float, fault: Hang) -> None:
        for pod in self._each(fault):
            pod.engine.resume(now_s)
            pod.page_frozen = False
            self._follow(pod)

    def _far(self, _: float, fault: Far) -> None:
        for pod in self._each(fault):
            pod.one_way_s += fault.one_way_s

    def _near(self, _: float, fault: Far) -> None:
        for pod in self._each(fault):
            pod.one_way_s -= fault.one_way_s

    def _lossy(self, _: float, fault: Lossy) -> None:
        for pod in self._each(fault):
            pod.loss = fault.rate

    def _lossless(self, _: float, fault: Lossy) -> None:
        for pod in self._each(fault):
            pod.loss = 0.0

    def _dark(self, _: float, fault: Dark) -> None:
        for pod in self._each(fault):
            pod.gone_dark = True

    def _lit(self, _: float, fault: Dark) -> None:
        for pod in self._each(fault):
            pod.gone_dark = False

    def _leave(self, now_s: float, fault: Absent) -> None:
        for picker in self.pickers:
            for index in fault.pods:
                picker.set_ready(index, False, now_s, new=True)

    def _join(self, now_s: float, fault: Absent) -> None:
        self._set_speed(now_s, fault, fault.prefill, fault.decode)
        for picker in self.pickers:
            for index in fault.pods:
                picker.set_ready(index, True, now_s, new=True)
        self.at(now_s + fault.cold_s, self._normal, fault)

    def _silence(self, _: float, fault: AgentDead) -> None:
        self._kernel.dead = True

    def _speak(self, _: float, fault: AgentDead | AgentLies | AgentStuck) -> None:
        self._kernel.dead = self._kernel.stuck = False
        self._kernel.lie = None

    def _lie(self, _: float, fault: AgentLies) -> None:
        chance = self._chance.random
        most, waiting = fault.in_flight, fault.waiting
        self._kernel.lie = (
            (lambda: (most * chance(), waiting * chance())) if fault.by_chance else lambda: (most, waiting)
        )

    def _stick(self, _: float, fault: AgentStuck) -> None:
        self._kernel.stuck = True
