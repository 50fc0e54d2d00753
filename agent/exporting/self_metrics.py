"""The agent's metrics of itself: what it costs, what it could not follow, how full its maps are. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agent.exporting.exposition import Family, Values, counter, gauge, written
from agent.exporting.snapshot import AgentState
from agent.kernel.governor import ORDER
from agent.kernel.programs import Programs

INFO = gauge(
    "sonde_agent_info", "Constant 1; the labels say which node is measured by which version.", "node", "version"
)
ATTACHED = gauge(
    "sonde_agent_program_attached",
    "1 where the kernel program of a hook is attached, 0 where nothing is measured because it is not.",
    "hook",
)
LEVEL = gauge(
    "sonde_agent_measurement_level",
    "What the kernel lets be measured. 1: segments. 2: also the applications' write and read calls, which give exact "
    "chunk counts under loss and read delays (kernel 6.3 with BTF).",
)
SHARE = gauge(
    "sonde_agent_kernel_share_ratio",
    "Share of one core that the kernel programs took when last timed. Absent where the agent may not time them.",
)
SHED = gauge(
    "sonde_agent_shed",
    "1 where the programs leave something out because they took more of a core than --kernel-share allows. The order "
    "is http2, calls, turns, histograms.",
    "what",
)
RUN_SECONDS = counter(
    "sonde_agent_program_run_seconds_total",
    "Processor time spent inside the kernel program of a hook. Only there while the kernel measures it: sysctl "
    "kernel.bpf_stats_enabled=1.",
    "hook",
)
RUNS = counter("sonde_agent_program_runs_total", "Runs of the kernel program that were timed.", "hook")
DROPS = counter(
    "sonde_agent_drops_total",
    "Packets, requests or sockets that the kernel programs could not follow, by cause. resolve_missed and not_http "
    "are usual: sockets of other programs, and connections that are no HTTP.",
    "cause",
)
ENTRIES = gauge("sonde_agent_map_entries", "Entries in use of a kernel map, by state.", "map", "state")
CAPACITY = gauge("sonde_agent_map_capacity", "Entries that a kernel map can hold; beyond it pods go unmeasured.", "map")
ENDPOINTS = gauge(
    "sonde_agent_endpoints",
    "Serving ports of the node's pods, by what is known of them: kernel counts, the engine's page, both or none.",
    "level",
)
ROWS = counter("sonde_agent_rows_sampled_total", "Slots copied out of shared memory.")
SAMPLE_AGE = gauge(
    "sonde_agent_sample_age_seconds",
    "Time since the slots were last read; above a second the agent is stuck and its numbers are old.",
)
WATCHERS = gauge("sonde_agent_watchers", "Controllers that follow this agent's stream now.")
PAGES = counter("sonde_agent_engine_pages_read_total", "Engines' own metrics pages read.")
FAILURES = counter(
    "sonde_agent_engine_scrape_failures_total", "Engines' metrics pages that could not be read or understood."
)
CPU = counter(
    "sonde_agent_cpu_seconds_total", "Processor time the agent process has used; kernel programs not included."
)
MEMORY = gauge("sonde_agent_resident_memory_bytes", "Memory of the agent process in RAM.")

FAMILIES: tuple[Family, ...] = (
    INFO, ATTACHED, LEVEL, SHARE, SHED,
    RUN_SECONDS, RUNS, DROPS, ENTRIES, CAPACITY, ENDPOINTS, ROWS, SAMPLE_AGE, WATCHERS, PAGES, FAILURES,
    CPU, MEMORY,
)  # fmt: skip


def self_metrics(agent: AgentState) -> Iterator[str]:
    yield written(INFO, [((agent.node, agent.version), 1)])
    yield from _program_metrics(agent.programs)
    yield written(LEVEL, [((), agent.measurement_level)])
    yield written(SHARE, [] if agent.kernel_share is None else [((), agent.kernel_share)])
    yield written(SHED, _by_label((what, what in agent.shed) for what in ORDER))
    yield from _map_metrics(agent)
    yield written(ENDPOINTS, _by_label(agent.endpoints.items()))
    for family, value in (
        (ROWS, agent.rows_sampled),
        (SAMPLE_AGE, agent.sample_age_s),
        (WATCHERS, agent.watchers),
        (PAGES, agent.pages_read),
        (FAILURES, agent.pages_failed),
        (CPU, agent.cpu_s),
        (MEMORY, agent.rss_bytes),
    ):
        yield written(family, [] if value is None else [((), value)])


def _by_label(values: Iterable[tuple[str, float]]) -> Values:
    return (((label,), value) for label, value in values)


def _program_metrics(programs: Programs) -> Iterator[str]:
    yield written(ATTACHED, _by_label((hook, program is not None) for hook, program in programs.items()))
    timed = [
        (hook, program.time_ns, program.count)
        for hook, program in programs.items()
        if program is not None and program.time_ns is not None and program.count is not None
    ]
    yield written(RUN_SECONDS, _by_label((hook, time_ns / 1e9) for hook, time_ns, _ in timed))
    yield written(RUNS, _by_label((hook, count) for hook, _, count in timed))


def _map_metrics(agent: AgentState) -> Iterator[str]:
    yield written(DROPS, _by_label(agent.drops.items()))
    entries = (("owners", "used", agent.owners_used), ("slots", "used", agent.slots_used))
    retired = ("slots", "retired", agent.slots_retired)
    yield written(ENTRIES, (((name, state), count) for name, state, count in (*entries, retired)))
    yield written(CAPACITY, _by_label([("owners", agent.owners_capacity), ("slots", agent.slots_capacity)]))
