"""The client process for Restate: closed-loop load on its HTTP ingress."""

import aiohttp

from bench.load import Load, Measured, closed_loop


async def drive_restate(load: Load) -> Measured:
    """Keep ``load.in_flight`` requests going, on connections that are kept."""
    url = f"http://127.0.0.1:{load.port}/Bench/three_steps"
    connector = aiohttp.TCPConnector(limit=load.in_flight)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def send(number: int) -> None:
            async with session.post(url, json=number) as response:
                answer = await response.json()
                assert answer == number, (response.status, answer)

        return await closed_loop(send, load.in_flight, load.seconds)
