"""Agent: what measuring costs a node, and what is not measured."""

from __future__ import annotations

from daemonset.dashboards.grafana import Dashboard, Row, graph

_COST = Row(
    "Cost",
    (
        graph(
            "Kernel programs' CPU",
            "Cores spent in the programs. Only while the kernel measures it: sysctl kernel.bpf_stats_enabled=1.",
            "none",
            ("sum by (instance, hook) (rate(sonde_agent_program_run_seconds_total{$M}[$R]))", "{{instance}} {{hook}}"),
        ),
        graph(
            "Time of one run",
            "Mean time a program spends on one packet or event, while the kernel measures it.",
            "s",
            (
                "sum by (hook) (rate(sonde_agent_program_run_seconds_total{$M}[$R]))"
                " / sum by (hook) (rate(sonde_agent_program_runs_total{$M}[$R]))",
                "{{hook}}",
            ),
        ),
        graph(
            "Agent CPU",
            "Cores the agent process uses.",
            "none",
            ("rate(sonde_agent_cpu_seconds_total{$M}[$R])", "{{instance}}"),
        ),
        graph(
            "Agent memory",
            "Memory of the agent process.",
            "bytes",
            ("sonde_agent_resident_memory_bytes{$M}", "{{instance}}"),
        ),
        graph(
            "Share of a core and what is left out",
            "Share of one core that the kernel programs took when last timed, and 1 for each thing they leave out to "
            "stay below --kernel-share.",
            "none",
            ("max by (instance) (sonde_agent_kernel_share_ratio{$M})", "{{instance}} share"),
            ("max by (instance, what) (sonde_agent_shed{$M})", "{{instance}} without {{what}}"),
            maximum=1,
        ),
        graph(
            "Slots read",
            "Copies of pods' counts out of shared memory. Costs no system call.",
            "ops",
            ("rate(sonde_agent_rows_sampled_total{$M}[$R])", "{{instance}}"),
        ),
        graph(
            "Engine pages",
            "Engines' metrics pages read, and those that could not be.",
            "ops",
            ("rate(sonde_agent_engine_pages_read_total{$M}[$R])", "{{instance}} read"),
            ("rate(sonde_agent_engine_scrape_failures_total{$M}[$R])", "{{instance}} failed"),
        ),
    ),
)

_GAPS = Row(
    "What is not measured",
    (
        graph(
            "Programs attached",
            "Hooks with a program. Fewer than on other nodes of the same kernel: nothing or not all is measured.",
            "none",
            ("sum by (instance) (sonde_agent_program_attached{$M})", "{{instance}}"),
        ),
        graph(
            "Drops by cause",
            "What the programs could not follow. resolve_missed and not_http are usual: other programs' sockets, "
            "other protocols.",
            "cps",
            ("sum by (cause) (rate(sonde_agent_drops_total{$M}[$R]))", "{{cause}}"),
        ),
        graph(
            "Map fill",
            "Share of a kernel map in use. At 100 % new pods go unmeasured.",
            "percentunit",
            (
                "sum by (instance, map) (sonde_agent_map_entries{$M}) / sum by (instance, map) "
                "(sonde_agent_map_capacity{$M})",
                "{{instance}} {{map}}",
            ),
            maximum=1,
        ),
        graph(
            "Endpoints by what is known",
            "Serving ports of the node's pods: known by kernel, by engine page, by both, by none.",
            "none",
            ("sum by (level) (sonde_agent_endpoints{$M})", "{{level}}"),
            stacked=True,
        ),
        graph(
            "Measurement level",
            "1: segments. 2: also the applications' write and read calls (kernel 6.3 with BTF).",
            "none",
            ("max by (instance) (sonde_agent_measurement_level{$M})", "{{instance}}"),
        ),
        graph(
            "Age of the last reading",
            "Above a second the agent is stuck and its numbers are old.",
            "s",
            ("sonde_agent_sample_age_seconds{$M}", "{{instance}}"),
        ),
        graph(
            "Controllers that watch",
            "Streams open to this agent.",
            "none",
            ("sonde_agent_watchers{$M}", "{{instance}}"),
        ),
        graph(
            "Requests not followed",
            "Requests whose end could not be seen, connections that could not be read, and requests sent before the "
            "previous answer ended.",
            "reqps",
            ("sum by (instance) (rate(sonde_pod_requests_lost_total{$M}[$R]))", "{{instance}} lost"),
            ("sum by (instance) (rate(sonde_pod_connections_opaque_total{$M}[$R]))", "{{instance}} opaque"),
            ("sum by (instance) (rate(sonde_pod_requests_pipelined_total{$M}[$R]))", "{{instance}} pipelined"),
        ),
        graph(
            "Health checks and scrapes",
            "Requests that are left out of all statistics on purpose.",
            "reqps",
            ("sum by (instance) (rate(sonde_pod_requests_excluded_total{$M}[$R]))", "{{instance}}"),
        ),
        graph(
            "Versions",
            "Agents by version: two at once while a roll-out goes on.",
            "none",
            ("count by (version) (sonde_agent_info{$M})", "{{version}}"),
            stacked=True,
        ),
    ),
)

AGENT = Dashboard(
    "sonde-agent",
    "Sonde / Agent",
    "The agents: what measuring costs, what could not be measured, how full the kernel maps are.",
    "sonde_agent_info",
    (_COST, _GAPS),
)
