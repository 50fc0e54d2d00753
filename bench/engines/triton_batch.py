"""A Triton model that answers whole batches at once. Triton's Python backend loads it by this name."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import triton_python_backend_utils as backend

STEP_S = 0.1


class TritonPythonModel:
    def execute(self, requests: Sequence[Any]) -> list[Any]:
        time.sleep(STEP_S)
        texts = [backend.get_input_tensor_by_name(request, "text_input").as_numpy() for request in requests]
        return [backend.InferenceResponse([backend.Tensor("text_output", text)]) for text in texts]
