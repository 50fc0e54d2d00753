"""Picker: whether the controller decides fast, on fresh signals, and without faults."""

from __future__ import annotations

from daemonset.dashboards.grafana import Dashboard, Row, graph, quantiles

_DECISIONS = Row(
    "Decisions",
    (
        graph(
            "Decision latency",
            "Time to choose an endpoint for a request that has arrived: what the picker adds to it.",
            "s",
            *quantiles("inference_extension_scheduler_e2e_duration_seconds{$M}"),
        ),
        graph(
            "Decisions",
            "Requests that came to their pick.",
            "reqps",
            (
                "sum by (instance) (rate(inference_extension_scheduler_e2e_duration_seconds_count{$M}[$R]))",
                "{{instance}}",
            ),
        ),
        graph(
            "Open streams",
            "ext_proc streams that gateways hold open.",
            "none",
            ("sum by (instance) (sonde_controller_exchanges_open{$M})", "{{instance}}"),
        ),
        graph(
            "Errors",
            "Answers of the picker itself, by status, and failed answers of endpoints where the gateway shows them.",
            "reqps",
            ("sum by (error_code) (rate(inference_objective_request_error_total{$M}[$R]))", "{{error_code}}"),
        ),
        graph(
            "Faults and missed picks",
            "Faults of the controller itself (the log has each), requests that the gateway brought elsewhere than "
            "picked, and requests whose bodies came too slowly while too many were held.",
            "reqps",
            ("sum(rate(sonde_controller_faults_total{$M}[$R]))", "faults"),
            ("sum(rate(sonde_controller_endpoint_misses_total{$M}[$R]))", "missed picks"),
            ("sum(rate(sonde_controller_bodies_dropped_total{$M}[$R]))", "bodies dropped"),
        ),
        graph(
            "Declined",
            "Requests turned away to protect the others, by reason. Empty where nobody is.",
            "reqps",
            ("sum by (reason) (rate(sonde_controller_declined_total{$M}[$R]))", "{{reason}}"),
        ),
    ),
)

_SIGNALS = Row(
    "Signals",
    (
        graph(
            "Signal age",
            "The oldest signal of any endpoint, by source. Kernel signals beyond 2.5 s are not used.",
            "s",
            ("max by (source) (sonde_controller_signal_age_seconds{$M})", "{{source}}"),
        ),
        graph(
            "What picks go by",
            "Endpoints by the source their load is taken from. own: nothing is measured there.",
            "none",
            ("count by (source) (sonde_controller_endpoint_load{$M})", "{{source}}"),
            stacked=True,
        ),
        graph(
            "Age of agents",
            "Time since each node's agent last sent anything.",
            "s",
            ("max by (node) (sonde_controller_agent_frame_age_seconds{$M})", "{{node}}"),
        ),
        graph(
            "Agents",
            "Agents that the cluster names, and those whose stream is open.",
            "none",
            ("sum by (instance) (sonde_controller_agents_known{$M})", "{{instance}} known"),
            ("sum by (instance) (sonde_controller_agents_connected{$M})", "{{instance}} connected"),
        ),
        graph(
            "Frames and reconnects",
            "Messages from agents, and streams to them that ended.",
            "ops",
            ("sum(rate(sonde_controller_frames_received_total{$M}[$R]))", "frames"),
            ("sum(rate(sonde_controller_agent_reconnects_total{$M}[$R]))", "reconnects"),
        ),
        graph(
            "Engine pages read here",
            "Engines' metrics pages that the controller reads itself because no agent does, by outcome.",
            "ops",
            ("sum by (outcome) (rate(sonde_controller_engine_scrapes_total{$M}[$R]))", "{{outcome}}"),
        ),
    ),
)

_LEDGER = Row(
    "Reservations and load",
    (
        graph(
            "Reservations",
            "Picks the kernel cannot have counted yet. More than a few for more than a moment: requests do not "
            "arrive where they are sent.",
            "none",
            ("sum by (pod) (sonde_controller_reservations{$M})", "{{pod}}"),
        ),
        graph(
            "Load",
            "The number of requests the picks go by.",
            "none",
            ("sum by (pod) (sonde_controller_endpoint_load{$M})", "{{pod}}"),
        ),
        graph(
            "Stalled endpoints",
            "1 while an endpoint owes answers and is silent for too long, or has not proved itself since.",
            "none",
            ("max by (pod) (sonde_controller_endpoint_stalled{$M})", "{{pod}}"),
            maximum=1,
        ),
    ),
)

_LEARNED = Row(
    "What the picker has learned",
    (
        graph(
            "Speed",
            "Time of a decode step as a ratio to the pool's median: above 1 is slower.",
            "none",
            ("max by (pod) (sonde_controller_endpoint_speed_ratio{$M})", "{{pod}}"),
        ),
        graph(
            "Failures",
            "Share of failures among an endpoint's last requests, and 1 while it is ejected for failing in a row.",
            "percentunit",
            ("max by (pod) (sonde_controller_endpoint_failure_ratio{$M})", "{{pod}} failures"),
            ("max by (pod) (sonde_controller_endpoint_ejected{$M})", "{{pod}} ejected"),
            maximum=1,
        ),
        graph(
            "Held and cold",
            "Requests that wait in the controller for room, and endpoints that are new and get less than their share.",
            "none",
            ("sum(sonde_controller_requests_held{$M})", "held requests"),
            ("sum(sonde_controller_endpoint_cold{$M})", "cold endpoints"),
        ),
    ),
)

_STEERING = Row(
    "Connections that no gateway picks for (with --weights-port)",
    (
        graph(
            "Told shares",
            "Share of the steered connections that each pod is told to get. Smooth lines that part slowly are right.",
            "percentunit",
            (
                "max by (pod) (sonde_controller_endpoint_weight{$M})"
                " / scalar(sum(max by (pod) (sonde_controller_endpoint_weight{$M})))",
                "{{pod}}",
            ),
        ),
        graph(
            "Weights told anew",
            "How often. Once a second for long means that they swing.",
            "none",
            ("sum by (instance) (rate(sonde_controller_weight_changes_total{$M}[$R]))", "{{instance}}"),
        ),
        graph(
            "Agents that follow",
            "Streams of weights that are open. Agents without one share out alike among Ready pods.",
            "none",
            ("sum by (instance) (sonde_controller_weight_watchers{$M})", "{{instance}}"),
        ),
    ),
)

_PROCESS = Row(
    "Process",
    (
        graph(
            "CPU",
            "Cores the controller uses.",
            "none",
            ("rate(process_cpu_seconds_total{$M}[$R])", "{{instance}}"),
            width=6,
        ),
        graph(
            "Memory",
            "Memory of the controller.",
            "bytes",
            ("process_resident_memory_bytes{$M}", "{{instance}}"),
            width=6,
        ),
        graph(
            "File descriptors",
            "Share of those it may have open: connections of gateways, agents and scrapers.",
            "percentunit",
            ("process_open_fds{$M} / process_max_fds{$M}", "{{instance}}"),
            width=6,
        ),
        graph(
            "Request bodies held",
            "Bytes of bodies that have not come whole, wait for room, or are on their way back to the gateway.",
            "bytes",
            ("sum by (instance) (sonde_controller_body_bytes{$M})", "{{instance}}"),
            width=6,
        ),
    ),
)

PICKER = Dashboard(
    "sonde-picker",
    "Sonde / Picker",
    "The endpoint picker: how fast it decides, how fresh what it goes by is, what it could not do.",
    "sonde_controller_endpoints",
    (_DECISIONS, _SIGNALS, _LEDGER, _LEARNED, _STEERING, _PROCESS),
)
