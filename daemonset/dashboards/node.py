"""Node: what the kernel of a node sees of each of its pods."""

from __future__ import annotations

from daemonset.dashboards.grafana import MATCHERS, Dashboard, Panel, Row, Variable, graph, quantiles

_POD = "namespace, pod"


def _by_pod(title: str, text: str, unit: str, expression: str, width: int = 8) -> Panel:
    return graph(title, text, unit, (f"sum by ({_POD}) ({expression})", "{{pod}}"), width=width)


_REQUESTS = Row(
    "Requests",
    (
        _by_pod(
            "Waiting for the first token",
            "Requests that the pod has and has not begun to answer: queued or in prefill.",
            "none",
            "sonde_pod_requests_waiting{$P}",
        ),
        _by_pod(
            "Streaming",
            "Requests whose answer has begun and not ended.",
            "none",
            "sonde_pod_requests_in_flight{$P} - sonde_pod_requests_waiting{$P}",
        ),
        _by_pod("Begun", "New requests.", "reqps", "rate(sonde_pod_requests_started_total{$P}[$R])"),
        graph(
            "Stalled",
            "How long no byte of any answer came although a request is in flight. A line that only climbs is an "
            "engine that hangs.",
            "s",
            (f"max by ({_POD}) (sonde_pod_stalled_seconds{{$P}})", "{{pod}}"),
        ),
        graph(
            "How requests ended",
            "complete, or aborted by the client or by the pod.",
            "reqps",
            (f"sum by ({_POD}, outcome) (rate(sonde_pod_requests_finished_total{{$P}}[$R]))", "{{pod}} {{outcome}}"),
        ),
        graph(
            "Error answers",
            "Answers with a status of 400 and more.",
            "reqps",
            (f"sum by ({_POD}, class) (rate(sonde_pod_error_responses_total{{$P}}[$R]))", "{{pod}} {{class}}"),
        ),
    ),
)

_TIMES = Row(
    "Times",
    (
        graph(
            "First token",
            "From a request's first byte to the first byte of answer data.",
            "s",
            *quantiles("sonde_pod_time_to_first_token_seconds{$P}", _POD, (0.5, 0.99)),
        ),
        graph(
            "Gap between chunks",
            "About the time per output token of a streaming answer.",
            "s",
            *quantiles("sonde_pod_inter_chunk_seconds{$P}", _POD, (0.5, 0.99)),
        ),
        graph(
            "Duration",
            "Of completed requests.",
            "s",
            *quantiles("sonde_pod_request_duration_seconds{$P}", _POD, (0.5, 0.99)),
        ),
        graph(
            "Response header",
            "Until the first byte of the response header. Short with a long first token: the engine accepts at once "
            "and queues inside.",
            "s",
            *quantiles("sonde_pod_response_header_seconds{$P}", _POD, (0.5, 0.99)),
        ),
        graph(
            "Upload",
            "From first to last byte of a request. Long: slow clients or a slow network, not the engine.",
            "s",
            *quantiles("sonde_pod_request_upload_seconds{$P}", _POD, (0.5, 0.99)),
        ),
        graph(
            "Read delay",
            "From the arrival of bytes of a request to the pod having read them. Long: an event loop that stands "
            "still. Needs measurement level 2.",
            "s",
            *quantiles("sonde_pod_read_delay_seconds{$P}", _POD, (0.5, 0.99)),
        ),
        graph(
            "Chunks",
            "Segments of answers that carried data, about the output tokens of streaming answers, and the writes they "
            "came by (measurement level 2): fewer segments than writes means that the network merged some.",
            "cps",
            (f"sum by ({_POD}) (rate(sonde_pod_response_chunks_total{{$P}}[$R]))", "{{pod}}"),
            (f"sum by ({_POD}) (rate(sonde_pod_response_writes_total{{$P}}[$R]))", "{{pod}} writes"),
        ),
    ),
)

