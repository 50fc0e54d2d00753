"""Whether a request goes to its endpoint now, waits at its picker, or is refused: admission in simulated time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.policy.picker import Picker
from bench.policy.requests import Request
from controller.policies.admission import Line, Waiter, admits
from controller.policies.fleet import Job
from controller.policies.price import forecast

LOOK_S = 0.01  # between two looks at who may go, while somebody waits

At = Callable[[float, Callable[[float, Any], None], Any], None]


class Gate:
    """Before one picker. Without budgets and a rule of shedding everything goes at once."""

    def __init__(self, picker: Picker, at: At, dispatch: Callable[[float, Request], None]) -> None:
        self._picker = picker
        self._at = at
        self._dispatch = dispatch
        self._line = Line()
        self._looking = False

    def offer(self, now_s: float, request: Request) -> None:
        job, chosen = self._picker.choose(request, now_s)
        rival = self._picker.rival
        if rival.sheds is not None and rival.sheds(self._picker.fleet, job, self._picker.rng):
            self._refuse(request)
        elif rival.budgets is None or self._may_go(request, job, chosen, now_s):
            self._go(now_s, request, job, chosen)
        else:
            self._wait(now_s, request)

    def _may_go(self, request: Request, job: Job, chosen: int, now_s: float) -> bool:
        budgets = self._picker.rival.budgets
        assert budgets is not None
        predicted = forecast(job, self._picker.memory, chosen)
        return admits(predicted, request.priority, budgets, now_s - request.at_s)

    def _go(self, now_s: float, request: Request, job: Job, chosen: int) -> None:
        request.pod = chosen
        self._picker.send(request, job, chosen, now_s)
        self._line.served(request.priority, "", job.prompt_tokens)
        self._dispatch(now_s, request)

    def _wait(self, now_s: float, request: Request) -> None:
        budgets = self._picker.rival.budgets
        assert budgets is not None
        deadline_s = now_s + budgets.patience_s(request.priority)
        gone = self._line.join(Waiter(request, request.priority, "", now_s, deadline_s, float(request.prompt_tokens)))
        for waiter in gone:
            self._refuse(waiter.what)
        if not self._looking:
            self._looking = True
            self._at(now_s + LOOK_S, self._look, None)

    def _look(self, now_s: float, _: None) -> None:
        for waiter in self._line.expired(now_s):
            self._refuse(waiter.what)
        while self._let_one_go(now_s):
            pass
        self._looking = self._line.size > 0
        if self._looking:
            self._at(now_s + LOOK_S, self._look, None)

    def _let_one_go(self, now_s: float) -> bool:
        for waiter in self._line.heads():
            job, chosen = self._picker.choose(waiter.what, now_s)
            if self._may_go(waiter.what, job, chosen, now_s):
                self._line.leave(waiter)
                self._go(now_s, waiter.what, job, chosen)
                return True
        return False

    @staticmethod
    def _refuse(request: Request) -> None:
        request.shed = request.over = True
