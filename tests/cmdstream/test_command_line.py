"""``python -m cmdstream`` against a server, and against what is none."""

import asyncio
import re
from pathlib import Path

import pytest
from tests.certificates import Authority, needs_openssl
from tests.cmdstream.helpers import (
    CODEC,
    GREETING,
    Held,
    RawPeer,
    RawServer,
    answer,
    run,
    serving,
)

from cmdstream import Server, ServerOptions, ServerTls
from cmdstream.command_line import main

ADD, ECHO, RANGE, FAIL, SLEEP = map(str, range(5))
"""The tags of the commands in `helpers.COMMANDS`."""

Printed = pytest.CaptureFixture[str]


async def ask(*arguments: str) -> int:
    """Run the command beside the server: it has a loop of its own."""
    return await asyncio.to_thread(main, arguments)


def at(port: int) -> str:
    return f"127.0.0.1:{port}"


def test_info_prints_what_the_server_announces(capsys: Printed) -> None:
    async def scenario() -> int:
        options = ServerOptions(server_info=b"orders-v3")
        async with serving(options=options) as (_, port):
            return await ask("info", at(port))

    assert run(scenario()) == 0
    assert " announces 'orders-v3' (9 bytes), " in capsys.readouterr().out


def test_info_shows_bytes_that_are_no_text(capsys: Printed) -> None:
    async def scenario(info: bytes) -> int:
        async with serving(options=ServerOptions(server_info=info)) as (_, port):
            return await ask("info", at(port))

    for info, shown in [
        (b"\xff\x01", "'ff01' (2"),
        (b"a\n", "'610a' (2"),
        (b"\0", "'00' (1"),
    ]:
        assert run(scenario(info)) == 0
        assert f" announces {shown} bytes), " in capsys.readouterr().out


