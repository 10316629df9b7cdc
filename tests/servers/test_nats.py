"""nats-server as the tests run it."""

import socket

from tests.servers.nats import NatsOptions, nats_cluster, nats_server


def test_a_server_alone_does_jetstream_and_comes_back_after_a_kill() -> None:
    options = NatsOptions(sync_interval="always", max_payload=2 * 1024 * 1024)
    with nats_server(options) as server:
        for _ in range(2):
            said = server.ask("/varz")
            assert said["version"] == "2.14.9"
            assert said["port"] == server.port
            assert said["max_payload"] == 2 * 1024 * 1024
            assert said["jetstream"]["config"]["sync_always"]
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                assert client.recv(4096).startswith(b"INFO ")
            server.kill()
            server.restart()


def test_three_servers_are_a_cluster_and_go_on_without_one() -> None:
    with nats_cluster() as cluster:
        a, b, c = cluster.servers
        assert {
            server.ask("/jsz")["meta_cluster"]["cluster_size"] for server in (a, b, c)
        } == {3}
        for server in cluster.servers:
            server.kill()
        cluster.restart()
        assert all(server.process.running for server in cluster.servers)
        assert cluster.urls == [f"nats://{address}" for address in cluster.addresses]
