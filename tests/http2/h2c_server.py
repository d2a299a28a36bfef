"""A tiny HTTP/2 server over RecordingConnection, for h2spec: `python -m tests.http2.h2c_server PORT`.

Answers each request with a body of 512 octets once it is whole.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop

from pygw.http2.connection_options import ConnectionOptions
from pygw.http2.recording_connection import RecordingConnection

BODY = b"pygw " * 102 + b"."


class Server(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.connection = RecordingConnection(ConnectionOptions(max_concurrent_streams=100))
        self.connection.auto_credit = True
        self.connection.begin()

    def data_received(self, data: bytes) -> None:
        self.connection.feed(data)
        for event in self.connection.take_events():
            if (
                (event[0] in ("request", "data") and event[3]) or event[0] == "trailers"
            ) and self.connection.is_open(event[1]):
                self.answer(event[1])
        self.transport.write(self.connection.output())
        if self.connection.failed:
            self.transport.close()

    def answer(self, stream_id: int) -> None:
        length = str(len(BODY)).encode()
        self.connection.send_headers(stream_id, [(b":status", b"200"), (b"content-length", length)])
        self.connection.send(stream_id, BODY, True)

    def connection_lost(self, error: Exception | None) -> None:
        self.connection.lose()


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
