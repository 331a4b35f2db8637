"""`hfgan cutout s`: pictures over HTTP. What it is sent is all that it reads: it opens no file and no address."""

from __future__ import annotations

import socket
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse, Response

from hfgan.cutting import FLAGS, KINDS, Options, encode, read_options
from hfgan.cutting.cli import say

if TYPE_CHECKING:
    from hfgan import HFGan

MAX_UPLOAD = 20 * 2**20  # bytes of one request
USAGE = """{name}: send a picture, get its cut-out as PNG.

    curl -F file=@photo.jpg {url}api/remove -o photo.png
    curl -F file=@photo.jpg -F only_mask=true {url}api/remove -o mask.png
    curl --data-binary @photo.jpg "{url}api/remove?bgcolor=255,136,0" -o orange.png

At most {limit} MB. Parameters, in the address or in the form; switches are true or false:

{parameters}

bgcolor is R,G,B or R,G,B,A; kind is {kinds}.
background may also be a picture, as -F background=@beach.jpg. What cannot be done comes back as {{"detail": "..."}}
with status 400, or 413 where too much was sent.
"""


def server(gan: HFGan, defaults: Options) -> FastAPI:
    """The application: `POST /api/remove` and `GET /`, one picture at a time.

    Args:
        gan: With the part `matting`.
        defaults: Of what a request does not say.
    """
    app = FastAPI(title="hfgan cutout", docs_url=None, redoc_url=None, openapi_url=None)
    turn = Lock()

    def answer(photo: bytes, given: dict[str, str | bytes]) -> bytes:
        options = read_options(given, defaults)
        with turn:
            return encode(gan, photo, options)

    @app.get("/", response_class=PlainTextResponse)
    async def usage(request: Request) -> str:
        lines = [f"    {flag.name:36} {flag.text}" for flag in FLAGS]
        told = {"name": gan.name, "url": request.base_url, "limit": MAX_UPLOAD // 2**20, "kinds": ", ".join(KINDS)}
        return USAGE.format(parameters="\n".join(lines), **told)

    @app.post("/api/remove")
    async def remove(request: Request) -> Response:
        photo, given = await _read(request)
        try:
            return Response(await run_in_threadpool(answer, photo, given), media_type="image/png")
        except ValueError as error:
            raise HTTPException(400, " ".join(str(error).split())) from error

    return app


async def _read(request: Request) -> tuple[bytes, dict[str, str | bytes]]:
    """The picture of a request and its parameters by name."""
    body = await _body(request)
    pairs: list[tuple[str, str | bytes]] = [*request.query_params.multi_items()]
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):

        async def again() -> dict:
            return {"type": "http.request", "body": body, "more_body": False}

        async with Request(request.scope, again).form() as form:
            for name, value in form.multi_items():
                pairs.append((name, value if isinstance(value, str) else await value.read()))
    elif body:
        pairs.append(("file", body))
    given = dict(pairs)
    if len(given) < len(pairs):
        twice = next(name for name in given if [one for one, _ in pairs].count(name) > 1)
        raise HTTPException(400, f"{twice} is given more than once: give it once")
    photo = given.pop("file", None)
    if not isinstance(photo, bytes):
        raise HTTPException(400, "no picture: send it as the file of the form's field file, or as the whole body")
    return photo, given


async def _body(request: Request) -> bytes:
    """All that was sent, as far as that is allowed."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_UPLOAD:
            raise HTTPException(413, f"more than {MAX_UPLOAD // 2**20} MB: send a smaller file")
    return bytes(body)


def serve(host: str, port: int, how: Options, load: Callable[[], HFGan]) -> None:
    """Listen until Ctrl-C.

    Args:
        port: 1 to 65535, or 0 for a free one.
        how: The defaults of requests.
        load: Gives the model.

    Raises:
        OSError: the port is in use or not allowed.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(address[:2], family=family)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (")[0]
        raise OSError(f"cannot listen on {host}, port {port}: {reason}") from error
    with listening:
        app = server(load(), how)
        shown = f"[{host}]" if family == socket.AF_INET6 else host
        say(f"http://{shown}:{listening.getsockname()[1]}/")
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])
