"""What accelerators take for their work: constants of the step model, each with its source. Pure values.

A step takes `step_s + sequence_s * B + kv_token_s * KV + prefill_token_s * P + attention_s * (sum of P * context)`.
Llama-3.1-8B in bf16 on one accelerator, fitted to the operator tables that NVIDIA's aiconfigurator publishes as
measured with vLLM (github.com/ai-dynamo/aiconfigurator, systems/data), then raised by 20 % for what a whole engine adds
to its kernels. `attention_s` is the rise of the tables' prefill time per token from 2,048 to 16,384 tokens of context.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Gpu:
    """Cost and limits of one engine."""

    step_s: float
    sequence_s: float
    kv_token_s: float
    prefill_token_s: float
    attention_s: float  # for each prefilled token and each token of context before it
    kv_tokens: int
    max_sequences: int = 256
    max_step_tokens: int = 8192
    block_tokens: int = 16


# tables: 5.92 ms, .0100 ms a sequence, .0434 us a KV token, 18.3 and 25.5 us a prefill token at 2,048 and 16,384;
# memory: .9 of 80 GB less the weights, at 128 KiB a token
H100 = Gpu(0.0071, 1.2e-5, 5.21e-8, 2.35e-5, 1.0e-9, 421_000)
# tables: 4.56 ms, .0098 ms a sequence, .0311 us a KV token, 18.4 and 26 us a prefill token; 141 GB
H200 = Gpu(0.0055, 1.18e-5, 3.73e-8, 2.3e-5, 1.06e-9, 840_000)
# tables: 11.12 ms, .0268 ms, .0808 us, 57.3 and 79.5 us
A100 = Gpu(0.0133, 3.2e-5, 9.7e-8, 7.2e-5, 3.1e-9, 421_000)
# tables: 21.4 ms, .0253 ms, .199 us, 64.7 and 96.5 us; 48 GB
L40S = Gpu(0.0257, 3.0e-5, 2.39e-7, 7.8e-5, 4.4e-9, 185_000)

# Llama-2-70B on eight accelerators, fitted to what Splitwise (arXiv 2311.18677, table of its simulator) measured:
# prompts of 512, 2,048 and 8,192 tokens in 54, 137 and 845 ms; a token with 1, 32 and 64 sequences in 30.6, 38.6
# and 50.2 ms on H100, and 93, 274, 1,550 and 45, 53, 71.6 ms on A100. Two constants a side, so the middle is a test.
SPLITWISE_H100 = Gpu(0.0303, 3.0e-4, 0.0, 4.45e-5, 1.41e-8, 400_000)
SPLITWISE_A100 = Gpu(0.0446, 4.0e-4, 0.0, 1.16e-4, 1.8e-8, 400_000)

GPUS = {"H100": H100, "H200": H200, "A100": A100, "L40S": L40S}


def scaled(gpu: Gpu, work: float, step: float) -> Gpu:
    """The same accelerator as one would believe it with wrong constants: `work` on prefill, `step` on the rest."""
    return replace(
        gpu,
        step_s=gpu.step_s * step,
        sequence_s=gpu.sequence_s * step,
        kv_token_s=gpu.kv_token_s * step,
        prefill_token_s=gpu.prefill_token_s * work,
        attention_s=gpu.attention_s * work,
    )
