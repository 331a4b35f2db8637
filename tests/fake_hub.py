"""A Hub of one process: repositories with branches and commits, reached as huggingface_hub reaches the real one.

`with FakeHub() as hub:` serves on `hub.endpoint`. `hub.put` commits files without the client, `hub.requests` lists
what was asked for. Only what the tests need: create, branch, model info, tree, preupload, commit, resolve.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
import time
from typing import Any, Self

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

TOKEN = "hf_test_token"  # the owner's; a private repository does not exist for anyone else


class FakeHub:
    def __init__(self) -> None:
        self.branches: dict[str, dict[str, str]] = {}  # repository -> branch -> sha
        self.commits: dict[str, dict[str, bytes]] = {}  # sha -> path -> content
        self.private: set[str] = set()
        self.requests: list[str] = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{port}"
        config = uvicorn.Config(self._app(), host="127.0.0.1", port=port, log_level="warning")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._server.started:
            if time.monotonic() > deadline:
                raise RuntimeError("the fake Hub did not start in 20 s")
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()

    def put(self, repo: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Commit files on top of a branch; returns the sha."""
        heads = self.branches.setdefault(repo, {})
        content = {**self.commits.get(heads.get(branch, ""), {}), **files}
        said = repr((repo, branch, len(self.commits), sorted(content.items())))
        heads[branch] = hashlib.sha1(said.encode()).hexdigest()
        self.commits[heads[branch]] = content
        return heads[branch]

    def files(self, repo: str, branch: str = "main") -> dict[str, bytes]:
        return self.commits[self.branches[repo][branch]]

    def _find(self, repo: str, revision: str, request: Request) -> tuple[str, dict[str, bytes]] | Response:
        """The sha and files of a revision, or the 404 that the Hub would answer."""
        known = repo in self.branches
        if not known or (repo in self.private and request.headers.get("authorization") != f"Bearer {TOKEN}"):
            return _missing("RepoNotFound")
        sha = self.branches[repo].get(revision, revision)
        return (sha, self.commits[sha]) if sha in self.commits else _missing("RevisionNotFound")

    def _app(self) -> FastAPI:
        app = FastAPI()

        @app.middleware("http")
        async def record(request: Request, go_on: Any) -> Response:
            self.requests.append(f"{request.method} {request.url.path}")
            return await go_on(request)

        @app.post("/api/repos/create")
        async def create(request: Request) -> Response:
            asked = await request.json()
            repo = f"{asked['organization']}/{asked['name']}"
            url = {"url": f"{self.endpoint}/{repo}", "name": repo}
            if repo in self.branches:
                return JSONResponse(url | {"error": "exists"}, 409)
            if asked.get("private") or asked.get("visibility") == "private":
                self.private.add(repo)
            self.put(repo, {".gitattributes": b""})
            return JSONResponse(url)

        @app.post("/api/models/{owner}/{name}/branch/{branch}")
        async def create_branch(owner: str, name: str, branch: str) -> Response:
            heads = self.branches[f"{owner}/{name}"]
            heads.setdefault(branch, heads["main"])
            return Response()

        @app.get("/api/models/{owner}/{name}")
        @app.get("/api/models/{owner}/{name}/revision/{revision}")
        async def info(request: Request, owner: str, name: str, revision: str = "main") -> Response:
            found = self._find(f"{owner}/{name}", revision, request)
            if isinstance(found, Response):
                return found
            names = [{"rfilename": path} for path in found[1]]
            return JSONResponse({"id": f"{owner}/{name}", "sha": found[0], "siblings": names, "tags": []})

        @app.get("/api/models/{owner}/{name}/tree/{revision}")
        async def tree(request: Request, owner: str, name: str, revision: str) -> Response:
            found = self._find(f"{owner}/{name}", revision, request)
            if isinstance(found, Response):
                return found
            return JSONResponse(
                [{"type": "file", "path": p, "size": len(data), "oid": _oid(data)} for p, data in found[1].items()]
            )

        @app.post("/api/validate-yaml")
        async def validate() -> dict[str, list[str]]:
            return {"errors": [], "warnings": []}

        @app.post("/api/models/{owner}/{name}/preupload/{revision}")
        async def preupload(request: Request) -> dict[str, Any]:
            asked = (await request.json())["files"]
            return {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]}

        @app.post("/api/models/{owner}/{name}/commit/{revision}")
        async def commit(request: Request, owner: str, name: str, revision: str) -> Response:
            if request.headers.get("authorization") != f"Bearer {TOKEN}":
                return JSONResponse({"error": "Invalid token"}, 401)
            lines = [json.loads(line) for line in (await request.body()).splitlines() if line]
            new = [line["value"] for line in lines if line["key"] == "file"]
            sha = self.put(
                f"{owner}/{name}", {file["path"]: base64.b64decode(file["content"]) for file in new}, revision
            )
            return JSONResponse({"commitUrl": f"{self.endpoint}/{owner}/{name}/commit/{sha}", "commitOid": sha})

        @app.api_route("/{owner}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
        async def resolve(request: Request, owner: str, name: str, revision: str, path: str) -> Response:
            found = self._find(f"{owner}/{name}", revision, request)
            if isinstance(found, Response):
                return found
            if path not in found[1]:
                return _missing("EntryNotFound", {"X-Repo-Commit": found[0]})
            data = found[1][path]
            headers = {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": found[0], "Content-Length": str(len(data))}
            return Response(b"" if request.method == "HEAD" else data, headers=headers)

        return app


def _missing(code: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": code}, 404, headers={"X-Error-Code": code, **(headers or {})})


def _oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
