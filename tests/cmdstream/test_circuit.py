"""The circuit breaker as a hook."""

import asyncio

import pytest
from tests.cmdstream.helpers import (
    CODEC,
    EchoCmd,
    EchoResult,
    Held,
    let_time_pass,
    run,
    serving,
)

from cmdstream import (
    BreakerOptions,
    Circuit,
    CircuitOpenError,
    Client,
    ClientOptions,
    ConnectionClosedError,
    EncodeError,
    ReconnectOptions,
    SendTimeoutError,
)

OPTIONS = BreakerOptions(
    calls_min=2, failure_rate=1.0, open_first_s=3.0, trials_max=2, trials_to_close=2
)
AT_ONCE = ClientOptions(reconnect=ReconnectOptions(random=lambda: 0.0))


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Peer:
    """A client with a circuit, and a server whose every answer is the test's."""

    def __init__(self, client: Client, circuit: Circuit, held: Held) -> None:
        self.client = client
        self.circuit = circuit
        self.held = held

    def spawn(self) -> "asyncio.Task[object]":
        work = self.client.send(EchoCmd("x"), timeout_s=5.0)
        return asyncio.get_running_loop().create_task(work)

    async def succeed(self) -> None:
        asked = self.spawn()
        (await self.held.reply()).send_nowait(EchoResult("x"))
        assert await asked == "x"

    async def lose(self) -> None:
        asked = self.spawn()
        (await self.held.reply()).fail("for the test")
        with pytest.raises(ConnectionClosedError):
            await asked

    async def time_out(self) -> None:
        asked = self.spawn()
        await self.held.reply()
        let_time_pass(5.0)
        with pytest.raises(SendTimeoutError):
            await asked

    async def cancel(self) -> None:
        asked = self.spawn()
        await self.held.reply()
        asked.cancel()
        await asyncio.wait([asked])

    async def refuse(self) -> CircuitOpenError:
        with pytest.raises(CircuitOpenError) as caught:
            await self.client.send(EchoCmd("x"))
        assert self.held.arrived.empty()
        return caught.value

    @property
    def counts(self) -> tuple[str, int, int]:
        seen = self.circuit.health()
        return seen.state.value, seen.calls, seen.failures


def test_lost_connections_and_time_outs_open_it_and_nothing_is_sent() -> None:
    """W-D2: in Go a lost connection is a success."""

    async def main() -> None:
        clock, held = Clock(), Held()
        circuit = Circuit(OPTIONS, clock=clock)
        async with serving(held) as (_, port):
            client = await Client.connect(
                "127.0.0.1", port, CODEC, options=AT_ONCE, hooks=[circuit]
            )
            peer = Peer(client, circuit, held)
            await peer.lose()
            assert peer.counts == ("closed", 1, 1)
            await peer.time_out()
            assert peer.counts == ("open", 2, 2)
            clock.now_s = 1.0
            refused = await peer.refuse()
            assert "EchoCmd was not sent, the circuit is open: EchoCmd has no" in str(
                refused
            )
            assert refused.retry_after_s == 2.0
            await client.aclose()

    run(main())


def test_half_open_lets_only_its_trials_through_and_their_success_closes_it() -> None:
    """W-D10: in Go everything is let through."""

    async def main() -> None:
        clock, held = Clock(), Held()
        circuit = Circuit(OPTIONS, clock=clock)
        async with serving(held) as (_, port):
            client = await Client.connect(
                "127.0.0.1", port, CODEC, options=AT_ONCE, hooks=[circuit]
            )
            peer = Peer(client, circuit, held)
            await peer.lose()
            await peer.lose()
            clock.now_s = 3.0
            trials = [peer.spawn(), peer.spawn()]
            replies = [await held.reply(), await held.reply()]
            refused = await peer.refuse()
            assert "the circuit is half-open" in str(refused)
            assert refused.retry_after_s == 0
            for reply in replies:
                reply.send_nowait(EchoResult("x"))
            for trial in trials:
                assert await trial == "x"
            assert peer.counts[0] == "closed"
            await peer.succeed()
            await client.aclose()

    run(main())


def test_what_says_nothing_about_the_server_counts_for_nothing() -> None:
    async def main() -> None:
        held = Held()
        circuit = Circuit(OPTIONS)
        other = Circuit(OPTIONS)
        async with serving(held) as (_, port):
            client = await Client.connect(
                "127.0.0.1", port, CODEC, options=AT_ONCE, hooks=[circuit, other]
            )
            peer = Peer(client, circuit, held)
            await peer.cancel()
            with pytest.raises(EncodeError):
                await client.send(object())
            assert peer.counts == ("closed", 0, 0)
            await peer.succeed()
            await peer.lose()
            assert peer.counts == ("closed", 2, 1)
            await client.aclose()

    run(main())


def test_another_circuits_veto_is_no_failure_of_this_one() -> None:
    async def main() -> None:
        held = Held()
        outer, inner = Circuit(), Circuit(OPTIONS)
        async with serving(held) as (_, port):
            client = await Client.connect(
                "127.0.0.1", port, CODEC, options=AT_ONCE, hooks=[outer, inner]
            )
            peer = Peer(client, outer, held)
            await peer.lose()
            await peer.lose()
            await peer.refuse()
            assert peer.counts == ("closed", 2, 2)
            inner.reset()
            await peer.succeed()
            await client.aclose()

    run(main())
