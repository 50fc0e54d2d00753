"""The counters of the node's pods: names, meanings, and the slots' fields they are sums of. A table, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.exporting.exposition import Family, counter

POD = ("namespace", "pod")


@dataclass(frozen=True, slots=True)
class Sum:
    """A counter whose value is the sum of one field over a pod's slots; a label tells several fields of it apart."""

    family: Family
    fields: Mapping[str, str]  # label value -> field; "" where there is no such label


COUNTERS = (
    Sum(
        counter("sonde_pod_connections_opened_total", "TCP connections accepted on the pod's serving ports.", *POD),
        {"": "connections_opened"},
    ),
    Sum(
        counter(
            "sonde_pod_connections_opaque_total",
            "Connections whose requests cannot be followed because they are not HTTP in clear text (TLS, other "
            "protocols, or framing out of step). Of what goes over them only the approximate metrics tell.",
            *POD,
        ),
        {"": "connections_opaque"},
    ),
    Sum(
        counter(
            "sonde_pod_connections_adopted_total",
            "Connections that were open already when the pod was first measured.",
            *POD,
        ),
        {"": "connections_adopted"},
    ),
    Sum(
        counter(
            "sonde_pod_connections_closed_total",
            "Connections closed, by cause: client and server (whose FIN came first), client_reset, server_reset, "
            "timeout (nothing came back for what was sent).",
            *POD,
            "cause",
        ),
        {
            "client": "closed_by_client",
            "server": "closed_by_server",
            "client_reset": "reset_by_client",
            "server_reset": "reset_by_server",
            "timeout": "timed_out",
        },
    ),
    Sum(
        counter(
            "sonde_pod_connections_http2_total",
            "Connections that speak HTTP/2 in clear text. Each of their streams is a request.",
            *POD,
        ),
        {"": "connections_http2"},
    ),
    Sum(
        counter(
            "sonde_pod_http2_goaways_total",
            "GOAWAY frames, of either side: no more requests on that connection.",
            *POD,
        ),
        {"": "goaways"},
    ),
    Sum(
        counter(
            "sonde_pod_requests_started_total",
            "Requests begun, without health checks and metrics scrapes.",
            *POD,
        ),
        {"": "started"},
    ),
    Sum(
        counter(
            "sonde_pod_requests_finished_total",
            "Requests ended, by outcome: complete (the answer was whole), client_abort (the client closed first), "
            "server_abort (the pod closed before the answer was whole).",
            *POD,
            "outcome",
        ),
        {"complete": "completed", "client_abort": "client_aborted", "server_abort": "server_aborted"},
    ),
    Sum(
        counter(
            "sonde_pod_requests_lost_total",
            "Requests whose end could not be seen because their connection stopped being HTTP/1.x. They are no "
            "longer in flight.",
            *POD,
        ),
        {"": "lost"},
    ),
    Sum(
        counter(
            "sonde_pod_requests_excluded_total",
            "Health checks and metrics scrapes, which are left out of every other request metric.",
            *POD,
        ),
        {"": "excluded"},
    ),
    Sum(
        counter(
            "sonde_pod_requests_pipelined_total",
            "Requests sent on a connection before the previous answer had ended.",
            *POD,
        ),
        {"": "pipelined"},
    ),
    Sum(
        counter(
            "sonde_pod_error_responses_total",
            "Answers with a status of 400 or more, by class (4xx: the request is at fault, 5xx: the pod is).",
            *POD,
            "class",
        ),
        {"4xx": "status_4xx", "5xx": "status_5xx"},
    ),
    Sum(
        counter(
            "sonde_pod_response_chunks_total",
            "TCP segments of answers that carried data. For a streaming engine about one for each token or batch of "
            "tokens.",
            *POD,
        ),
        {"": "chunks"},
    ),
    Sum(
        counter(
            "sonde_pod_response_writes_total",
            "Chunks of answers as the pod wrote them, by its write calls (HTTP/2: by frames): like "
            "sonde_pod_response_chunks_total, but exact where segments merge under loss. Needs measurement level 2.",
            *POD,
        ),
        {"": "exact_chunks"},
    ),
    Sum(
        counter(
            "sonde_pod_requests_adopted_total",
            "Requests that were under way when the pod was first measured. Their times are in no histogram.",
            *POD,
        ),
        {"": "adopted"},
    ),
    Sum(
        counter(
            "sonde_pod_approximate_answers_total",
            "On opaque connections: answers that followed a question, told by direction and size alone.",
            *POD,
        ),
        {"": "turns"},
    ),
    Sum(
        counter(
            "sonde_pod_tcp_retransmits_total",
            "Segments the pod had to send again because the network lost them.",
            *POD,
        ),
        {"": "retransmits"},
    ),
    Sum(
        counter(
            "sonde_pod_tcp_resets_total",
            "Connections cut by a RST segment, by direction: in (the client cut it), out (the pod or its kernel did).",
            *POD,
            "direction",
        ),
        {"in": "resets_in", "out": "resets_out"},
    ),
    Sum(
        counter(
            "sonde_pod_tcp_syns_total", "Connection attempts (SYN segments) that reached the pod's listeners.", *POD
        ),
        {"": "syns"},
    ),
    Sum(
        counter("sonde_pod_tcp_syn_acks_total", "Answers (SYN-ACK segments) of the pod's listeners to them.", *POD),
        {"": "syn_acks"},
    ),
    Sum(
        counter("sonde_pod_received_bytes_total", "TCP payload the pod received; duplicates count once.", *POD),
        {"": "rx_bytes"},
    ),
    Sum(
        counter("sonde_pod_sent_bytes_total", "TCP payload the pod sent; retransmissions do not count.", *POD),
        {"": "tx_bytes"},
    ),
)
