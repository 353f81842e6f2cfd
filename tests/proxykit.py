"""Real proxies for the tests: tinyproxy, squid, nginx with TLS, and one of the tests' own that cuts."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tests.chaos.machine import cannot
from tests.processes import free_ports, until

USER, PASSWORD = "field", "s3cret42"
"""Credentials that each of them takes."""

ENCODED = "field:s3cr%65t42"
"""The same as a url may have them."""


def program(name: str) -> str:
    """Where a program is; skips the test, or fails it in CI, if it is not installed."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        cannot(f"{name} is not installed; see tests/bridge/prepare")
    return found


def listens(host: str, port: int, prefix: tuple[str, ...] = ()) -> bool:
    """Whether something answers there."""
    if prefix:
        return not subprocess.run(
            [*prefix, "bash", "-c", f"exec 3<>/dev/tcp/{host}/{port}"], capture_output=True, check=False
        ).returncode
    with suppress(OSError), socket.create_connection((host, port), 1):
        return True
    return False


@contextmanager
def running(
    command: list[str], folder: Path, host: str, port: int, prefix: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that listens at `port`, ended with the block."""
    log = folder / f"{Path(command[0]).name}-{port}.log"
    with log.open("wb") as out:
        process = subprocess.Popen([*prefix, *command], stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        until(lambda: listens(host, port, prefix) or process.poll() is not None, f"{command[0]} listens")
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def tinyproxy(
    folder: Path, *, credentials: bool = False, host: str = "127.0.0.1", prefix: tuple[str, ...] = ()
) -> Iterator[str]:
    """A tinyproxy; its url, without credentials."""
    (port,) = free_ports(1)
    conf = folder / f"tinyproxy-{port}.conf"
    auth = f"BasicAuth {USER} {PASSWORD}\n" if credentials else ""
    conf.write_text(f"Port {port}\nListen {host}\nTimeout 600\nMaxClients 100\nLogLevel Info\n{auth}")
    command = [program("tinyproxy"), "-d", "-c", str(conf)]
    with running(command, folder, host, port, prefix):
        yield f"http://{host}:{port}"


@contextmanager
def squid(folder: Path, *, credentials: bool = False) -> Iterator[str]:
    """A squid; its url, without credentials."""
    (port,) = free_ports(1)
    lines = [
        f"http_port 127.0.0.1:{port}",
        "pid_filename none",
        "access_log none",
        "cache_log /dev/stderr",
        "netdb_filename none",
        "cache deny all",
        "coredump_dir none",
        "pinger_enable off",
        "shutdown_lifetime 0 seconds",
        "visible_hostname squid.test",
    ]
    if credentials:
        crypted = subprocess.run(
            [program("openssl"), "passwd", "-apr1", "-stdin"],
            input=PASSWORD,
            capture_output=True,
            text=True,
            check=True,
        )
        users = folder / f"users-{port}"
        users.write_text(f"{USER}:{crypted.stdout.strip()}\n")
        users.chmod(0o644)
        for each in (folder, *folder.parents):  # squid reads it as a user of its own
            with suppress(OSError):
                each.chmod(each.stat().st_mode | 0o011)
        lines += [
            f"auth_param basic program /usr/lib/squid/basic_ncsa_auth {users}",
            "auth_param basic children 1",
            "acl known proxy_auth REQUIRED",
            "http_access allow known",
        ]
    else:
        lines.append("http_access allow all")
    conf = folder / f"squid-{port}.conf"
    conf.write_text("\n".join([*lines, "http_access deny all", ""]))
    with running([program("squid"), "-N", "-f", str(conf)], folder, "127.0.0.1", port):
        yield f"http://127.0.0.1:{port}"


class Certificates(NamedTuple):
    """Who signs, and a certificate with its key for a server and for a client."""

    ca: str
    server: str
    server_key: str
    client: str
    client_key: str


def certificates(folder: Path) -> Certificates:
    """Make an authority, and a certificate of it for 127.0.0.1 and one for a device."""
    openssl = program("openssl")

    def call(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], check=True, capture_output=True, cwd=folder)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    call("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=lab")
    for name in ("server", "client"):
        call("req", *new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / f"{name}.ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        call(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.pem"),
        )
    names = ("ca.pem", "server.pem", "server.key", "client.pem", "client.key")
    return Certificates(*(str(folder / name) for name in names))


@contextmanager
def nginx(folder: Path, bridge: str, files: Certificates, *, ask: bool = False) -> Iterator[str]:
    """An nginx with TLS that serves the bridge at host and port `bridge` below /lab; its wss:// url.

    `ask`: it wants a certificate of the client.
    """
    (port,) = free_ports(1)
    verify = f"ssl_verify_client on; ssl_client_certificate {files.ca};" if ask else ""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temp = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    conf = folder / f"nginx-{port}.conf"
    conf.write_text(
        f"""daemon off; master_process off; pid {folder}/nginx-{port}.pid; error_log stderr;
events {{}}
http {{
    access_log off; {temp}
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {files.server}; ssl_certificate_key {files.server_key}; {verify}
        location /lab/ {{
            proxy_pass http://{bridge}/; proxy_http_version 1.1; proxy_read_timeout 60s;
            proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
            proxy_set_header Host $host;
        }}
    }}
}}
"""
    )
    with running([program("nginx"), "-c", str(conf), "-p", str(folder)], folder, "127.0.0.1", port):
        yield f"wss://127.0.0.1:{port}/lab"


class Cutter:
    """A TCP proxy on loopback that passes on to `to`, and cuts all of its connections when told to."""

    def __init__(self, to: tuple[str, int]) -> None:
        self._to = to
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cutter")
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server
        self.cuts = 0
        """Connections that were cut."""

    def open(self) -> int:
        """Begin; return the port."""
        self._thread.start()

        async def begin() -> int:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            return int(self._server.sockets[0].getsockname()[1])

        return asyncio.run_coroutine_threadsafe(begin(), self._loop).result(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(*self._to)
        both = {writer, there[1]}
        self._writers |= both

        async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            for each in both:
                each.close()
            self._writers.difference_update(both)

        for source, sink in ((reader, there[1]), (there[0], writer)):
            task = asyncio.create_task(pass_on(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def cut(self) -> None:
        """Cut all connections, without a word."""

        async def all_of_them() -> None:
            for writer in list(self._writers):
                transport = writer.transport
                assert isinstance(transport, asyncio.WriteTransport)
                transport.abort()
                self.cuts += 1

        asyncio.run_coroutine_threadsafe(all_of_them(), self._loop).result(10)

    def close_for_good(self) -> None:
        """Cut all connections, and take no more."""
        self._loop.call_soon_threadsafe(self._server.close)
        self.cut()

    def close(self) -> None:
        """End."""
        self.cut()

        async def end() -> None:
            self._server.close()
            if self._tasks:
                await asyncio.wait(list(self._tasks), timeout=5)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@contextmanager
def cutter(to: tuple[str, int]) -> Iterator[tuple[Cutter, int]]:
    """A running `Cutter`, and its port."""
    with ExitStack() as stack:
        made = Cutter(to)
        port = made.open()
        stack.callback(made.close)
        yield made, port
