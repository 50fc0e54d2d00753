"""What a policy sees and answers: `Fleet`, all that is known of the endpoints, as one array a field; `Job`, what the
request asks for; `Policy`, the shape of every rule. Pure values; refuses to know where a number came from.

Every field of a Fleet is a float64 array over the endpoints, in the same order. NaN is unknown, never zero. Times end
in `_at_s` and are on the clock of `now_s`, which the owner sets before each choice; ages follow from them. The arrays
are rows of one matrix, so a part of a fleet is one indexing, and their owner writes single cells in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from controller.policies.paged import Paged

Array = npt.NDArray[np.float64]
Form = Any  # a number of one endpoint, or an array of all

# `standing`: 0 is fine; the higher, the later. So the lowest standing names the endpoints to choose among, and
# something is chosen whenever anything exists.
EJECTED = 1.0  # failed several times in a row
STALLED = 2.0  # owes answers and is silent for too long
LOST = 4.0  # an accelerator of its is lost
UNREADY = 8.0
TERMINATING = 16.0
WHOLE_MOST = 0.8
STANDINGS = 32.0  # above all of them together

FIELDS = (
    # the kernel of the pod's node
    "in_flight",
    "waiting",  # of in_flight: no byte of data answered yet
    "kernel_at_s",  # when the two were true
    "gap_s",  # recent mean time between two chunks of one answer
    "low_gap_s",  # its lower quartile: decode steps that no prefill stretched
    "ttft_s",  # recent mean time to first token
    "srtt_s",  # smoothed round trip between gateway and pod
    "answered",  # counter of requests whose answer ever began
    # this picker's own requests
    "reserved",  # sent, and the kernel cannot have counted them yet
    "unpaged",  # sent, and the engine's page cannot know them yet
    "own_waiting",  # sent, and as far as known before their first byte; reserved ones included
    "queued_tokens",  # uncached prompt tokens of own_waiting
    "own_in_flight",
    "own_open",  # of own_in_flight: in flight for certain, since we would have seen them end
    "own_tokens",  # prompt tokens of own_in_flight
    # the engine's own page
    "running",
    "queued",
    "kv_usage",  # 0..1
    "engine_at_s",
    "kv_tokens",  # tokens its KV cache can hold
    # learned
    "pace",  # time this pod takes for its decode steps, as a ratio to the rule's own idea of an engine
    "speed",  # time this pod takes for the same work, as a ratio to the pool's median; above 1 is slower
    "answered_before",  # `answered` when it was last looked at
    "queue_busy_s",  # time of late during which requests waited for their first token
    "queue_turns",  # and how many had it meanwhile: the one over the other is what a place in the queue costs
    "sent_rate",  # uncached prompt tokens per second sent to it of late, by all pickers as far as known
    "in_flight_before",  # the two counts when they were last looked at
    "waiting_before",
    "sends",  # own requests sent since they last changed
    "unmoved_s",  # time for which they did not change though they should have
    "answered_cold",  # `answered` when it was first seen cold; NaN: it is warm
    "failures",  # share of recent requests that never got an answer, 0..1
    # standing and age
    "standing",
    "ready_at_s",  # when it was first seen ready, while it is still cold; NaN: it is warm
)
_OWN = ("reserved", "unpaged", "own_waiting", "queued_tokens", "own_in_flight", "own_open", "own_tokens")
_NONE_YET = ("queue_busy_s", "queue_turns", "sent_rate", "sends", "unmoved_s", "failures", "standing")
_KNOWN_FROM_THE_START = dict.fromkeys((*_OWN, *_NONE_YET), 0.0) | {"speed": 1.0}


_MEANS = ("mean_prompt_tokens", "mean_uncached_tokens", "mean_output_tokens", "whole_share")
SCALARS = ("now_s", *_MEANS, "pool_pace", "learned_at_s")


class Fleet:
    """All endpoints at one instant. Unknown until written, except own counts, which begin at none."""

    __slots__ = (*FIELDS, *SCALARS, "cells", "doubted_until_s", "ids", "matrix", "step_s", "touched", "tracked")

    in_flight: Array
    waiting: Array
    kernel_at_s: Array
    gap_s: Array
    low_gap_s: Array
    ttft_s: Array
    srtt_s: Array
    answered: Array
    reserved: Array
    unpaged: Array
    own_waiting: Array
    queued_tokens: Array
    own_in_flight: Array
    own_open: Array
    own_tokens: Array
    running: Array
    queued: Array
    kv_usage: Array
    engine_at_s: Array
    kv_tokens: Array
    pace: Array
    speed: Array
    answered_before: Array
    queue_busy_s: Array
    queue_turns: Array
    sent_rate: Array
    in_flight_before: Array
    waiting_before: Array
    sends: Array
    unmoved_s: Array
    answered_cold: Array
    failures: Array
    standing: Array
    ready_at_s: Array
    now_s: float
    # of the pool's recent requests; what others send is taken to be like our own
    mean_prompt_tokens: float
    mean_uncached_tokens: float
    mean_output_tokens: float
    whole_share: float  # of requests that are answered in one piece: they wait for their first byte to the end
    pool_pace: float  # the median pace; 1.0 while none is known
    learned_at_s: float  # when speeds were last learned

    def __init__(self, ids: Sequence[str], now_s: float = 0.0, matrix: Array | None = None) -> None:
        """`ids` name the endpoints for rules that remember them; they are unique."""
        self.ids = tuple(ids)
        self.now_s = now_s
        self.mean_prompt_tokens = 512.0
        self.mean_uncached_tokens = 512.0
        self.mean_output_tokens = 200.0
        self.whole_share = 0.0
        self.pool_pace = 1.0
        self.learned_at_s = now_s
        self.matrix = _unknown(len(self.ids)) if matrix is None else matrix
        # the same; reads and writes a single cell at a fraction of what numpy takes. Any: typeshed knows bytes only
        self.cells: Any = self.matrix.data
        # For rules that keep what they computed: the endpoints whose cells were written since the last choice. None:
        # all may have been. They believe it only of an owner that promises to note every one.
        self.tracked = False
        self.touched: set[int] | None = None
        # decode step of the rule's own idea of an engine, with as many requests as each had of late; lost with it
        self.step_s: Array = np.full(len(self.ids), np.nan)
        self.doubted_until_s: Array = np.zeros(len(self.ids))  # whose count made a leap; lost with it
        for row, name in enumerate(FIELDS):
            setattr(self, name, self.matrix[row])

    def __len__(self) -> int:
        return len(self.ids)

    def touch(self, at: int) -> None:
        """Notes that an endpoint's cells were written."""
        if self.touched is not None:
            self.touched.add(at)

    @property
    def kernel_age_s(self) -> Array:
        return self.now_s - self.kernel_at_s

    @property
    def engine_age_s(self) -> Array:
        return self.now_s - self.engine_at_s

    @property
    def serving(self) -> npt.NDArray[np.bool_]:
        """Ready and not terminating: what a rule without measurements may choose among. All, if there are none."""
        serving = self.standing < UNREADY
        return serving if serving.any() else ~serving

    def part(self, indexes: Sequence[int]) -> Fleet:
        """A copy of some endpoints, in this order."""
        part = Fleet([self.ids[index] for index in indexes], self.now_s, self.matrix[:, list(indexes)])
        for name in SCALARS:
            setattr(part, name, getattr(self, name))
        return part


