"""The floor: the least that can answer an Open Inference request. uvicorn, msgspec, ONNX Runtime.

No routing, no checks, no ids, no metrics, no monitoring: what is faster than this is luck.
"""

from __future__ import annotations

import gc
import os
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort


class Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Request(msgspec.Struct):
    inputs: list[Input]


options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(os.environ["MODEL"], options)
decode = msgspec.json.Decoder(Request).decode
encode = msgspec.json.Encoder().encode
names = [output.name for output in session.get_outputs()]
DATATYPES = {"int64": "INT64", "float32": "FP32"}
HEADERS = [(b"content-type", b"application/json")]


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        gc.collect()
        gc.freeze()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    if not body:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": b"{}"})
        return
    request = decode(body)
    feed = {i.name: np.array(i.data, np.float32).reshape(i.shape) for i in request.inputs}
    outputs = [
        {
            "name": name,
            "shape": value.shape,
            "datatype": DATATYPES[value.dtype.name],
            "data": value.ravel().tolist(),
        }
        for name, value in zip(names, session.run(None, feed), strict=True)
    ]
    content = encode({"model_name": "trees", "model_version": "1", "outputs": outputs})
    headers = [*HEADERS, (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})
