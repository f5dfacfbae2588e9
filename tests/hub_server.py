"""A small Hub on loopback: the parts of its HTTP interface that huggingface_hub and datasets use for datasets.

It stands for the far end only. Repositories are kept in memory, as commits of whole trees; large files by their
SHA-256. Faults can be ordered: a status, a connection that is cut before or after the server acted.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.http_server import Server

WRITER, READER = "hf_writer", "hf_reader"
_LARGE = (".parquet", ".png")
_REPO = r"(?P<kind>dataset|model|space)s/(?P<repo>[^/]+/[^/.][^/]*?)"


@dataclass
class Repo:
    private: bool
    commits: list[tuple[str, dict[str, bytes], str]] = field(default_factory=list)
    """Commit id, tree, title."""
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pulls: list[str] = field(default_factory=list)

    def add(self, tree: dict[str, bytes], title: str, branch: str) -> str:
        oid = hashlib.sha1(f"{len(self.commits)}{title}{sorted(tree)}".encode()).hexdigest()
        self.commits.append((oid, tree, title))
        self.branches[branch] = oid
        return oid

    def commit(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        return next(((o, tree) for o, tree, _ in self.commits if o == oid), None)


@dataclass
class Fault:
    pattern: str
    status: int | None
    """None cuts the connection."""
    times: int
    headers: dict[str, str]
    after: bool
    """Act first, then fail."""
    body: bytes = b'{"error": "as ordered"}'


class Hub:
    """The server and its state. ``log`` holds every request as "METHOD /path"."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.large: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.log: list[str] = []
        self.turn = threading.Lock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = Server(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def fail(
        self,
        pattern: str,
        status: int | None,
        *,
        times: int = 1,
        after: bool = False,
        body: bytes = Fault.body,
        **headers: str,
    ) -> None:
        """Let the next requests that match fail. Headers are given as ``retry_after="1"``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.faults.append(Fault(pattern, status, times, named, after, body))

    def dataset(self, repo_id: str) -> Repo:
        return self.repos["dataset", repo_id]

    def tree(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        found = self.dataset(repo_id).commit(revision)
        assert found is not None
        return found[1]

    def titles(self, repo_id: str) -> list[str]:
        return [title for _, _, title in self.dataset(repo_id).commits]

    def count(self, pattern: str) -> int:
        return sum(re.search(pattern, line) is not None for line in self.log)


class Refused(Exception):
    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    # ---- one request -------------------------------------------------------------------------------------

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length) if length else self._chunks()
        with self.hub.turn:  # a client uploads several files at once, and a fault is for so many of them
            self._act()

    def _act(self) -> None:
        parts = urlsplit(self.path)
        self.query = parse_qs(parts.query)
        line = f"{self.command} {unquote(parts.path)}"
        self.hub.log.append(line)
        fault = next((f for f in self.hub.faults if f.times > 0 and re.search(f.pattern, line)), None)
        if fault is not None:
            fault.times -= 1
            if not fault.after:
                return self._fail(fault)
        try:
            status, content, headers = self._route(line)
        except Refused as error:
            headers = {"X-Error-Message": error.message} | ({"X-Error-Code": error.code} if error.code else {})
            status, content = error.status, json.dumps({"error": error.message}).encode()
        if fault is not None:
            return self._fail(fault)
        self._send(status, content, headers)

    def _chunks(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return b""
        parts = []
        while size := int(self.rfile.readline().strip() or b"0", 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _fail(self, fault: Fault) -> None:
        if fault.status is None:
            self.close_connection = True
            self.connection.close()
        else:
            self._send(fault.status, fault.body, fault.headers)

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        try:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
        except OSError:
            self.close_connection = True

    def _route(self, line: str) -> tuple[int, bytes, dict[str, str]]:
        for pattern, act in _ROUTES:
            if found := re.fullmatch(pattern, line):
                result = act(self, **found.groupdict())
                if isinstance(result, tuple):
                    return result
                return 200, json.dumps(result).encode(), {"Content-Type": "application/json"}
        raise Refused(404, f"no such page: {line}")

    # ---- who may do what ---------------------------------------------------------------------------------

    def _token(self) -> str | None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        if given not in (None, WRITER, READER):
            raise Refused(401, "Invalid credentials in Authorization header")
        return given

    def _may_write(self) -> None:
        token = self._token()
        if token is None:
            raise Refused(401, "Invalid username or password.")
        if token != WRITER:
            raise Refused(403, "You don't have the rights to do that")

    def _repo(self, kind: str, repo: str) -> Repo:
        token = self._token()
        found = self.hub.repos.get((kind, repo))
        if found is None or (found.private and token is None):
            raise Refused(404 if token else 401, "Repository not found", "RepoNotFound")
        return found

    def _tree(self, kind: str, repo: str, revision: str) -> tuple[str, dict[str, bytes]]:
        found = self._repo(kind, repo).commit(revision)
        if found is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found

    # ---- pages -------------------------------------------------------------------------------------------

    def whoami(self) -> Any:
        if self._token() is None:
            raise Refused(401, "Invalid username or password.")
        return {"type": "user", "name": "me", "auth": {"accessToken": {"role": "write"}}}

    def create(self) -> Any:
        self._may_write()
        asked = json.loads(self.body)
        kind, repo = asked.get("type") or "model", f"{asked['organization']}/{asked['name']}"
        url = f"{self.hub.url}/{'' if kind == 'model' else kind + 's/'}{repo}"
        if (kind, repo) in self.hub.repos:
            return 409, json.dumps({"error": "You already created this repo", "url": url}).encode(), {}
        made = self.hub.repos[kind, repo] = Repo(asked.get("visibility") == "private")
        made.add({".gitattributes": b"*.parquet filter=lfs\n"}, "initial commit", "main")
        return {"url": url}

    def info(self, kind: str, repo: str, revision: str | None = None) -> Any:
        oid, tree = self._tree(kind, repo, revision or "main")
        found = self._repo(kind, repo)
        siblings = [{"rfilename": path} for path in tree]
        return {"id": repo, "sha": oid, "private": found.private, "siblings": siblings, "tags": [], "downloads": 0,
                "likes": 0, "gated": False, "disabled": False}  # fmt: skip

    def tree(self, kind: str, repo: str, revision: str, folder: str | None = None) -> Any:
        _, files = self._tree(kind, repo, revision)
        recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        prefix = f"{folder}/" if folder else ""
        inside = {path: data for path, data in files.items() if path.startswith(prefix)}
        if folder and not inside:
            raise Refused(404, f"{folder} does not exist", "EntryNotFound")
        folders = {"/".join(p.split("/")[:i]) for p in inside for i in range(1, p.count("/") + 1)} - {folder}
        entries = [_folder(f) for f in sorted(folders)] + [_file(p, d) for p, d in sorted(inside.items())]
        if not recursive:
            entries = [e for e in entries if "/" not in e["path"].removeprefix(prefix)]
        return entries

    def paths_info(self, kind: str, repo: str, revision: str) -> Any:
        _, files = self._tree(kind, repo, revision)
        if "json" in self.headers.get("Content-Type", ""):
            paths = json.loads(self.body)["paths"]
        else:
            paths = parse_qs(self.body.decode()).get("paths", [])
        found = []
        for path in [paths] if isinstance(paths, str) else paths:
            if path in files:
                found.append(_file(path, files[path]))
            elif any(name.startswith(f"{path}/") for name in files):
                found.append(_folder(path))
        return found

    def refs(self, kind: str, repo: str) -> Any:
        found = self._repo(kind, repo)

        def named(refs: dict[str, str], place: str) -> list[dict[str, str]]:
            return [{"name": n, "ref": f"refs/{place}/{n}", "targetCommit": oid} for n, oid in refs.items()]

        heads = {name: oid for name, oid in found.branches.items() if not name.startswith("refs/")}
        return {"branches": named(heads, "heads"), "tags": named(found.tags, "tags"), "converts": []}

    def validate_yaml(self) -> Any:
        import yaml

        content = json.loads(self.body)["content"]
        yaml.safe_load(content.split("---\n")[1])
        return {"errors": [], "warnings": []}

    def preupload(self, kind: str, repo: str, revision: str) -> Any:
        self._may_write()
        _, files = self._tree(kind, repo, revision)
        return {
            "files": [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if f["path"].endswith(_LARGE) else "regular",
                    "shouldIgnore": False,
                    "oid": _file(f["path"], files[f["path"]])["oid"] if f["path"] in files else None,
                }
                for f in json.loads(self.body)["files"]
            ]
        }

    def batch(self, repo: str) -> Any:
        self._may_write()
        self._repo("dataset", repo)
        objects = []
        for asked in json.loads(self.body)["objects"]:
            known = asked["oid"] in self.hub.large
            upload = {"href": f"{self.hub.url}/lfs/{asked['oid']}"}
            verify = {"href": f"{self.hub.url}/verify/{repo}"}
            objects.append(asked if known else {**asked, "actions": {"upload": upload, "verify": verify}})
        return {"transfer": "basic", "objects": objects}

    def upload(self, oid: str) -> Any:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refused(400, "the content is not what its name says")
        self.hub.large[oid] = self.body
        return {}

    def verify(self, repo: str) -> Any:
        self._may_write()
        asked = json.loads(self.body)
        if len(self.hub.large.get(asked["oid"], b"")) != asked["size"]:
            raise Refused(404, "no such object")
        return {}

    def commit(self, kind: str, repo: str, revision: str) -> Any:
        self._may_write()
        found = self._repo(kind, repo)
        head, files = self._tree(kind, repo, revision)
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        pull = self.query.get("create_pr") == ["1"]
        if header.get("parentCommit") not in (None, head):
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        tree = dict(files)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.large:
                    raise Refused(400, f"{value['path']} was not uploaded")
                tree[value["path"]] = self.hub.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del tree[value["path"]]
        number = len(found.pulls) + 1
        branch = f"refs/pr/{number}" if pull else revision
        oid = found.add(tree, header["summary"], branch)
        url = f"{self.hub.url}/datasets/{repo}"
        if pull:
            found.pulls.append(header["summary"])
        return {"commitUrl": f"{url}/commit/{oid}", "commitOid": oid, "success": True,
                "pullRequestUrl": f"{url}/discussions/{number}" if pull else None}  # fmt: skip

    def tag(self, kind: str, repo: str, revision: str) -> Any:
        self._may_write()
        oid, _ = self._tree(kind, repo, revision)
        name = json.loads(self.body)["tag"]
        tags = self._repo(kind, repo).tags
        if name in tags:
            raise Refused(409, f"Tag {name} exists already")
        tags[name] = oid
        return {}

    def discussions(self, kind: str, repo: str) -> Any:
        listed = [
            {"num": i, "title": title, "status": "open", "isPullRequest": True, "author": {"name": "me"},
             "repo": {"name": repo, "type": kind}, "createdAt": "2026-01-01T00:00:00.000Z"}
            for i, title in enumerate(self._repo(kind, repo).pulls, 1)
        ]  # fmt: skip
        return {"discussions": listed, "count": len(listed), "start": 0}

    def resolve(self, repo: str, revision: str, path: str) -> Any:
        oid, files = self._tree("dataset", repo, revision)
        if path not in files:
            raise Refused(404, "Entry not found", "EntryNotFound")
        data, entry = files[path], _file(path, files[path])
        etag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        return 200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": oid, "Accept-Ranges": "none"}


def _file(path: str, data: bytes) -> dict[str, Any]:
    oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": oid}
    if path.endswith(_LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return entry


def _folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}


_API = rf"/api/{_REPO}"
_REVISION = r"(?P<revision>refs/(?:convert|pr)/[^/]+|[^/]+)"
_ROUTES: list[tuple[str, Callable[..., Any]]] = [
    (r"GET /api/whoami-v2", _Handler.whoami),
    (r"POST /api/repos/create", _Handler.create),
    (r"POST /api/validate-yaml", _Handler.validate_yaml),
    (rf"GET {_API}", _Handler.info),
    (rf"GET {_API}/revision/{_REVISION}", _Handler.info),
    (rf"GET {_API}/tree/{_REVISION}(?:/(?P<folder>.+))?", _Handler.tree),
    (rf"POST {_API}/paths-info/{_REVISION}", _Handler.paths_info),
    (rf"GET {_API}/refs", _Handler.refs),
    (rf"GET {_API}/discussions", _Handler.discussions),
    (rf"POST {_API}/preupload/{_REVISION}", _Handler.preupload),
    (rf"POST {_API}/commit/{_REVISION}", _Handler.commit),
    (rf"POST {_API}/tag/{_REVISION}", _Handler.tag),
    (r"POST /datasets/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", _Handler.batch),
    (r"PUT /lfs/(?P<oid>[0-9a-f]{64})", _Handler.upload),
    (r"POST /verify/(?P<repo>[^/]+/[^/]+)", _Handler.verify),
    (rf"(?:GET|HEAD) /datasets/(?P<repo>[^/]+/[^/]+)/resolve/{_REVISION}/(?P<path>.+)", _Handler.resolve),
]
