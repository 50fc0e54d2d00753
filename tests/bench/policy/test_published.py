"""The engine against tables that others measured and published."""

from __future__ import annotations

import pytest

from bench.policy import hardware
from bench.policy.engine import Engine
from bench.policy.hardware import Gpu
from bench.policy.requests import Request

# Splitwise (arXiv 2311.18677), Llama-2-70B on eight accelerators: prompt tokens -> ms, sequences -> ms a token
SPLITWISE = {
    "H100": (hardware.SPLITWISE_H100, {512: 54, 2048: 137, 8192: 845}, {1: 30.6, 32: 38.6, 64: 50.2}),
    "A100": (hardware.SPLITWISE_A100, {512: 93, 2048: 274, 8192: 1550}, {1: 45, 32: 53, 64: 71.6}),
}
# aiconfigurator's vLLM operator tables for Llama-3.1-8B: us a prompt token at 2,048, 8,192 and 16,384; kernels alone
PREFILL_US = {
    "H100": {2048: 18.3, 8192: 22.9, 16384: 25.5},
    "H200": {2048: 18.4, 8192: 22.6, 16384: 26.0},
    "A100": {2048: 57.3, 8192: 67.3, 16384: 79.5},
    "L40S": {2048: 64.7, 8192: 80.0, 16384: 96.5},
}
STEP_MS = {"H100": 5.92, "H200": 4.56, "A100": 11.12, "L40S": 21.4}
AROUND = 1.2  # what an engine adds to its kernels


def prompt_s(gpu: Gpu, tokens: int) -> float:
    engine = Engine(gpu)
    engine.add(Request(0.0, tokens, 1), 0.0)
    while True:
        now_s = engine.next_s
        if engine.advance()[0]:
            return now_s


def token_s(gpu: Gpu, sequences: int, prompt_tokens: int = 1024) -> float:
    """Mean time per token of so many sequences together."""
    engine = Engine(gpu)
    requests = [Request(0.0, prompt_tokens, 201) for _ in range(sequences)]
    for request in requests:
        engine.add(request, 0.0)
    while engine.next_s != float("inf"):
        engine.advance()
    return max(engine.gaps, key=lambda gap: gap[1])[2]  # the run with most gaps: all of them decoding


@pytest.mark.parametrize("name", SPLITWISE)
def test_prompts_and_tokens_take_what_splitwise_measured(name):
    gpu, prompts, tokens = SPLITWISE[name]
    for length, measured_ms in prompts.items():
        assert prompt_s(gpu, length) * 1e3 == pytest.approx(measured_ms, rel=0.2), length
    for sequences, measured_ms in tokens.items():
        assert token_s(gpu, sequences) * 1e3 == pytest.approx(measured_ms, rel=0.12), sequences


@pytest.mark.parametrize("name", PREFILL_US)
def test_prompts_take_what_the_operator_tables_say(name):
    gpu = hardware.GPUS[name]
    for length, kernel_us in PREFILL_US[name].items():
        chunks = -(-length // gpu.max_step_tokens)
        token_us = (prompt_s(gpu, length) - chunks * gpu.step_s) / length * 1e6
        assert token_us == pytest.approx(kernel_us * AROUND, rel=0.15), length


@pytest.mark.parametrize("name", STEP_MS)
def test_a_step_takes_what_the_operator_tables_say(name):
    assert token_s(hardware.GPUS[name], 1, 16) * 1e3 == pytest.approx(STEP_MS[name] * AROUND, rel=0.05)


def test_a_power_cap_slows_prompts_and_not_tokens():
    """Splitwise: a capped H100 takes 1.30 times as long for prompts, and as long as before for tokens."""
    engine = Engine(hardware.H100)
    engine.set_speed(1.3, 1.0, 0.0)
    engine.add(Request(0.0, 4096, 100), 0.0)
    first_s = engine.next_s
    engine.advance()
    engine.advance()
    work_s = prompt_s(hardware.H100, 4096) - hardware.H100.step_s - hardware.H100.sequence_s
    assert first_s - hardware.H100.step_s - hardware.H100.sequence_s == pytest.approx(1.3 * work_s)
    assert engine.gaps[-1][2] == pytest.approx(token_s(hardware.H100, 1, 4096), rel=0.01)