def test_ping_times_each_round_trip(capsys: Printed) -> None:
    async def scenario() -> int:
        async with serving() as (_, port):
            return await ask("ping", at(port), "--count", "3", "--interval", "0")

    assert run(scenario()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [
        ["pong", f"{n}"] for n in (1, 2, 3)
    ]
    assert re.match(r"3 pings, 3 pongs: [\d.]+ / [\d.]+ / [\d.]+ ms \(least", lines[3])


def test_send_prints_the_result_and_the_number_of_its_type(capsys: Printed) -> None:
    async def scenario() -> int:
        async with serving() as (_, port):
            return await ask("send", at(port), ADD, '{"A": 2, "B": 3}')

    assert run(scenario()) == 0
    assert capsys.readouterr().out == "0 5\n"


@pytest.mark.parametrize("wait", [["--results", "3"], ["--until", "last"]])
def test_send_waits_for_as_many_results_as_it_is_told(
    capsys: Printed, wait: list[str]
) -> None:
    async def scenario() -> int:
        async with serving() as (_, port):
            return await ask("send", at(port), RANGE, '{"from":7,"count":3}', *wait)

    assert run(scenario()) == 0
    assert capsys.readouterr().out == (
        '2 {"value":7,"last":false}\n'
        '2 {"value":8,"last":false}\n'
        '2 {"value":9,"last":true}\n'
    )


def test_a_body_may_be_any_bytes(capsys: Printed) -> None:
    async def scenario() -> int:
        async with serving() as (_, port):
            return await ask("send", at(port), ECHO, "hex:226869 22")

    assert run(scenario()) == 0
    assert capsys.readouterr().out == '1 "hi"\n'


def test_a_unix_socket_is_named_by_its_path(capsys: Printed, tmp_path: Path) -> None:
    async def scenario() -> int:
        async with Server(CODEC, answer) as server:
            await server.listen_unix(f"{tmp_path}/s")
            return await ask("send", f"{tmp_path}/s", ADD, '{"A":1,"B":1}')

    assert run(scenario()) == 0
    assert capsys.readouterr().out == "0 2\n"


def test_another_server_than_expected_is_not_asked(capsys: Printed) -> None:
    async def scenario() -> int:
        async with serving() as (_, port):
            return await ask("send", at(port), ADD, "{}", "--server-info", "orders-v3")

    assert run(scenario()) == 1
    said = capsys.readouterr()
    assert not said.out
    assert "expected b'orders-v3', the server has b'default'" in said.err


def test_an_expected_server_is_asked(capsys: Printed) -> None:
    async def scenario() -> int:
        async with serving() as (_, port):
            return await ask(
                "ping", at(port), "--count", "1", "--server-info", "default"
            )

    assert run(scenario()) == 0
    assert "1 pings, 1 pongs" in capsys.readouterr().out


def test_nobody_there_is_said_in_a_line(capsys: Printed) -> None:
    async def scenario() -> tuple[int, int]:
        async with serving() as (_, port):
            pass
        return await ask("info", at(port)), port

    status, port = run(scenario())
    assert status == 1
    assert f"cannot connect to 127.0.0.1:{port}: " in capsys.readouterr().err


@pytest.mark.parametrize(("tag", "body"), [("9", "{}"), (ADD, "[]"), (FAIL, "{}")])
def test_a_server_that_hangs_up_is_said_to_have_its_reasons(
    capsys: Printed, tag: str, body: str
) -> None:
    def refuse(_received: object, _reply: object) -> None:
        raise LookupError("no such order")

    async def scenario() -> int:
        async with serving(refuse) as (_, port):
            return await ask("send", at(port), tag, body)

    assert run(scenario()) == 1
    said = capsys.readouterr().err
    assert "hung up: the peer closed the connection; the command may have run" in said
    assert "A server hangs up on a tag" in said


def test_no_answer_in_time_is_said_with_the_time(capsys: Printed) -> None:
    held = Held()

    async def scenario() -> int:
        async with serving(held) as (_, port):
            return await ask("send", at(port), ADD, "{}", "--timeout", "0.2")

    assert run(scenario()) == 1
    assert "in 0.2 s" in capsys.readouterr().err


def test_a_server_that_does_not_greet_is_given_up(capsys: Printed) -> None:
    async def silent(peer: RawPeer) -> None:
        await peer.rest()

    async def scenario() -> int:
        async with RawServer(silent) as server:
            return await ask("ping", at(server.port), "--timeout", "0.2")

    assert run(scenario()) == 1
    assert "sent no server info within 0.2 s" in capsys.readouterr().err


def test_what_is_no_result_ends_it(capsys: Printed) -> None:
    async def talk(peer: RawPeer) -> None:
        await peer.send(GREETING + b"\x01\x00\x81\x80\x80\x08")  # 16 MiB and a byte
        await peer.rest()

    async def scenario() -> int:
        async with RawServer(talk) as server:
            return await ask(
                "send", at(server.port), ADD, "{}", "--server-info", "default"
            )

    assert run(scenario()) == 1
    assert "announces 16777217 bytes" in capsys.readouterr().err


@pytest.fixture(name="authority", scope="module")
def make_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@needs_openssl
def test_tls_is_spoken_to_who_has_a_certificate_that_is_trusted(
    capsys: Printed, authority: Authority
) -> None:
    pair = authority.issue("server", usage="serverAuth")
    ca = ("--tls-ca", f"{authority.certificate}")

    async def scenario(*arguments: str) -> int:
        async with serving(tls=ServerTls(*pair)) as (_, port):
            return await ask("send", at(port), ADD, '{"A":2,"B":3}', *arguments)

    assert run(scenario(*ca)) == 0
    assert capsys.readouterr().out == "0 5\n"
    assert run(scenario(*ca, "--tls-server-name", "localhost")) == 0
    for untrusted, complaint in [
        (["--tls"], "certificate is refused: unable to get local issuer"),
        ([*ca, "--tls-server-name", "orders"], "refused: Hostname mismatch"),
        (["--timeout", "0.2"], "sent no server info"),  # without TLS
    ]:
        assert run(scenario(*untrusted)) == 1
        assert complaint in capsys.readouterr().err


@needs_openssl
def test_a_server_that_asks_for_a_certificate_is_shown_one(
    capsys: Printed, authority: Authority
) -> None:
    ours = authority.issue("client", usage="clientAuth")
    tls = ServerTls(
        *authority.issue("server", usage="serverAuth"), client_ca=authority.certificate
    )
    ca = ("--tls-ca", f"{authority.certificate}")
    shown = ("--tls-cert", f"{ours.certificate}", "--tls-key", f"{ours.key}")

    async def scenario(*arguments: str) -> int:
        async with serving(tls=tls) as (_, port):
            return await ask("info", at(port), *arguments)

    assert run(scenario(*ca, *shown)) == 0
    assert " announces 'default' (7 bytes), " in capsys.readouterr().out
    assert run(scenario(*ca)) == 1
    assert capsys.readouterr().err


@needs_openssl
def test_tls_to_a_path_needs_a_name(
    capsys: Printed, authority: Authority, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["info", f"{tmp_path}/s", "--tls-ca", f"{authority.certificate}"])
    assert ended.value.code == 2
    assert f"TLS at {tmp_path}/s needs --tls-server-name" in capsys.readouterr().err


@needs_openssl
@pytest.mark.parametrize(
    ("named", "complaint"),
    [
        (["--tls-ca", "nowhere.pem"], "authorities nowhere.pem can't be read: No such"),
        (["--tls-cert", "me.pem"], "a certificate and its key go together: no key"),
        (["--tls-key", "me.key"], "go together: no certificate"),
    ],
)
def test_a_file_that_can_not_be_used_is_told_before_anything_is_sent(
    capsys: Printed, named: list[str], complaint: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["info", "[::1]:1", *named])
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["info", "9000"], "'9000' is neither HOST:PORT nor the path of a socket"),
        (["info", "host:99999"], "'host:99999' is neither HOST:PORT"),
        (["info", ":9000"], "':9000' is neither HOST:PORT"),
        (["send", "[::1]:1", "0", "{A: 2}"], "the body '{A: 2}' can't be read: "),
        (["send", "[::1]:1", "0", "hex:0"], "the body 'hex:0' can't be read: "),
        (["send", "[::1]:1", "-1", "{}"], "'-1' is no whole number from 0 on"),
        (["ping", "[::1]:1", "--count", "0"], "'0' is no whole number from 1 on"),
        (["ping", "[::1]:1", "--interval", "-1"], "'-1' is no number of seconds"),
        (["info", "[::1]:1", "--timeout", "inf"], "'inf' is no number of seconds"),
        (["info", "[::1]:1", "--timeout", "soon"], "'soon' is no number of seconds"),
        (["ping", "[::1]:1", "--server-info", ""], "has 1 to 1024 bytes, this one 0"),
    ],
)
def test_a_slip_on_the_command_line_is_told_before_anything_is_sent(
    capsys: Printed, arguments: list[str], complaint: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err
