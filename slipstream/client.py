"""A client in Python: predict, and send back the truth.

>>> client = Client("http://127.0.0.1:3000")
>>> answer = client.predict("flights-delay", {"temp": [[38.0]]})
>>> client.feedback("flights-delay", answer.prediction_id, label=1)
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import httpx
import msgspec
import numpy as np

from models.signature import DATATYPE_OF, NUMPY, Array


class Refused(Exception):
    """The gateway answered with an error; its sentence is the message."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Prediction(NamedTuple):
    """An answer: outputs by name, and who gave them."""

    outputs: dict[str, Array]
    prediction_id: str
    version: int
    role: str


class Client:
    """Talks to one gateway over a kept connection."""

    def __init__(self, url: str, timeout: float = 30) -> None:
        self._http = httpx.Client(base_url=url, timeout=timeout)

    def predict(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        version: int | str | None = None,
        event_time: datetime | None = None,
    ) -> Prediction:
        """Predict from arrays, or from what numpy makes arrays of. Raises Refused."""
        body, length = encode({name: _array(value) for name, value in inputs.items()})
        headers = {"inference-header-content-length": str(length)}
        if event_time is not None:
            headers["x-event-time"] = event_time.isoformat()
        at = f"/versions/{version}" if version is not None else ""
        answer = self._http.post(f"/v2/models/{model}{at}/infer", content=body, headers=headers)
        _check(answer)
        return Prediction(
            decode(answer.content, int(answer.headers["inference-header-content-length"])),
            answer.headers["x-prediction-id"],
            int(answer.headers["x-model-version"]),
            answer.headers["x-model-role"],
        )

    def feedback(
        self, model: str, prediction_id: str, label: str | int | float | bool, row: int = 0
    ) -> None:
        """Tell what turned out to be true. Raises Refused."""
        item = {"prediction_id": prediction_id, "row": row, "label": label}
        answer = self._http.post(f"/v2/models/{model}/feedback", json={"feedback": [item]})
        _check(answer)
        rejected = answer.json()["rejected"]
        if rejected:
            raise Refused(400, rejected[0]["error"])

    def close(self) -> None:
        self._http.close()


def _check(answer: httpx.Response) -> None:
    if answer.status_code != 200:
        raise Refused(answer.status_code, answer.json().get("error", answer.text))


def _array(value: Any) -> Array:
    """Arrays as they are; Python's floats as FP32, which most models take."""
    array = np.asarray(value)
    if array.dtype.kind in "US":
        return array.astype(object)
    loose = not isinstance(value, np.ndarray) and array.dtype == np.float64
    return array.astype(np.float32) if loose else array


def encode(inputs: Mapping[str, Array]) -> tuple[bytes, int]:
    """A binary infer request: its body, and the length of the JSON part."""
    blobs: list[bytes] = []
    described: list[dict[str, Any]] = []
    for name, array in inputs.items():
        blobs.append(_strings(array.ravel().tolist()) if array.dtype == object else array.tobytes())
        described.append(
            {
                "name": name,
                "shape": array.shape,
                "datatype": DATATYPE_OF[array.dtype],
                "parameters": {"binary_data_size": len(blobs[-1])},
            }
        )
    head = {"inputs": described, "parameters": {"binary_data_output": True}}
    header = msgspec.json.encode(head)
    return b"".join((header, *blobs)), len(header)


def _strings(values: Sequence[str]) -> bytes:
    parts: list[bytes] = []
    for value in values:
        data = str(value).encode()
        parts += (struct.pack("<I", len(data)), data)
    return b"".join(parts)


def decode(body: bytes, header_length: int) -> dict[str, Array]:
    """The outputs of a binary answer."""
    head, at = msgspec.json.decode(body[:header_length]), header_length
    outputs: dict[str, Array] = {}
    for output in head["outputs"]:
        size = output["parameters"]["binary_data_size"]
        data, at = body[at : at + size], at + size
        if output["datatype"] == "BYTES":
            flat: Array = np.array(_texts(data), dtype=object)
        else:
            flat = np.frombuffer(data, NUMPY[output["datatype"]])
        outputs[output["name"]] = flat.reshape(output["shape"])
    return outputs


def _texts(data: bytes) -> list[str]:
    values, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        values.append(data[at + 4 : at + 4 + length].decode())
        at += 4 + length
    return values
