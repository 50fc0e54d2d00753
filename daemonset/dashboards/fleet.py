"""Fleet: how a pool is, what its users feel, where requests went and why."""

from __future__ import annotations

from daemonset.dashboards.grafana import Dashboard, Row, graph, quantiles, stat

_POOL = Row(
    "Pool",
    (
        stat(
            "Ready pods",
            "Pods of the pool that may get requests.",
            "none",
            "sum by (name) (inference_pool_ready_pods{$M})",
            "{{name}}",
        ),
        stat(
            "Saturation",
            "How near the pool is to full, 100 % is full: mean over the ready pods of the larger of waiting requests "
            "/ 5 and KV cache usage / 0.8. Scale out before it stays there.",
            "percentunit",
            "max by (inference_pool) (inference_extension_flow_control_pool_saturation{$M})",
            "{{inference_pool}}",
        ),
        stat(
            "Requests",
            "Requests that asked for an endpoint.",
            "reqps",
            "sum(rate(inference_objective_request_total{$M}[$R]))",
        ),
        stat(
            "Failed",
            "Share of requests that the picker refused, or that failed where the gateway shows answers to the picker.",
            "percentunit",
            "(sum(rate(inference_objective_request_error_total{$M}[$R])) or 0 * "
            "sum(rate(inference_objective_request_total{$M}[$R]))) / "
            "sum(rate(inference_objective_request_total{$M}[$R]))",
        ),
        stat(
            "Stalled endpoints",
            "Endpoints that owe answers and have been silent for too long. They get no requests while another can "
            "take them.",
            "none",
            "sum(sonde_controller_endpoint_stalled{$M})",
        ),
        stat(
            "Nodes measured",
            "Agents whose numbers are used now.",
            "none",
            "sum(sonde_controller_agent_alive{$M})",
        ),
    ),
)

_FELT = Row(
    "What users feel (measured at the pods)",
    (
        graph(
            "Time to first token",
            "From a request's first byte at the pod to the first byte of answer data. The usual first sign of an "
            "overloaded pool.",
            "s",
            *quantiles("sonde_pod_time_to_first_token_seconds{$M}"),
        ),
        graph(
            "Time per output token",
            "Between two chunks of a streaming answer. Grows with the number of requests an engine decodes at once.",
            "s",
            *quantiles("sonde_pod_inter_chunk_seconds{$M}"),
        ),
        graph(
            "Request duration",
            "From a request's first byte at the pod to the end of its answer, of completed ones.",
            "s",
            *quantiles("sonde_pod_request_duration_seconds{$M}"),
        ),
        graph(
            "In flight",
            "Requests in all pods: waiting for their first token (queued or in prefill), or streaming.",
            "none",
            ("sum(sonde_pod_requests_waiting{$M})", "waiting"),
            ("sum(sonde_pod_requests_in_flight{$M}) - sum(sonde_pod_requests_waiting{$M})", "streaming"),
            stacked=True,
        ),
        graph(
            "How requests ended",
            "complete: the answer was whole. client_abort: the client closed first. server_abort: the pod closed "
            "before its answer was whole.",
            "reqps",
            ("sum by (outcome) (rate(sonde_pod_requests_finished_total{$M}[$R]))", "{{outcome}}"),
            stacked=True,
        ),
        graph(
            "Error answers of pods",
            "Answers with a status of 400 and more. 5xx is the pod's fault.",
            "reqps",
            ("sum by (class) (rate(sonde_pod_error_responses_total{$M}[$R]))", "{{class}}"),
            stacked=True,
        ),
    ),
)

_WENT = Row(
    "Where requests went, and why",
    (
        graph(
            "Picks by reason",
            "cheapest: by price. prefix, adapter: for what is cached or loaded. least-work: too few kernels tell. "
            "tie: drawn among equals. only: there is one. rule: by another policy. stalled, lost: "
            "nothing better was left.",
            "reqps",
            ("sum by (reason) (rate(sonde_controller_picks_total{$M}[$R]))", "{{reason}}"),
            stacked=True,
        ),
        graph(
            "Picks by pod",
            "Where this controller sent requests. Uneven is right where pods are of uneven speed.",
            "reqps",
            ("sum by (endpoint_pod) (rate(sonde_controller_picks_total{$M}[$R]))", "{{endpoint_pod}}"),
            stacked=True,
        ),
        graph(
            "Requests by model",
            "The most requested models; the rest together is other.",
            "reqps",
            ("sum by (model_name) (rate(inference_objective_request_total{$M}[$R]))", "{{model_name}}"),
            stacked=True,
        ),
        graph(
            "Errors by status",
            "400: not a valid request. 404: no such model. 429: declined. 503: no endpoint.",
            "reqps",
            ("sum by (error_code) (rate(inference_objective_request_error_total{$M}[$R]))", "{{error_code}}"),
            stacked=True,
        ),
        graph(
            "Declined by class",
            "Requests turned away to protect the others, by objective, priority and reason. Empty where nobody is "
            "turned away.",
            "reqps",
            (
                "sum by (objective, priority, reason) (rate(sonde_controller_declined_total{$M}[$R]))",
                "{{objective}} ({{priority}}): {{reason}}",
            ),
            stacked=True,
        ),
        graph(
            "Missed picks",
            "Requests the gateway brought to another endpoint than the one picked, because it could not reach that "
            "one.",
            "reqps",
            ("sum by (pod) (rate(sonde_controller_endpoint_misses_total{$M}[$R]))", "{{pod}}"),
        ),
    ),
)

_BALANCE = Row(
    "Balance",
    (
        graph(
            "In flight by pod",
            "As each node's kernel counts it, whoever sent the requests.",
            "none",
            ('sum by (pod) (sonde_controller_endpoint_in_flight{$M, source="kernel"})', "{{pod}}"),
            width=6,
        ),
        graph(
            "Queue by pod",
            "Requests that wait for their first token.",
            "none",
            ("sum by (model_server_pod) (inference_pool_per_pod_queue_size{$M})", "{{model_server_pod}}"),
            width=6,
        ),
        graph(
            "Recent time to first token by pod",
            "Mean of the last seconds. A pod that stands out is slower, or gets longer prompts.",
            "s",
            ("max by (pod) (sonde_controller_endpoint_usual_ttft_seconds{$M})", "{{pod}}"),
            width=6,
        ),
        graph(
            "Recent gap by pod",
            "Mean time between two chunks of answers, of the last seconds. A pod that stands out decodes more slowly.",
            "s",
            ("max by (pod) (sonde_controller_endpoint_usual_gap_seconds{$M})", "{{pod}}"),
            width=6,
        ),
        graph(
            "KV cache by pod",
            "Share in use, as the engines say. Near 1 engines begin to preempt requests.",
            "percentunit",
            ("max by (pod) (sonde_controller_endpoint_kv_cache_usage{$M})", "{{pod}}"),
            width=6,
            maximum=1,
        ),
    ),
)

FLEET = Dashboard(
    "sonde-fleet",
    "Sonde / Fleet",
    "A pool of inference pods: how full it is, what its users feel, where requests went and why.",
    '{__name__=~"sonde_controller_endpoints|sonde_agent_info"}',
    (_POOL, _FELT, _WENT, _BALANCE),
)
