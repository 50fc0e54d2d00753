"""A Triton model that answers in pieces, as one that generates does. Triton's Python backend loads it by this name."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as backend

PREFILL_S = 0.1
GAP_S = 0.03


class TritonPythonModel:
    def execute(self, requests: Sequence[Any]) -> None:
        for request in requests:
            sender = request.get_response_sender()
            wanted = backend.get_input_tensor_by_name(request, "max_tokens")
            time.sleep(PREFILL_S)
            for n in range(8 if wanted is None else int(wanted.as_numpy().ravel()[0])):
                if request.is_cancelled():
                    break
                text = np.array([f"token {n} ".encode()], dtype=object)
                sender.send(backend.InferenceResponse([backend.Tensor("text_output", text)]))
                time.sleep(GAP_S)
            sender.send(flags=backend.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