_NETWORK = Row(
    "Connections and network",
    (
        _by_pod(
            "Connections open",
            "TCP connections to the pod's serving ports.",
            "none",
            "sonde_pod_connections_open{$P}",
            6,
        ),
        _by_pod("Connections opened", "New connections.", "cps", "rate(sonde_pod_connections_opened_total{$P}[$R])", 6),
        graph(
            "Connection attempts",
            "SYN segments that reached the pod's listeners, and their answers. Fewer answers than attempts: the queue "
            "of accepted connections is full.",
            "cps",
            (f"sum by ({_POD}) (rate(sonde_pod_tcp_syns_total{{$P}}[$R]))", "{{pod}} attempts"),
            (f"sum by ({_POD}) (rate(sonde_pod_tcp_syn_acks_total{{$P}}[$R]))", "{{pod}} answers"),
            width=6,
        ),
        graph(
            "Accept queue",
            "Connections that the pod has not accepted yet, and how many may wait (the backlog). At the limit the "
            "kernel drops connection attempts.",
            "none",
            (f"sum by ({_POD}) (sonde_pod_accept_queue_length{{$P}})", "{{pod}}"),
            (f"sum by ({_POD}) (sonde_pod_accept_queue_limit{{$P}})", "{{pod}} limit"),
            width=6,
        ),
        _by_pod(
            "Longest accept queue",
            "The longest that the queue of accepted connections was when it was looked at, since the agent began.",
            "none",
            "sonde_pod_accept_queue_longest{$P}",
            6,
        ),
        _by_pod(
            "Accept queue overflows",
            "Connection attempts dropped because the pod accepts too slowly. Clients wait a second or more for each.",
            "cps",
            "rate(sonde_pod_accept_queue_overflows_total{$P}[$R])",
            6,
        ),
        graph(
            "How connections ended",
            "By whose end came first: a FIN or a reset of the client or the server, or nothing came back.",
            "cps",
            (f"sum by ({_POD}, cause) (rate(sonde_pod_connections_closed_total{{$P}}[$R]))", "{{pod}} {{cause}}"),
            width=6,
        ),
        _by_pod(
            "Retransmissions",
            "Segments the pod sent again because the network lost them.",
            "pps",
            "rate(sonde_pod_tcp_retransmits_total{$P}[$R])",
            6,
        ),
        graph(
            "Resets",
            "Connections cut: in by the client, out by the pod.",
            "cps",
            (f"sum by ({_POD}, direction) (rate(sonde_pod_tcp_resets_total{{$P}}[$R]))", "{{pod}} {{direction}}"),
            width=6,
        ),
        graph(
            "Round trip",
            "Smoothed TCP round trip between the pod and its client.",
            "s",
            (f"max by ({_POD}) (sonde_pod_tcp_rtt_seconds{{$P}})", "{{pod}}"),
            width=6,
        ),
        graph(
            "Payload",
            "Bytes received and sent, without duplicates.",
            "Bps",
            (f"sum by ({_POD}) (rate(sonde_pod_received_bytes_total{{$P}}[$R]))", "{{pod}} in"),
            (f"sum by ({_POD}) (rate(sonde_pod_sent_bytes_total{{$P}}[$R]))", "{{pod}} out"),
            width=6,
        ),
    ),
)

_PROTOCOLS = Row(
    "HTTP/2 and what cannot be read",
    (
        graph(
            "HTTP/2",
            "Connections that speak HTTP/2 in clear text, each of whose streams is a request, and GOAWAY frames: no "
            "more requests on that connection.",
            "cps",
            (f"sum by ({_POD}) (rate(sonde_pod_connections_http2_total{{$P}}[$R]))", "{{pod}} connections"),
            (f"sum by ({_POD}) (rate(sonde_pod_http2_goaways_total{{$P}}[$R]))", "{{pod}} GOAWAY"),
        ),
        _by_pod(
            "Opaque connections",
            "Connections whose requests cannot be followed: TLS and other protocols. What goes over them is in no "
            "other panel than the next ones.",
            "cps",
            "rate(sonde_pod_connections_opaque_total{$P}[$R])",
        ),
        _by_pod(
            "Answers on opaque connections",
            "Answers that followed a question, told by direction and size alone.",
            "ops",
            "rate(sonde_pod_approximate_answers_total{$P}[$R])",
        ),
        graph(
            "First byte on opaque connections",
            "Approximate: time from a question to its answer.",
            "s",
            *quantiles("sonde_pod_approximate_first_byte_seconds{$P}", _POD, (0.5, 0.99)),
        ),
        graph(
            "Gap on opaque connections",
            "Approximate: time between two segments of an answer.",
            "s",
            *quantiles("sonde_pod_approximate_gap_seconds{$P}", _POD, (0.5, 0.99)),
        ),
    ),
)

_DEVICES = Row(
    "Devices (where the agent is told where to ask)",
    (
        graph(
            "Accelerator utilization",
            "Busy with no first tokens: prefill. Idle with a stalled pod: the engine hangs.",
            "percentunit",
            (f"max by ({_POD}, device) (sonde_pod_device_utilization_ratio{{$P}})", "{{pod}} {{device}}"),
            width=6,
            maximum=1,
        ),
        graph(
            "Accelerator memory",
            "Share of the device's memory in use.",
            "percentunit",
            (
                f"max by ({_POD}, device) (sonde_pod_device_memory_used_bytes{{$P}})"
                f" / max by ({_POD}, device) (sonde_pod_device_memory_bytes{{$P}})",
                "{{pod}} {{device}}",
            ),
            width=6,
            maximum=1,
        ),
        graph(
            "Accelerator power",
            "Power the device draws. Falls with the clocks when it is throttled.",
            "watt",
            (f"max by ({_POD}, device) (sonde_pod_device_power_watts{{$P}})", "{{pod}} {{device}}"),
            width=6,
        ),
        graph(
            "Accelerator health",
            "healthy: 0 after a fatal Xid or while an NPU is unhealthy. throttled: 1 while its clocks are held down.",
            "none",
            (f"min by ({_POD}, device) (sonde_pod_device_healthy{{$P}})", "{{pod}} {{device}} healthy"),
            (f"max by ({_POD}, device) (sonde_pod_device_throttled{{$P}})", "{{pod}} {{device}} throttled"),
            width=6,
            maximum=1,
        ),
    ),
)

NODE = Dashboard(
    "sonde-node",
    "Sonde / Node",
    "The pods of a node as its kernel sees them: requests, times, connections and network, whatever the engine "
    "exports.",
    "sonde_agent_info",
    (_REQUESTS, _TIMES, _NETWORK, _PROTOCOLS, _DEVICES),
    (
        Variable(
            "namespace",
            f"label_values(sonde_pod_connections_open{{{MATCHERS}}}, namespace)",
        ),
        Variable(
            "pod",
            f'label_values(sonde_pod_connections_open{{{MATCHERS}, namespace=~"$namespace"}}, pod)',
        ),
    ),
)
