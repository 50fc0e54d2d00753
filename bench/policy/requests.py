"""One request of a simulation: what it asks for, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass

NOBODY = -1


@dataclass(slots=True, eq=False)
class Request:
    """Times are seconds of the simulation; NaN where something did not happen."""

    at_s: float
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()  # chained names of the prompt's full blocks
    final_blocks: tuple[int, ...] = ()  # and of prompt and answer together: what a next turn may find cached
    session: str | None = None
    adapter: int | None = None
    priority: int = 0
    bypass_pod: int = NOBODY  # sent straight to this pod, seen by no picker

    picker: int = 0
    pod: int = NOBODY
    sent_s: float = float("nan")
    arrived_s: float = float("nan")
    first_s: float = float("nan")  # at the gateway
    end_s: float = float("nan")
    failed: bool = False
    shed: bool = False
    over: bool = False

    # inside an engine
    generated: int = 0
    computed: int = 0
    cached: int = 0  # tokens its prefix had in the cache at admission
    finish_step: int = 0
    inside: bool = False
    waiting: bool = False  # no byte answered yet
    done: bool = False

    @property
    def ttft_s(self) -> float:
        return self.first_s - self.at_s

    @property
    def tpot_s(self) -> float:
        """Mean time per token after the first; NaN for an answer of one token."""
        return (self.end_s - self.first_s) / (self.output_tokens - 1) if self.output_tokens > 1 else float("nan")

    @property
    def e2e_s(self) -> float:
        return self.end_s - self.at_s
