"""The page stands what Glances, a monitor with a web page, fell to in 2026: each CVE of that year as an attack on ours.

The numbers are those of the GitHub advisories of `nicolargo/glances` up to version 4.5.6. Where nicety has nothing of the kind (no
exporter, no shell, no remote servers) the test holds it to that, in the code of the page and of what it imports.
"""

from __future__ import annotations

import ast
import importlib
import os
import pickle
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from nicety.scheduler.config.paths import Paths
from nicety.scheduler.config.sections import Config, parse
from nicety.scheduler.testing.past import SECOND, write_past, write_traces
from nicety.scheduler.views.source import FrameSource
from nicety.scheduler.views.web.app import make_app
from nicety.scheduler.views.web.archive import Archive
from nicety.scheduler.views.web.guard import Guard, read_token
from nicety.scheduler.views.web.live import Live
from nicety.scheduler.views.web.serve import ListenError, listen

ROOT = Path(__file__).parents[4]
structure: Any = importlib.import_module("benchmarks.house.structure")
END = 1_790_000_000 * SECOND
TOKEN = "t" * 43
READERS = ("/", "/page.js", "/page.css", "/api/series", "/api/target", "/api/moment", "/api/why", "/api/live")
INJECTION = "x'); DROP TABLE names; --"
SHELL = "a && touch /tmp/owned | cat > /tmp/owned; `id` $(id)"
MARKUP = "<img src=x onerror=alert(1)>"
HOSTILE = (INJECTION, SHELL, MARKUP, "{{name}}", "../../../etc/passwd")
SECRET = "s3cret-of-the-configuration"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A state directory with a past of hostile names."""
    root = tmp_path / "state"
    write_past(root, end=END, ticks=80, names=HOSTILE)
    write_traces(root, end=END, ticks=5, names=HOSTILE)
    return Paths(root, root / "control.sock")


def app_of(paths: Paths, config: Config) -> Guard:
    def wall() -> float:
        return END / SECOND

    archive = Archive(paths, config, paths.root / "kept.db", wall)
    return make_app(Live(FrameSource([paths.root / "frame"]), wall), archive, TOKEN)


@pytest.fixture
def client(paths: Paths) -> Iterator[TestClient]:
    """A browser that is signed in."""
    config = parse(f'[pools.web]\nkind = "command"\ncommand = ["serve", "--password={SECRET}"]\n', "nicety.toml")
    with TestClient(app_of(paths, config), "http://localhost", follow_redirects=False) as client:
        client.cookies.update(client.get(f"/?token={TOKEN}").cookies)
        yield client


def series(client: TestClient) -> dict[str, Any]:
    answer = client.get("/api/series", params={"since": END / SECOND - 60, "until": END / SECOND})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def everything(client: TestClient) -> str:
    """All that the page is sent."""
    at = END / SECOND
    decision = client.get("/api/moment", params={"at": at}).json()["decisions"][0]["id"]
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/api/series", {"since": at - 60, "until": at}),
        ("/api/target", {"since": at - 60, "until": at, "kind": "group", "name": MARKUP}),
        ("/api/moment", {"at": at}),
        ("/api/why", {"id": decision}),
        *((path, {}) for path in ("/", "/page.js", "/page.css", "/icon.svg")),
    ]
    answers = [client.get(path, params=values) for path, values in asked]
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    return "\n".join(answer.text for answer in answers)


def sources() -> dict[str, ast.Module]:
    """The modules of the page."""
    found = {path.name: ast.parse(path.read_text()) for path in (ROOT / "scheduler" / "views" / "web").glob("*.py")}
    assert len(found) > 6, "found nothing to check"
    return found


def imported() -> set[str]:
    """Packages that the modules of the page import themselves."""
    found = set()
    for tree in sources().values():
        for each in ast.walk(tree):
            if isinstance(each, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in each.names}
            elif isinstance(each, ast.ImportFrom) and not each.level:
                found.add((each.module or "").partition(".")[0])
    assert "starlette" in found
    return found


def assert_nothing_can_be_started() -> None:
    """The page has no shell and starts no program, whatever a name or the configuration has in it."""
    assert not imported() & {"subprocess", "pty", "multiprocessing", "shlex", "ctypes"}
    called = {
        f"{each.value.id}.{each.attr}"
        for tree in sources().values()
        for each in ast.walk(tree)
        if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name)
    }
    assert not called & {
        "os.system",
        "os.popen",
        "os.execv",
        "os.execve",
        "os.spawnv",
        "os.posix_spawn",
        "asyncio.create_subprocess_exec",
    }


def assert_names_are_data(client: TestClient) -> None:
    """Hostile names come back as they are, and what they would have broken still works."""
    found = {group["name"] for group in series(client)["groups"]}
    assert set(HOSTILE) <= found
    assert set(HOSTILE) <= {group["name"] for group in series(client)["groups"]}


def assert_other_sites_read_nothing(client: TestClient, **headers: str) -> None:
    """No answer allows another origin, to the page and to its preflight."""
    for path in READERS[:-1]:
        for method in ("GET", "OPTIONS", "POST"):
            answer = client.request(method, path, headers={"Origin": "https://evil.example", **headers})
            allowed = [name for name in answer.headers if name.startswith("access-control-")]
            assert allowed == [], (method, path)
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def assert_secrets_stay(client: TestClient) -> None:
    """Neither the configuration nor the token is in anything that is sent, and no address gives them."""
    said = everything(client)
    assert SECRET not in said
    assert TOKEN not in said
    for path in ("/api/config", "/api/args", "/config", "/api/4/config", "/api/4/args", "/api/4/serverslist", "/api/4/all"):
        assert client.get(path).status_code == 404


# --- secrets ------------------------------------------------------------------------------------------------------------------


def test_cve_2026_30928_the_configuration_is_served_to_nobody(client: TestClient) -> None:
    assert_secrets_stay(client)


def test_cve_2026_32609_nor_are_the_arguments(client: TestClient) -> None:
    assert_secrets_stay(client)
    assert client.get("/api/args/password").status_code == 404


def test_cve_2026_32633_nor_credentials_of_other_servers(client: TestClient) -> None:
    assert_secrets_stay(client)
    assert "://" not in client.get("/api/series", params={"since": END / SECOND - 60, "until": END / SECOND}).text


def test_cve_2026_68520_nor_credentials_within_a_value(paths: Paths) -> None:
    config = parse(f'[pools.web]\nkind = "command"\ncommand = ["serve", "https://me:{SECRET}@example"]\n', "nicety.toml")
    with TestClient(app_of(paths, config), "http://localhost") as client:
        client.get(f"/?token={TOKEN}")
        assert_secrets_stay(client)


# --- who may read -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*READERS, "/docs", "/openapi.json", "//", "/status", "/api/../page.js", "/%2e%2e/api/series"])
def test_cve_2026_32596_nothing_is_served_without_the_token(client: TestClient, path: str) -> None:
    client.cookies.clear()
    for query in ("", "?token=", f"?token={TOKEN[:-1]}", f"?token={TOKEN}x", "?token=%00", "?token=%ff"):
        assert client.get(f"{path}{query}").status_code == 401
    for cookie in ("", "x", f"nicety={TOKEN}", "; ;=", '"' * 40):
        assert client.get(path, headers={"Cookie": cookie}).status_code == 401
    assert client.get(path, headers={"Authorization": "Basic Z2xhbmNlczpnbGFuY2Vz"}).status_code == 401


def test_cve_2026_32596_other_machines_cannot_connect() -> None:
    for address in ("0.0.0.0", "::", "192.0.2.1", "example"):
        with pytest.raises(ListenError, match=r"ssh -L|write 127"):
            listen(address, 0)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8787", "127.0.0.1.evil.example", "localhost.evil", "", "10.0.0.1", "[::2]"]
)
def test_cve_2026_32632_a_name_bound_to_this_machine_reads_nothing(client: TestClient, host: str) -> None:
    for path in READERS:
        answer = client.get(path, headers={"Host": host})
        assert answer.status_code == 421
        assert "groups" not in answer.text


def test_cve_2026_46611_nor_on_any_other_way_in(client: TestClient) -> None:
    for path in ("/RPC2", "/mcp", "/api/live", f"/?token={TOKEN}"):
        for method in ("GET", "POST", "HEAD"):
            assert client.request(method, path, headers={"Host": "rebound.example"}).status_code == 421
    answer = client.get("/", headers=[("Host", "localhost"), ("Host", "rebound.example")])
    assert answer.status_code == 421
    assert client.get("/", headers={"X-Forwarded-Host": "rebound.example"}).status_code == 200  # it decides nothing


def test_cve_2026_32610_another_site_gets_no_credentials(client: TestClient) -> None:
    assert_other_sites_read_nothing(client)
    client.cookies.clear()
    cookie = client.get(f"/?token={TOKEN}").headers["set-cookie"].lower()
    assert "samesite=strict" in cookie
    assert "httponly" in cookie


def test_cve_2026_34839_nor_does_it_read_what_needs_none(client: TestClient) -> None:
    assert_other_sites_read_nothing(client, **{"Sec-Fetch-Site": "cross-site"})
    for path in READERS[1:]:
        assert client.get(path, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_cve_2026_33533_a_simple_request_of_another_site_does_nothing(client: TestClient) -> None:
    for path in ("/RPC2", *READERS):
        answer = client.post(
            path, content="<methodCall/>", headers={"Content-Type": "text/plain", "Origin": "https://evil.example"}
        )
        assert answer.status_code == 405
        assert "access-control-allow-origin" not in answer.headers


def test_cve_2026_46608_no_list_of_origins_falls_back_to_all(client: TestClient) -> None:
    for origin in ("null", "*", "http://localhost", "http://localhost.evil.example", "https://a,https://b"):
        assert_other_sites_read_nothing(client, Origin=origin)


def test_cve_2026_68517_nor_does_one_with_a_wildcard(paths: Paths) -> None:
    guard = Guard(app_of(paths, Config()), TOKEN, ["*", "trusted.example"])
    with TestClient(guard, "http://localhost") as client:
        assert client.get("/", headers={"Host": "evil.example"}).status_code == 421  # "*" is a name like others
        assert_other_sites_read_nothing(client)


# --- names that are commands --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number",
    ["CVE-2026-32608", "CVE-2026-62982", "CVE-2026-68518", "CVE-2026-46606"],
    ids=["cve_2026_32608_process_names", "cve_2026_62982_nested", "cve_2026_68518_across_fields", "cve_2026_46606_machine_names"],
)
def test_names_start_nothing(client: TestClient, number: str) -> None:
    assert_nothing_can_be_started()
    assert_names_are_data(client)
    moment = client.get("/api/moment", params={"at": END / SECOND}).json()
    assert {process["name"] for process in moment["processes"]} & set(HOSTILE)
    assert not Path("/tmp/owned").exists(), number


@pytest.mark.parametrize(
    "number",
    ["CVE-2026-33641", "CVE-2026-53925", "CVE-2026-68519"],
    ids=["cve_2026_33641_backticks", "cve_2026_53925_redirections", "cve_2026_68519_actions"],
)
def test_the_configuration_starts_nothing_in_the_page(paths: Paths, number: str) -> None:
    program = SHELL.replace('"', "")
    config = parse(f"[groups.x]\nprogram = '{program}'\nunit = '`touch /tmp/owned` > /tmp/owned'\n", number)
    with TestClient(app_of(paths, config), "http://localhost") as client:
        client.get(f"/?token={TOKEN}")
        assert_names_are_data(client)
    assert_nothing_can_be_started()
    assert not Path("/tmp/owned").exists()


# --- names that are queries ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number",
    ["CVE-2026-30930", "CVE-2026-32611", "CVE-2026-35588"],
    ids=["cve_2026_30930_values", "cve_2026_32611_definitions", "cve_2026_35588_identifiers"],
)
def test_names_are_no_part_of_a_query(client: TestClient, paths: Paths, number: str) -> None:
    at = END / SECOND
    for name in (INJECTION, "' OR '1'='1", '"; DROP TABLE buckets; --'):
        answer = client.get("/api/target", params={"since": at - 60, "until": at, "kind": "group", "name": name})
        assert answer.status_code == (200 if name in HOSTILE else 404), number
        for path in ("/api/why", "/api/target", "/api/moment", "/api/series"):
            assert client.get(path, params={"id": name, "kind": name, "at": name, "since": name, "until": name}).status_code == 400
    assert_names_are_data(client)
    texts = [
        each
        for tree in sources().values()
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "execute"
        for each in call.args[:1]
    ]
    assert len(texts) > 10, "found nothing to check"
    assert all(isinstance(each, ast.Constant) for each in texts)  # no query is put together


# --- requests and files -------------------------------------------------------------------------------------------------------


def test_cve_2026_35587_the_page_asks_no_other_machine() -> None:
    assert not imported() & {"urllib", "http.client", "requests", "httpx", "ftplib", "smtplib", "xmlrpc"}
    connecting = {
        name
        for name, tree in sources().items()
        for each in ast.walk(tree)
        if isinstance(each, ast.Attribute) and each.attr in ("connect", "create_connection", "open_connection")
    }
    assert connecting <= {"serve.py", "rollups.py"}  # its own unix socket, and SQLite


def test_cve_2026_32634_nor_looks_for_others_to_send_credentials_to(client: TestClient) -> None:
    assert not imported() & {"zeroconf", "socketserver", "asyncore"}
    assert "connect-src 'self'" in client.get("/").headers["content-security-policy"]


def test_cve_2026_46607_what_is_kept_is_never_a_program(paths: Paths) -> None:
    assert not imported() & {"pickle", "marshal", "shelve", "dill", "cloudpickle"}

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, ("touch /tmp/owned",)

    (paths.root / "kept.db").write_bytes(pickle.dumps(Bomb()))
    with TestClient(app_of(paths, Config()), "http://localhost") as client:
        client.get(f"/?token={TOKEN}")
        assert_names_are_data(client)
    assert not Path("/tmp/owned").exists()


# --- classes of attack without a number ---------------------------------------------------------------------------------------


def test_nothing_inline_runs_and_no_frame_holds_the_page(client: TestClient) -> None:
    policy = client.get("/").headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    body = client.get("/").text
    assert "<script>" not in body
    assert "style=" not in body
    script = (ROOT / "scheduler/views/web/page.js").read_text()
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "srcdoc"):
        assert way not in script


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_only_reading_is_possible(client: TestClient, method: str) -> None:
    for path in READERS:
        assert client.request(method, path).status_code == 405


@pytest.mark.parametrize(
    "path", ["/..%2f..%2fetc/passwd", "/page.js/../guard.py", "/%2e%2e/guard.py", "/guard.py", "//etc/passwd", "/page.js%00"]
)
def test_no_other_file_is_served(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "root:" not in answer.text


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e400", "9" * 400, "0x10", "", "1;2", "None"])
def test_a_number_that_is_none_is_refused(client: TestClient, value: str) -> None:
    answer = client.get("/api/series", params={"since": value, "until": END / SECOND})
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_a_question_cannot_be_made_dear(client: TestClient) -> None:
    assert client.get("/api/series", params={"since": 0, "until": 9e10}).status_code == 400
    assert client.get("/api/target", params={"name": "x" * 3000}).status_code == 414
    assert client.get("/" + "x" * 3000).status_code == 414


def test_a_session_is_not_chosen_by_somebody_else(client: TestClient) -> None:
    (name,) = client.cookies
    client.cookies.clear()
    client.cookies.set(name, "chosen-by-the-attacker")
    assert client.get("/").status_code == 401
    given = client.get(f"/?token={TOKEN}")
    assert given.status_code == 303
    assert given.headers["location"] == "/"
    assert "chosen-by-the-attacker" not in given.headers["set-cookie"]
    assert TOKEN not in given.headers["set-cookie"]


def test_the_token_is_for_its_owner_and_outlives_a_restart(tmp_path: Path) -> None:
    token = read_token(tmp_path)
    assert len(token) == 43
    assert stat.S_IMODE((tmp_path / "web-token").stat().st_mode) == 0o600
    assert read_token(tmp_path) == token
    assert read_token(tmp_path, new=True) != token
    (tmp_path / "web-token").write_text("short")
    assert len(read_token(tmp_path)) == 43
