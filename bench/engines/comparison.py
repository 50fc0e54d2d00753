"""What a load came to by the kernel's slot, by the engine's own page and by the clients; and the tables of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.engines.histograms import NOBODY_SAYS, Histogram, Times, misplaced, times_of
from bench.engines.load import Reply


@dataclass(frozen=True, slots=True)
class Look:
    """The engine's gauges, and the kernel's just before its page was asked for and just after."""

    at_ns: int  # when the kernel's first was read
    before: tuple[int, int]  # in flight; of these without a byte of data answered
    running: int | None
    waiting: int | None
    after: tuple[int, int]

    @property
    def engine_in_flight(self) -> int | None:
        return None if self.running is None or self.waiting is None else self.running + self.waiting

    def agrees(self, slack: int = 0) -> bool:
        """Whether the engine's sum is one that the kernel may have had in between, give or take."""
        low, high = sorted((self.before[0], self.after[0]))
        found = self.engine_in_flight
        return found is not None and low - slack <= found <= high + slack


@dataclass(frozen=True, slots=True)
class Said:
    """What an engine says of a load; None or NOBODY_SAYS where it says nothing, or something else by that name."""

    finished: int | None
    first: Times = NOBODY_SAYS
    whole: Times = NOBODY_SAYS
    misplaced: int | None = None  # first tokens that are in another of its buckets by the kernel's measure


@dataclass(frozen=True, slots=True)
class Load:
    name: str
    replies: tuple[Reply, ...]
    kernel: dict[str, int]  # what the slot's scalars rose by; of gauges, what they are
    first: Times  # to the first data, by the kernel
    whole: Times
    engine: Said
    looks: tuple[Look, ...] = ()

    @property
    def left(self) -> int:
        return sum(reply.left for reply in self.replies)

    @property
    def clients_first(self) -> Times:
        return times_of(reply.ttft_s for reply in self.replies if reply.ttft_s is not None)

    def clients_in_flight(self, at_ns: int) -> int:
        return sum(reply.sent_ns <= at_ns < reply.over_ns for reply in self.replies)

    @property
    def clients_whole(self) -> Times:
        return times_of((reply.over_ns - reply.sent_ns) / 1e9 for reply in self.replies if not reply.left)


def said(finished: int, first: Histogram | None, whole: Histogram | None, kernel_first: Histogram) -> Said:
    """By an engine's histograms."""
    return Said(
        finished,
        NOBODY_SAYS if first is None else first.times(),
        NOBODY_SAYS if whole is None else whole.times(),
        None if first is None else misplaced(kernel_first, first),
    )


Cell = tuple[str, Callable[[Load], str]]

COUNTS: tuple[Cell, ...] = (
    ("load", lambda load: load.name),
    ("asked", lambda load: str(len(load.replies))),
    ("clients: whole", lambda load: str(len(load.replies) - load.left)),
    ("left", lambda load: str(load.left)),
    ("kernel: started", lambda load: str(load.kernel["started"])),
    ("complete", lambda load: str(load.kernel["completed"])),
    ("client aborted", lambda load: str(load.kernel["client_aborted"])),
    ("server aborted", lambda load: str(load.kernel["server_aborted"])),
    ("lost", lambda load: str(load.kernel["lost"])),
    ("in flight at the end", lambda load: str(load.kernel["in_flight"])),
    ("engine: finished", lambda load: _number(load.engine.finished)),
)
FIRST: tuple[Cell, ...] = (
    ("load", lambda load: load.name),
    ("first data: kernel", lambda load: str(load.first.count)),
    ("engine", lambda load: _number(load.engine.first.count or None)),
    ("mean: kernel", lambda load: _ms(load.first.mean_s)),
    ("engine", lambda load: _ms(load.engine.first.mean_s)),
    ("clients", lambda load: _ms(load.clients_first.mean_s)),
    ("median: kernel", lambda load: _ms(load.first.median_s)),
    ("engine", lambda load: _ms(load.engine.first.median_s)),
    ("clients", lambda load: _ms(load.clients_first.median_s)),
    ("p99: kernel", lambda load: _ms(load.first.p99_s)),
    ("engine", lambda load: _ms(load.engine.first.p99_s)),
    ("clients", lambda load: _ms(load.clients_first.p99_s)),
    ("in another bucket", lambda load: _number(load.engine.misplaced)),
)
WHOLE: tuple[Cell, ...] = (
    ("load", lambda load: load.name),
    ("duration, mean: kernel", lambda load: _ms(load.whole.mean_s)),
    ("engine", lambda load: _ms(load.engine.whole.mean_s)),
    ("clients", lambda load: _ms(load.clients_whole.mean_s)),
    ("median: kernel", lambda load: _ms(load.whole.median_s)),
    ("engine", lambda load: _ms(load.engine.whole.median_s)),
    ("p99: kernel", lambda load: _ms(load.whole.p99_s)),
    ("engine", lambda load: _ms(load.engine.whole.p99_s)),
)
GAUGES: tuple[Cell, ...] = (
    ("load", lambda load: load.name),
    ("looks", lambda load: str(len(load.looks))),
    ("engine's running + waiting is the kernel's in flight", lambda load: _agreeing(load, 0)),
    ("within 1", lambda load: _agreeing(load, 1)),
    ("in flight, mean: clients", lambda load: _mean([load.clients_in_flight(look.at_ns) for look in load.looks])),
    ("kernel", lambda load: _mean([look.before[0] for look in load.looks])),
    ("engine", lambda load: _mean([look.engine_in_flight for look in load.looks])),
    ("without first data, mean: kernel", lambda load: _mean([look.before[1] for look in load.looks])),
    ("waiting: engine", lambda load: _mean([look.waiting for look in load.looks])),
)


def table(cells: Sequence[Cell], loads: Sequence[Load]) -> str:
    lines = [[head for head, _ in cells], ["---"] * len(cells), *([show(load) for _, show in cells] for load in loads)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def goals(loads: Sequence[Load]) -> dict[str, bool]:
    """What has to hold, as a text with what was found; and whether it does."""
    asked = sum(len(load.replies) for load in loads)
    started = sum(load.kernel["started"] for load in loads)
    timed = [(load.first.count, load.engine.first.count) for load in loads if load.engine.first.count]
    ours, theirs = (sum(column) for column in zip(*timed, strict=True)) if timed else (0, 0)
    return {
        f"{started} of {asked} requests started": started == asked,
        "every answer that came whole is complete": all(
            load.kernel["completed"] == len(load.replies) - load.left for load in loads
        ),
        "every client that left is an abort": all(load.kernel["client_aborted"] == load.left for load in loads),
        f"{ours} first tokens, the engine counts {theirs}": ours == theirs,
        "nothing is in flight at the end": not any(load.kernel["in_flight"] for load in loads),
    }


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _ms(value_s: float | None) -> str:
    return "-" if value_s is None else f"{1e3 * value_s:.1f} ms"


def _agreeing(load: Load, slack: int) -> str:
    told = [look for look in load.looks if look.engine_in_flight is not None]
    return str(sum(look.agrees(slack) for look in told)) if told else "-"


def _mean(values: Sequence[int | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.2f}" if known else "-"
