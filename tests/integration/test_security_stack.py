"""The embedded stack serves this machine's user: no page of the internet, no other account."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from bridge.local import Stack
from bridge.local.running import RunningStack

LINUX = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux' /proc")
PATHS = ["/rest/v1/processing_jobs", "/auth/v1/settings", "/realtime/v1/api/broadcast"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:54321", "127.0.0.1.evil.example", "localhost.evil"]
)
def test_a_name_that_was_pointed_here_is_refused(stack: RunningStack, path: str, host: str) -> None:
    """DNS rebinding: the page's own name resolves to 127.0.0.1, so that the browser sees one origin."""
    headers = {"Host": host, "apikey": stack.service_key}
    assert httpx.get(stack.url + path, headers=headers).status_code == 403


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://localhost.evil.example", "http://192.168.0.9", "http://["],
)
def test_a_page_of_the_internet_is_refused(stack: RunningStack, path: str, origin: str) -> None:
    headers = {"Origin": origin, "apikey": stack.service_key, "Access-Control-Request-Method": "POST"}
    for method in ("OPTIONS", "POST", "GET"):
        assert httpx.request(method, stack.url + path, headers=headers).status_code == 403


async def test_a_page_of_the_internet_opens_no_socket(stack: RunningStack) -> None:
    """Browsers ask nobody before they open a socket elsewhere."""
    address = f"{stack.url.replace('http', 'ws', 1)}/realtime/v1/websocket?apikey={stack.service_key}"
    with pytest.raises(InvalidStatus) as refused:
        await connect(address, origin="https://evil.example")  # type: ignore[arg-type]
    assert refused.value.response.status_code == 403
    async with connect(address, origin="http://localhost:3000"):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize(
    "host", ["localhost:54321", "127.0.0.1", "[::1]:5", "app.localhost", "host.docker.internal:5"]
)
def test_the_names_of_this_machine_are_served(stack: RunningStack, host: str) -> None:
    headers = {"Host": host, "apikey": stack.anon_key}
    assert httpx.get(f"{stack.url}/auth/v1/settings", headers=headers).status_code != 403


def test_data_logs_and_sockets_are_their_owners_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Stack.running(data_dir=data, keep=True) as running:
        control = Path(running.endpoints.control)
        private = [data / "redis", data / "postgres", Path(running.endpoints.logs), control, data / "lock"]
        for path in private:
            assert not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO), path
        for log in Path(running.endpoints.logs).iterdir():
            assert running.service_key not in log.read_text(errors="replace")
            assert running.jwt_secret not in log.read_text(errors="replace")


@LINUX
def test_no_key_stands_in_the_arguments_of_a_process(stack: RunningStack) -> None:
    """Every account of a machine reads them with `ps`."""
    ours = [
        Path(f"/proc/{pid}/cmdline").read_bytes().decode()
        for pid in (*_processes(stack), str(stack.endpoints.pid))
    ]
    assert ours
    for command in ours:
        for key in (stack.service_key, stack.secret_key, stack.jwt_secret):
            assert key not in command


@LINUX
def test_postgrest_listens_on_no_port(stack: RunningStack) -> None:
    """A page of the internet would reach it there, past the gateway's look at where the page is from."""
    [postgrest] = [pid for pid, command in _processes(stack).items() if command.startswith("postgrest")]
    listening = {
        line.split()[9]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()
        if line.split()[3] == "0A"
    }
    handles = {os.readlink(handle) for handle in Path(f"/proc/{postgrest}/fd").iterdir()}
    assert {f"socket:[{number}]" for number in listening} & handles == set()


def _processes(stack: RunningStack) -> dict[str, str]:
    """The names of the programs that the stack started, by process id."""
    pid = stack.endpoints.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {child: Path(f"/proc/{child}/comm").read_text().strip() for child in children}
