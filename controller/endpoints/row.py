"""One endpoint as the controller knows it: its signals and their ages, its reservations, what speaks against it.

Pure: time is an argument. Refuses to know the other endpoints and how a pick is made.

The load of an endpoint, from the best thing known:

1. kernel: requests in flight as the node's kernel counts them + our picks it cannot have counted yet. Agents send
   every change at once and eight times a second that there is none, so a count is as old as the last word of its agent.
   One older than COUNT_LIMIT_S is not used.
2. engine: running + waiting as the engine's page says, if younger than ENGINE_LIMIT_S, + our picks since; never less
   than the exchanges we hold open. Agents read the pages of idle engines rarely: a page is as good as one that was
   read when the kernel last told that nothing had happened since, up to IDLE_PAGE_S.
3. own: nothing is measured; our own picks.

A word is not taken where it contradicts better knowledge: a kernel that has shown none of several requests of ours
does not see that endpoint's traffic (it is encrypted), and an engine that claims to be busy while the kernel sees it
idle for CONTRADICTION_S has stuck gauges.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from controller.choosing.pick import EJECTED_STEP, LOST_STEP, STALLED_STEP, TERMINATING_STEP, UNREADY_STEP
from controller.endpoints.failures import Failures, Trust
from controller.endpoints.health import State, Vigil
from controller.endpoints.reservations import Ledger
from controller.model import Device, Endpoint, EngineSignal, KernelSignal, Reason, Source
from controller.policies.fleet import queue_of
from controller.policies.parts import COUNT_LIMIT_S, KV_FULL, SIGNAL_LIMIT_S
from controller.policies.speed import WARM_ANSWERS

NODE_FORGOTTEN_S = 2.5  # an agent that is silent for longer is not there
ENGINE_LIMIT_S = 2.0
IDLE_PAGE_S = 35.0  # an agent reads an idle engine's page each 30 s; some more for a page that came late
# Full frames repeat every reading each second; one that was not repeated is no longer the agent's word.
REPEATED_S = 1.5
CONTRADICTION_S = 5.0
UNSEEN = 3  # requests of ours that a kernel did not show, while it showed none
# A gateway that reports another endpoint as the one that served could not use ours. It comes last for so long.
MISSED_S = 5.0
WARM_CHUNKS = 400  # of answers; who has sent so many, or WARM_ANSWERS, is cold no more

FOREVER = float("inf")


@dataclass(slots=True)
class Node:
    """The agent of a node, as its stream shows it."""

    heard_at_s: float
    true_at_s: float = -FOREVER  # until then nothing had changed but what was reported
    alive: bool = True
    aged: bool = True  # its last word is too old, and its rows know
    columns: npt.NDArray[np.intp] | None = None  # of what it counts in the fleet; None: to be looked up

    def believed_until_s(self) -> float:
        return self.heard_at_s + (NODE_FORGOTTEN_S if self.alive else COUNT_LIMIT_S)


@dataclass(slots=True, eq=False)
class Row:
    """`load`, `source`, `penalty` and `against` are as of the last evaluation."""

    endpoint: Endpoint
    index: int = 0
    node: Node | None = None
    kernel: KernelSignal | None = None
    engine: EngineSignal | None = None
    paged_at_s: float = -FOREVER  # when the page was true that its agent told last; never: it tells of none
    busy_at_s: float = -FOREVER  # when the kernel last showed a request, or that one had come and gone
    busy_from_s: float = -FOREVER  # when that had begun, after an idle time
    busy_before_s: float = -FOREVER  # when it last showed one before that idle time
    ledger: Ledger = field(default_factory=Ledger)
    vigil: Vigil = field(default_factory=Vigil)
    failures: Failures = field(default_factory=Failures)
    ejected: bool = False
    ready_at_s: float | None = None  # when it was first seen ready, while it is still cold
    was_ready: bool = False
    load: int = 0
    source: Source = Source.OWN
    penalty: float = 0.0
    fault: str = ""  # of an accelerator of the pod, as its node's agent says
    devices: tuple[Device, ...] = ()
    due_s: float = FOREVER  # when it must be evaluated next, unless its node falls silent
    queued_s: float = FOREVER  # the earliest time the table's queue holds for it
    picks: dict[Reason, int] = field(default_factory=dict)
    misses: int = 0  # requests that the gateway could not bring here
    shunned_until_s: float = -FOREVER
    unseen: int = 0  # requests of ours that the kernel never showed, since it last showed anything
    contradicted_since_s: float | None = None
    cold_progress: int | None = None  # the kernel's progress when the endpoint was first seen ready
    cold_answers: int = 0  # and the answers that had begun

    def kernel_at_s(self) -> float:
        """When the kernel's count was true."""
        if self.kernel is None or self.node is None or self.unseen >= UNSEEN:
            return -FOREVER
        own, node = self.kernel.true_at_s, self.node.true_at_s
        return max(own, node) if own + REPEATED_S >= node else own

    def fresh_kernel(self, now: float) -> KernelSignal | None:
        return self.kernel if self.kernel and now - self.kernel_at_s() <= COUNT_LIMIT_S else None

    def fresh_engine(self, now: float) -> EngineSignal | None:
        """The engine's word, unless the kernel has contradicted it for too long."""
        engine = self.engine
        if engine is None or (now > engine.true_at_s + ENGINE_LIMIT_S and now > self.page_until_s(engine.true_at_s)):
            return None
        since = self.contradicted_since_s
        return None if since is not None and now >= since + CONTRADICTION_S else engine

    def page_until_s(self, page_at_s: float) -> float:
        """Until when a page counts that was true then."""
        return min(self.page_true_at_s(page_at_s) + ENGINE_LIMIT_S, page_at_s + IDLE_PAGE_S)

    def page_true_at_s(self, page_at_s: float) -> float:
        """When it was still true: nothing had happened, as the kernel says."""
        if page_at_s > self.busy_at_s:
            return max(page_at_s, self.kernel_at_s())
        return max(page_at_s, self.busy_from_s) if page_at_s > self.busy_before_s else page_at_s

    def evaluate(self, now: float, token_s: float, may_eject: bool) -> None:
        """token_s: time of one prompt token here; may_eject: not too many of the pool are ejected already."""
        self._note_unseen(self.ledger.expire(now), now)
        kernel = self.fresh_kernel(now)
        self._contradict(kernel, now)
        engine = self.fresh_engine(now)
        state = self._watch(kernel, now, token_s)
        self._measure(kernel, engine)
        trust = self.failures.trust(now)
        self.ejected = may_eject and (trust is Trust.EJECTED or (trust is Trust.TRIAL and self.load > 0))
        self.penalty = self._penalty(state, now)
        dues = [self.ledger.due_s(), self.vigil.due_s(kernel), self.failures.due_s(now)]
        if engine:
            dues.append(self._page_old_at_s(engine, kernel))
        if kernel:
            dues.append(self._old_at_s(kernel, now))
        if now < self.shunned_until_s:
            dues.append(self.shunned_until_s)
        if state is not State.FINE and kernel is None:
            dues.append(self.kernel_at_s() + SIGNAL_LIMIT_S + 1e-6)
        self.due_s = min(dues)

    def _page_old_at_s(self, engine: EngineSignal, kernel: KernelSignal | None) -> float:
        """Likewise for the engine's page. While a kernel tells that nothing happens, its word's age is what counts."""
        stands = kernel is not None and engine.true_at_s > self.busy_at_s
        return (engine.true_at_s + IDLE_PAGE_S if stands else self.page_until_s(engine.true_at_s)) + 1e-6

    def _old_at_s(self, kernel: KernelSignal, now: float) -> float:
        """When the count is to be looked at for its age. That its node fell silent is the table's to see."""
        if self.node is None or self.node.true_at_s < kernel.true_at_s:  # nobody has said that it is still so
            return kernel.true_at_s + COUNT_LIMIT_S + 1e-6
        repeated_by_s = kernel.true_at_s + REPEATED_S + 1e-6
        return max(repeated_by_s, now + 1e-6)  # from then on it hangs on its node's next word

    def take_one_more(self, now: float, due_s: float) -> bool:
        """Counts one more request of ours, made just now and due then, if that changes its load and nothing else.

        That is what an evaluation comes to for an endpoint in good health. False: it must be evaluated.
        """
        calm = self.vigil.state is State.FINE and self.failures.negligible and not self.ejected
        if not calm or self.contradicted_since_s is not None or now >= self.due_s:
            return False
        if self.source is Source.KERNEL and now - self.kernel_at_s() > COUNT_LIMIT_S:
            return False
        self.load += 1
        self.due_s = min(self.due_s, due_s)
        return True

    def hear(self, kernel: KernelSignal, now: float, whole_share: float) -> int:
        """Takes a kernel's reading: what it shows of our requests, and how requests ended.

        whole_share: of requests that are answered in one piece, so that their silence is no queue. Returns how many
        of others it shows to have begun.
        """
        before, self.kernel = self.kernel, kernel
        starts = kernel.started - before.started if before else -1
        others = 0
        if before is None or starts < 0:  # the first reading, or counted anew
            self.ledger.show_all(kernel.true_at_s)
        else:
            others = starts - self.ledger.show(starts, kernel.true_at_s)
            self._judge(before, kernel, now)
        if starts > 0:
            self.unseen = 0
        if starts > 0 or kernel.in_flight:
            if before is None or not before.in_flight:
                self.busy_before_s, self.busy_from_s = self.busy_at_s, kernel.true_at_s
            self.busy_at_s = kernel.true_at_s
        waiting = round(queue_of(kernel.waiting, kernel.in_flight, whole_share, max))
        self.ledger.answered(waiting, kernel.true_at_s)
        self._warm(kernel)
        return others

    def answered(self, status: int, now: float) -> None:
        if status >= 500:
            self.failures.failed(now)
        else:
            self.failures.succeeded(now)

    def _judge(self, before: KernelSignal, kernel: KernelSignal, now: float) -> None:
        failed = kernel.failed - before.failed
        if failed > 0:
            self.failures.failed(now, failed)
        self.failures.succeeded(now, kernel.completed - before.completed - max(0, failed))

    def _warm(self, kernel: KernelSignal) -> None:
        if self.ready_at_s is None:
            return
        answers = kernel.started - kernel.waiting
        if self.cold_progress is None or kernel.progress < self.cold_progress:
            self.cold_progress, self.cold_answers = kernel.progress, answers
        elif kernel.progress >= self.cold_progress + WARM_CHUNKS or answers >= self.cold_answers + WARM_ANSWERS:
            self.ready_at_s = None

    def _note_unseen(self, requests: int, now: float) -> None:
        """Some requests of ours never came, as far as a kernel tells that had its word all the time."""
        if not requests or self.kernel is None or now - self.kernel_at_s() > COUNT_LIMIT_S:
            return
        if self.kernel.started > 0:
            self.failures.failed(now, requests)
        self.unseen += requests

    def _contradict(self, kernel: KernelSignal | None, now: float) -> None:
        engine = self.engine
        idle = kernel is not None and kernel.in_flight == 0
        busy = engine is not None and ((engine.running or 0) > 0 or (engine.kv_cache_usage or 0.0) > KV_FULL)
        if not (idle and busy):
            self.contradicted_since_s = None
        elif self.contradicted_since_s is None:
            self.contradicted_since_s = now

    def _watch(self, kernel: KernelSignal | None, now: float, token_s: float) -> State:
        """Nothing new of a pod for a moment is no reason to forget that it had stalled."""
        if kernel is None and now - self.kernel_at_s() <= SIGNAL_LIMIT_S:
            return self.vigil.state
        return self.vigil.watch(kernel, now, token_s * self.ledger.queued_tokens)

    def _measure(self, kernel: KernelSignal | None, engine: EngineSignal | None) -> None:
        requests = engine.requests if engine else None
        if kernel:
            self.source, self.load = Source.KERNEL, kernel.in_flight + self.ledger.unshown
        elif engine and requests is not None:
            self.source = Source.ENGINE
            self.load = max(requests + self.ledger.since(engine.true_at_s), self.ledger.open)
        else:
            self.source, self.load = Source.OWN, self.ledger.own

    def _penalty(self, state: State, now: float) -> float:
        shunned = state in (State.STALLED, State.SUSPECT) or (state is State.TRIAL and self.load > 0)
        shunned = shunned or now < self.shunned_until_s
        penalty = (STALLED_STEP if shunned else 0.0) + (EJECTED_STEP if self.ejected else 0.0)
        penalty += 0.0 if self.endpoint.ready else UNREADY_STEP
        penalty += LOST_STEP if self.fault else 0.0
        return penalty + (TERMINATING_STEP if self.endpoint.terminating else 0.0)
