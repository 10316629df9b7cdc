"""A port that leads to another one, and can be cut or fall silent.

What a server's own framework does not let one do to a connection is done between the
two: breaking it at any moment, leaving it open and carrying nothing, or refusing it for
a while on a port that nobody else is given meanwhile.
"""

import asyncio
import socket
from typing import Self

from tests.streams import Listener, with_streams

__all__ = ["Relay"]


class Relay:
    """Leads connections to `port` on to the port *upstream* of this machine."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.silent = False
        """Whether what arrives is thrown away, both ways."""
        self.accepted = 0
        self.answer_size_max: int | None = None
        """Bytes of answers that each connection carries before it is cut, from the next
        one on; None for no limit."""
        self.garbage = b""
        """What each connection carries instead of the rest, before it is cut."""
        self.answer_size = 0
        """Bytes of answers that were carried under such a limit."""
        # Bound, and not listened on: while nobody listens nobody else gets the port.
        self._keeper = socket.socket()
        self._keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._keeper.bind(("127.0.0.1", 0))
        self.port: int = self._keeper.getsockname()[1]
        self._listener = Listener(with_streams(self._serve))
        self._stopped = True
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        self._keeper.close()

    async def start(self) -> None:
        """Take connections."""
        self._stopped = False
        self._listener.listen(socket.create_server(("127.0.0.1", self.port)))

    async def stop(self) -> None:
        """Cut all connections and refuse new ones."""
        self._stopped = True
        self._listener.close()
        self.cut()
        await self._listener.wait_idle()

    def cut(self) -> None:
        """Break all connections at once, with a reset."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.accepted += 1
        ends = {writer}
        self._writers |= ends
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.upstream)
            ends.add(back)
            self._writers |= ends
            if self._stopped:  # while the client came, or the way on was made
                self.cut()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, back))
                group.create_task(self._answer(there, writer))
        except OSError:  # nobody is there, so nobody is here
            writer.transport.abort()
        finally:
            self._writers -= ends

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Carry one direction until either side ends it."""
        try:
            while data := await reader.read(65_536):
                if not self.silent:
                    writer.write(data)
                    await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Carry what is answered, or as much of it as is wanted."""
        left = self.answer_size_max
        if left is None:
            await self._pump(reader, writer)
            return
        try:
            while left and (data := await reader.read(left)):
                writer.write(data)
                left -= len(data)
                self.answer_size += len(data)
            writer.write(self.garbage)
        except ConnectionError:
            pass
        finally:
            writer.close()  # not aborted: what was written is to arrive
