"""What kserve.InferenceRESTClient asks of a server; runs where only kserve is installed."""

from __future__ import annotations

import asyncio
import sys

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig


async def calls(url: str) -> int:
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    assert await client.is_server_live(url)
    assert await client.is_server_ready(url)
    assert await client.is_model_ready(url, "simple")
    passed = 3
    zero, one = np.arange(16, dtype=np.int32).reshape(1, 16), np.ones((1, 16), np.int32)
    for binary in (False, True):
        inputs = []
        for name, array in (("INPUT0", zero), ("INPUT1", one)):
            inputs.append(InferInput(name, [1, 16], "INT32"))
            inputs[-1].set_data_from_numpy(array, binary_data=binary)
        request = InferRequest(model_name="simple", infer_inputs=inputs)
        headers: dict[str, str] = {}
        answer = await client.infer(url, request, model_name="simple", response_headers=headers)
        outputs = {output.name: output.as_numpy() for output in answer.outputs}
        assert (outputs["OUTPUT0"] == zero + one).all()
        assert (outputs["OUTPUT1"] == zero - one).all()
        assert answer.model_name == "simple"
        assert headers["x-model-version"] == "1"
        passed += 1
    return passed


if __name__ == "__main__":
    print(f"{asyncio.run(calls(sys.argv[1]))} passed, 0 failed")
