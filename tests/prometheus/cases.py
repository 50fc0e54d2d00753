"""For each alert, series under which it must fire for whom, and series under which it must stay silent.

Series are in promtool's notation: `0+60x20` is 0, 60, 120 ... each minute; `5x20` stays.
"""

from __future__ import annotations

from dataclasses import dataclass

Series = dict[str, str]


@dataclass(frozen=True, slots=True)
class Case:
    alert: str
    fires: Series
    for_whom: str  # the labels that tell whom the alert is about
    silent: Series
    at: str = "30m"


POD = 'namespace="ns", pod="a"'
AGENT = 'job="sonde-agent", instance="n1:9432"'
CONTROLLER = 'job="sonde-controller", instance="c:9090"'


def _pods(metric: str, more: str = "") -> str:
    return f"{metric}{{{AGENT}, {POD}{more}}}"


def _agent(metric: str, more: str = "") -> str:
    return f"{metric}{{{AGENT}{more}}}"


def _controller(metric: str, more: str = "") -> str:
    return f"{metric}{{{CONTROLLER}{more}}}"


def _gaps(slow: str) -> Series:
    """The usual gaps of a pool of three that all get requests."""
    found: Series = {}
    for pod, gap in (("a", slow), ("b", "0.02x60"), ("c", "0.022x60")):
        labels = f', namespace="ns", pod="{pod}", port="8000"'
        found[_controller("sonde_controller_endpoint_usual_gap_seconds", labels)] = gap
        found[f'sonde_pod_requests_started_total{{{AGENT}, namespace="ns", pod="{pod}"}}'] = "0+60x60"
    return found


_FINISHED = _pods("sonde_pod_requests_finished_total", ', outcome="complete"')
_ABORTED = _pods("sonde_pod_requests_finished_total", ', outcome="server_abort"')
_FIVES = _pods("sonde_pod_error_responses_total", ', class="5xx"')
_RETRANSMITS, _CHUNKS = _pods("sonde_pod_tcp_retransmits_total"), _pods("sonde_pod_response_chunks_total")
_OPAQUE, _OPENED = _pods("sonde_pod_connections_opaque_total"), _pods("sonde_pod_connections_opened_total")
_USED = _agent("sonde_agent_map_entries", ', map="slots", state="used"')
_RETIRED = _agent("sonde_agent_map_entries", ', map="slots", state="retired"')
_CAPACITY = _agent("sonde_agent_map_capacity", ', map="slots"')
_READ, _FAILED = _agent("sonde_agent_engine_pages_read_total"), _agent("sonde_agent_engine_scrape_failures_total")
_CONNECTED, _ENDPOINTS = _controller("sonde_controller_agents_connected"), _controller("sonde_controller_endpoints")
_REQUESTS = _controller("inference_objective_request_total", ', model_name="m"')
_ERRORS = _controller("inference_objective_request_error_total", ', model_name="m", error_code="503"')
_DECLINED = _controller("sonde_controller_declined_total", ', objective="batch", priority="-1", reason="saturated"')
_DECISIONS = _controller("inference_extension_scheduler_e2e_duration_seconds_bucket", ', le="%s"')
_UNSENT = _controller("sonde_controller_picks_total", ', endpoint_pod="a", reason="stalled"')
_LOST = _controller("sonde_controller_picks_total", ', endpoint_pod="a", reason="lost"')
_SENT = _controller("sonde_controller_picks_total", ', endpoint_pod="a", reason="cheapest"')
_MISSES = _controller("sonde_controller_endpoint_misses_total", ', namespace="ns", pod="a", port="8000"')
_ENDPOINT = ', namespace="ns", pod="a", port="8000", source="%s"'

