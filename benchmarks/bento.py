"""The peer: BentoML as its documentation shows it."""

from __future__ import annotations

import os

import bentoml
import numpy as np
import onnxruntime as ort


@bentoml.service(name="peer", workers=1)
class Peer:
    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["MODEL"], options)

    @bentoml.api
    def predict(self, inputs: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        feed = {"x": np.asarray(inputs, np.float32)}
        return self.session.run(["probabilities"], feed)[0]
