"""REST with parts that are not ours: curl, and nginx with TLS in front."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bridgekit import Site, site
from tests.processes import free_ports, until

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
CURL = shutil.which("curl")

pytestmark = pytest.mark.skipif(not (NGINX and CURL), reason="machine: curl or nginx is not installed")


def curl(*arguments: str) -> tuple[int, str]:
    """Run curl; return the status and the body."""
    assert CURL is not None
    done = subprocess.run(
        [CURL, "-sS", "-m", "30", "-w", "\n%{http_code}", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def test_curl_as_the_documents_show_it(bridge: Site, root: str) -> None:
    url = f"{bridge.url}/{root}"
    client = bridge.client("pi1")
    client.register(f"{root}.ping", lambda text: {"value": text})
    status, body = curl("-X", "PUT", "-d", "9000", f"{url}/eth0/mtu/?tega_id=ann&message=jumbo%20frames")
    assert status == 200 and json.loads(body)["versions"] == {root: 0}
    assert curl(f"{url}/eth0/") == (200, '{"mtu":9000}')
    status, body = curl("-X", "POST", f"{bridge.url}/_rpc?path={root}.ping", "-d", '{"args": ["hello"]}')
    assert (status, json.loads(body)) == (200, {"result": {"value": "hello"}})
    status, body = curl(f"{bridge.url}/_log?path={root}&limit=3")
    assert [(each["tega_id"], each["message"]) for each in json.loads(body)] == [("ann", "jumbo frames")]
    large = bridge.folder / "large.json"
    large.write_text(json.dumps({f"k{n}": "x" * 1000 for n in range(900)}))
    # As curl does by itself with a body of 1 MB or more.
    assert (
        curl("-X", "PUT", "--data-binary", f"@{large}", "-H", "Expect: 100-continue", f"{url}/large/")[0]
        == 200
    )
    status, body = curl("--compressed", f"{url}/large/")
    assert status == 200 and json.loads(body) == json.loads(large.read_text())
    assert curl("-I", f"{url}/large/")[0] == 200
    assert curl("-f", f"{bridge.url}/_health")[0] == 200


@pytest.fixture
def in_front(tmp_path: Path) -> Iterator[tuple[Site, str, str]]:
    """A bridge behind nginx with TLS: the bridge, the url, and the certificate."""
    (port,) = free_ports(1)
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ),
            *("-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=gw.example.org"),
            *("-addext", "subjectAltName=DNS:gw.example.org"),
        ],
        check=True,
        capture_output=True,
    )
    with site(tmp_path, hosts="gw.example.org") as bridge:
        conf = tmp_path / "nginx.conf"
        conf.write_text(
            f"""daemon off; user root; pid {tmp_path}/nginx.pid; error_log {tmp_path}/nginx.log;
events {{}}
http {{
    access_log off; client_max_body_size 0;
    client_body_temp_path {tmp_path}/body; proxy_temp_path {tmp_path}/proxy;
    fastcgi_temp_path {tmp_path}/fastcgi; uwsgi_temp_path {tmp_path}/uwsgi; scgi_temp_path {tmp_path}/scgi;
    upstream bridge {{ server {bridge.address[0]}:{bridge.address[1]}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{port} ssl; ssl_certificate {cert}; ssl_certificate_key {key};
        location / {{
            proxy_pass http://bridge; proxy_http_version 1.1; proxy_set_header Host $host;
            proxy_set_header Connection "";
        }}
    }}
}}
"""
        )
        assert NGINX is not None
        nginx = subprocess.Popen([NGINX, "-c", str(conf), "-p", str(tmp_path)], stderr=subprocess.DEVNULL)
        try:
            arguments = ("--cacert", str(cert), "--connect-to", f"::127.0.0.1:{port}")
            url = f"https://gw.example.org:{port}"

            def up() -> bool:
                try:
                    return curl(*arguments, f"{url}/_health")[0] == 200
                except subprocess.CalledProcessError:
                    return False

            until(up, "nginx answers")
            yield bridge, url, " ".join(arguments)
        finally:
            nginx.terminate()
            nginx.wait(20)


def test_behind_a_reverse_proxy_with_tls(in_front: tuple[Site, str, str]) -> None:
    bridge, url, given = in_front
    arguments = given.split()
    value: dict[str, Any] = {f"k{n}": "x" * 100 for n in range(2000)}
    body = bridge.folder / "body.json"
    body.write_text(json.dumps(value))
    assert (
        curl(*arguments, "-X", "PUT", "--data-binary", f"@{body}", f"{url}/a/eth0.100/?tega_id=ann")[0] == 200
    )
    status, got = curl(*arguments, "--compressed", f"{url}/a/eth0.100")
    assert status == 200 and json.loads(got) == value
    status, got = curl(*arguments, "-H", "Host: evil.com", f"{url}/a")
    assert status == 403 and json.loads(got)["error"] == "Forbidden"
    status, _ = curl(*arguments, "-H", "Origin: https://gw.example.org", f"{url}/a")
    assert status == 200
    status, got = curl(*arguments, "-X", "DELETE", f"{url}/a/eth0.100?version=7")
    assert status == 409 and json.loads(got)["actual"] == 0
    assert bridge.ask("GET", "/_log?path=a").json[0]["tega_id"] == "ann"
