"""Runs in openpi-client's environment: openpi's server loop, with the real msgpack_numpy; prints its port."""

import numpy as np
from openpi_client import msgpack_numpy
from websockets.sync.server import serve


def talk(socket):
    packer = msgpack_numpy.Packer()
    socket.send(packer.pack({"reset_pose": np.zeros(6)}))
    for data in socket:
        message = msgpack_numpy.unpackb(data)
        actions = np.zeros((10, 7))
        actions[:, 0] = message["observation/image"].mean() / 10000
        actions[:, 6] = len(message["prompt"]) > 3
        socket.send(packer.pack({"actions": actions, "policy_timing": {"infer_ms": np.float64(1.0)}}))


with serve(talk, "127.0.0.1", 0, compression=None, max_size=None) as server:
    print(server.socket.getsockname()[1], flush=True)
    server.serve_forever()
