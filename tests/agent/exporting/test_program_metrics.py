"""What the page says of the programs and of the agent's own freshness; that counters hold when scraped side by side."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from agent.exporting.metrics import AgentPage
from agent.exporting.snapshot import AgentState, PodState, SlotState, Snapshot
from agent.kernel import layout
from agent.kernel.programs import Runs
from agent.placing.slots import Owner
from agent.signals import HISTOGRAMS
from tests.agent.rows import S, row

AGENT = AgentState(
    drops={},
    owners_used=0,
    owners_capacity=16,
    slots_used=0,
    slots_retired=0,
    slots_capacity=8,
    endpoints={},
    rows_sampled=0,
    watchers=0,
    pages_read=0,
    pages_failed=0,
    cpu_s=0,
    rss_bytes=0,
    programs={"ingress": Runs(2_000_000_000, 4_000_000), "egress": Runs(), "lifecycle": None},
    sample_age_s=0.02,
)


def samples(made: AgentPage) -> dict[tuple[str, ...], float]:
    """(name, label values in the order of label names) -> value"""
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families("".join(made.page())):
        for sample in family.samples:
            key = (sample.name, *(value for _, value in sorted(sample.labels.items())))
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def scrape(agent: AgentState = AGENT) -> dict[tuple[str, ...], float]:
    return samples(AgentPage(lambda: Snapshot(S, [], agent)))


def slot(**fields: int) -> SlotState:
    return SlotState(Owner(0, 1), row(**fields), {name: np.zeros(layout.BUCKETS, np.uint32) for name in HISTOGRAMS})


def test_every_hook_is_shown_attached_or_not() -> None:
    found = scrape()
    hooks = ("ingress", "egress", "lifecycle")
    assert [found["sonde_agent_program_attached", hook] for hook in hooks] == [1, 1, 0]


def test_run_times_are_there_only_where_the_kernel_measures_them() -> None:
    found = scrape()
    assert found["sonde_agent_program_run_seconds_total", "ingress"] == 2
    assert found["sonde_agent_program_runs_total", "ingress"] == 4_000_000
    assert ("sonde_agent_program_run_seconds_total", "egress") not in found


def test_the_age_of_the_last_sample_is_unknown_before_the_first() -> None:
    assert scrape()["sonde_agent_sample_age_seconds",] == 0.02
    assert ("sonde_agent_sample_age_seconds",) not in scrape(replace(AGENT, sample_age_s=None))


def test_every_bucket_of_the_kernel_is_below_the_bound_it_is_counted_under() -> None:
    histograms = {name: np.zeros(layout.BUCKETS, np.uint32) for name in HISTOGRAMS}
    for value_us in (0, 7, 8, 1023, 1024, 5000, 49_151, 49_152, 999_999, 1 << 26, (1 << 32) - 1):
        counts = np.zeros(layout.BUCKETS, np.uint32)
        counts[layout.bucket_index(value_us)] = 1
        state = SlotState(Owner(0, 1), row(), histograms | {"ttft_hist": counts})
        found = samples(AgentPage(lambda state=state: Snapshot(S, [PodState("ns", "a", [state])], AGENT)))
        name = "sonde_pod_time_to_first_token_seconds_bucket"
        first = min(float(key[1]) for key, count in found.items() if key[0] == name and count)
        assert value_us / 1e6 < first
        assert first == float("inf") or first <= max(0.001024, 2 * value_us / 1e6)


def test_overflows_do_not_fall_for_two_that_scrape_at_once() -> None:
    syn_acks = iter(range(400))
    made = AgentPage(lambda: Snapshot(S, [PodState("ns", "a", [slot(syns=1000, syn_acks=next(syn_acks) + 1)])], AGENT))
    key = ("sonde_pod_accept_queue_overflows_total", "ns", "a")
    first = samples(made)[key]
    with ThreadPoolExecutor(4) as scrapers:
        assert {found[key] for found in scrapers.map(lambda _: samples(made), range(40))} == {first}