CASES = [
    # a pod that always has requests and falls silent now and then does not stall
    Case(
        "SondePodStalled",
        {_pods("sonde_pod_stalled_seconds"): "0+60x60"},
        POD,
        {_pods("sonde_pod_stalled_seconds"): "40x60"},
    ),
    # twice as slow as the median, and a little slower than it
    Case("SondePodStraggler", _gaps("0.06x60"), POD, _gaps("0.04x60")),
    # one overflow now and then is no news
    Case(
        "SondeAcceptQueueOverflow",
        {_pods("sonde_pod_accept_queue_overflows_total"): "0+3x60"},
        POD,
        {_pods("sonde_pod_accept_queue_overflows_total"): "0+1x60"},
    ),
    # 1 % of the chunks may be lost
    Case(
        "SondeRetransmissions",
        {_RETRANSMITS: "0+60x60", _CHUNKS: "0+600x60"},
        POD,
        {_RETRANSMITS: "0+60x60", _CHUNKS: "0+6000x60"},
    ),
    Case(
        "SondeResets",
        {_pods("sonde_pod_tcp_resets_total", ', direction="out"'): "0+60x60"},
        POD,
        {_pods("sonde_pod_tcp_resets_total", ', direction="in"'): "0+60x60"},
    ),
    Case(
        "SondeServerAborts",
        {_FINISHED: "0+60x60", _ABORTED: "0+6x60"},
        POD,
        {_FINISHED: "0+600x60", _ABORTED: "0+6x60"},
    ),
    Case("SondePodErrors", {_FINISHED: "0+60x60", _FIVES: "0+6x60"}, POD, {_FINISHED: "0+600x60", _FIVES: "0+6x60"}),
    Case(
        "SondeOpaqueConnections", {_OPENED: "0+60x60", _OPAQUE: "0+60x60"}, POD, {_OPENED: "0+60x60", _OPAQUE: "0+6x60"}
    ),
    Case(
        "SondeDeviceLost",
        {_pods("sonde_pod_device_healthy", ', device="GPU-1"'): "1x20 0x40"},
        f'{POD}, device="GPU-1"',
        {_pods("sonde_pod_device_healthy", ', device="GPU-1"'): "1x60"},
    ),
    # hot for some minutes
    Case(
        "SondeDeviceThrottled",
        {_pods("sonde_pod_device_throttled", ', device="GPU-1"'): "1x60"},
        f'{POD}, device="GPU-1"',
        {_pods("sonde_pod_device_throttled", ', device="GPU-1"'): "0x20 1x40"},
    ),
    Case(
        "SondeAgentDown",
        {'up{job="sonde-system/sonde-agent", instance="n1:9432"}': "0x60"},  # as the Prometheus operator names it
        'job="sonde-system/sonde-agent", instance="n1:9432"',
        {_agent("up"): "1x60", 'up{job="other", instance="n1:9432"}': "0x60"},
    ),
    Case(
        "SondeProgramsDetached",
        {_agent("sonde_agent_program_attached", ', hook="egress"'): "1x10 0x50"},
        f'{AGENT}, hook="egress"',
        {_agent("sonde_agent_program_attached", ', hook="egress"'): "1x60"},
    ),
    Case(
        "SondeAgentStuck",
        {_agent("sonde_agent_sample_age_seconds"): "0+60x60"},
        AGENT,
        {_agent("sonde_agent_sample_age_seconds"): "0.02x60"},
    ),
    Case(
        "SondeAgentOverhead",
        {_agent("sonde_agent_cpu_seconds_total"): "0+9x60"},
        AGENT,
        {_agent("sonde_agent_cpu_seconds_total"): "0+1x60"},
    ),
    # three hooks together
    Case(
        "SondeProgramOverhead",
        {
            _agent("sonde_agent_program_run_seconds_total", f', hook="{hook}"'): "0+3x60"
            for hook in ("egress", "ingress", "lifecycle")
        },
        AGENT,
        {_agent("sonde_agent_program_run_seconds_total", ', hook="egress"'): "0+3x60"},
    ),
    # one sample above the bound, and back
    Case(
        "SondeMeasuringLess",
        {
            _agent("sonde_agent_shed", ', what="http2"'): "0x10 1x50",
            _agent("sonde_agent_shed", ', what="calls"'): "0x60",
        },
        f'{AGENT}, what="http2"',
        {_agent("sonde_agent_shed", ', what="http2"'): "0x26 1x2 0x32"},
    ),
    Case(
        "SondeAgentMemory",
        {_agent("sonde_agent_resident_memory_bytes"): "300000000x60"},
        AGENT,
        {_agent("sonde_agent_resident_memory_bytes"): "60000000x60"},
    ),
    # retired slots are full too
    Case(
        "SondeMapNearlyFull",
        {_USED: "50x60", _RETIRED: "45x60", _CAPACITY: "100x60"},
        f'{AGENT}, map="slots"',
        {_USED: "50x60", _RETIRED: "5x60", _CAPACITY: "100x60"},
    ),
    Case(
        "SondeEngineScrapesFail", {_READ: "0+60x60", _FAILED: "0+90x60"}, AGENT, {_READ: "0+60x60", _FAILED: "0+6x60"}
    ),
    Case("SondeControllerDown", {_controller("up"): "0x60"}, CONTROLLER, {_controller("up"): "1x60"}),
    Case(
        "SondeNodeStale",
        {_controller("sonde_controller_agent_frame_age_seconds", ', node="n1"'): "0+60x60"},
        f'{CONTROLLER}, node="n1"',
        {_controller("sonde_controller_agent_frame_age_seconds", ', node="n1"'): "0.5x60"},
    ),
    # a controller without endpoints has nothing to ask agents for
    Case(
        "SondeControllerWithoutAgents",
        {_CONNECTED: "0x60", _ENDPOINTS: "3x60"},
        CONTROLLER,
        {_CONNECTED: "0x60", _ENDPOINTS: "0x60"},
    ),
    Case(
        "SondeEndpointsUnmeasured",
        {_controller("sonde_controller_endpoint_load", _ENDPOINT % "own"): "1x60"},
        CONTROLLER,
        {_controller("sonde_controller_endpoint_load", _ENDPOINT % "engine"): "1x60"},
    ),
    Case(
        "SondeNoReadyPods",
        {_controller("inference_pool_ready_pods", ', name="llm"'): "2x10 0x50"},
        'name="llm"',
        {_controller("inference_pool_ready_pods", ', name="llm"'): "1x60"},
    ),
    # full for a moment is no news
    Case(
        "SondePoolSaturated",
        {_controller("inference_extension_flow_control_pool_saturation", ', inference_pool="llm"'): "1.2x60"},
        'inference_pool="llm"',
        {_controller("inference_extension_flow_control_pool_saturation", ', inference_pool="llm"'): "0.5x27 1.2x33"},
    ),
    Case(
        "SondeShedding",
        {_REQUESTS: "0+600x60", _DECLINED: "0+60x60"},
        'job="sonde-controller", objective="batch", priority="-1", reason="saturated"',
        {_REQUESTS: "0+600x60", _DECLINED: "0+3x60"},
    ),
    Case(
        "SondePickErrors",
        {_REQUESTS: "0+600x60", _ERRORS: "0+60x60"},
        'job="sonde-controller"',
        {_REQUESTS: "0+600x60", _ERRORS: "0+6x60"},
    ),
    Case(
        "SondeNoGoodEndpoint",
        {_UNSENT: "0+60x60"},
        f'{CONTROLLER}, reason="stalled"',
        {_SENT: "0+60x60", _UNSENT: "5x60"},
    ),
    Case(
        "SondeNoGoodEndpoint",
        {_LOST: "0+60x60", _UNSENT: "5x60"},
        f'{CONTROLLER}, reason="lost"',
        {_SENT: "0+60x60", _LOST: "5x60"},
    ),
    # ejected for a while and back
    Case(
        "SondeEndpointEjected",
        {_controller("sonde_controller_endpoint_ejected", ', namespace="ns", pod="a", port="8000"'): "1x60"},
        f'{POD}, port="8000"',
        {_controller("sonde_controller_endpoint_ejected", ', namespace="ns", pod="a", port="8000"'): "1x28 0x32"},
    ),
    Case(
        "SondePicksMissed", {_SENT: "0+600x60", _MISSES: "0+60x60"}, CONTROLLER, {_SENT: "0+600x60", _MISSES: "0+6x60"}
    ),
    Case(
        "SondeSlowDecisions",
        {_DECISIONS % "0.01": "0+540x60", _DECISIONS % "0.1": "0+600x60", _DECISIONS % "+Inf": "0+600x60"},
        CONTROLLER,
        {_DECISIONS % "0.001": "0+599x60", _DECISIONS % "0.1": "0+600x60", _DECISIONS % "+Inf": "0+600x60"},
    ),
    Case(
        "SondeControllerFaults",
        {_controller("sonde_controller_faults_total"): "0x25 1x35"},
        CONTROLLER,
        {_controller("sonde_controller_faults_total"): "7x60"},
    ),
]