def _unknown(size: int) -> Array:
    matrix = np.full((len(FIELDS), size), np.nan)
    for name, value in _KNOWN_FROM_THE_START.items():
        matrix[FIELDS.index(name)] = value
    return matrix


@dataclass(slots=True)
class Job:
    """What one request asks for."""

    prompt_tokens: float
    output_tokens: float | None = None  # expected; None: like the pool's mean
    uncached: Array | None = None  # prompt tokens each endpoint would have to compute; None: all of them everywhere
    adapter_wait_s: Array | None = None  # time each endpoint would take to load the adapter; None: no adapter
    priority: int = 0
    blocks: Sequence[int] = ()  # chained hashes of the prompt's blocks
    session: str | None = None
    paged: Paged | None = None  # what pages say of the adapter; None: no adapter, or a rule that does not ask

    def part(self, indexes: Sequence[int]) -> Job:
        at = list(indexes)
        return Job(
            self.prompt_tokens,
            self.output_tokens,
            None if self.uncached is None else self.uncached[at],
            None if self.adapter_wait_s is None else self.adapter_wait_s[at],
            self.priority,
            self.blocks,
            self.session,
            None if self.paged is None else self.paged.part(at),
        )


def nothing(*_: Any) -> None:
    """For what a rule does not need to be told."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A rule. It keeps nothing itself: `memory` is made by new() and given back to each call.

    `choose(fleet, job, rng, memory)` returns an index. The others tell a rule what became of a request, with the index
    it has now; where nobody can see that (a picker that is not shown responses), they are not called.
    """

    choose: Callable[[Fleet, Job, Random, Any], int]
    new: Callable[[], Any] = nothing
    sent: Callable[[Fleet, int, Job, Any], None] = nothing
    first_byte: Callable[[Fleet, int, Job, float, Any], None] = nothing  # and the time to it in seconds
    ended: Callable[[Fleet, int, Job, float, Any], None] = nothing  # and the whole time in seconds; NaN: it failed
    live: bool = True  # False: needs what only a simulation or the response can show


def queue_of(waiting: Form, in_flight: Form, whole_share: float, maximum: Callable[[Form, Form], Form]) -> Form:
    """Of the requests without a first byte, those that queue: of all others whole_share has none either.

    Where nearly all are answered whole, silence tells nothing of a queue.
    """
    if whole_share <= 0.0:
        return waiting
    if whole_share > WHOLE_MOST:
        return waiting * 0.0
    return maximum(waiting - whole_share * in_flight, waiting * 0.0) / (1.0 - whole_share)
