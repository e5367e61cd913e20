"""The review's pages: choose a queue, read blind, say a verdict, then see the story. Works without JavaScript.

Before a verdict a page shows the prompt and both responses in an order of the reviewer's own, and nothing of votes,
models or what the pipeline decided. After it the story may be read. Nothing is kept in memory but sessions: whoever
comes back, on whatever day, goes on where the files say.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import polars as pl
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from dpo_data.analysis.explain import explain
from dpo_data.audit import wording
from dpo_data.audit.page import templates
from dpo_data.audit.text_diff import pieces
from dpo_data.release.shards import KEPT
from dpo_data.review import queues, security, verdicts
from dpo_data.review.results import findings
from dpo_data.review.security import Guard, Session, Sessions
from dpo_data.review.verdict_log import VerdictLog
from dpo_data.review.verdicts import Verdict
from dpo_data.schema import DataError
from dpo_data.store.batches import open_batches
from dpo_data.store.versions import open_version

_MOST_BYTES = 64_000
"""Of a form: a note of 2 000 characters takes 24 000 when every one of them is escaped."""
_MOST_QUEUES = 200


def create_app(
    store: Path,
    version: str = "current",
    *,
    host: str = "127.0.0.1",
    token: str | None = None,
    names: tuple[str, ...] = (),
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Starlette:
    """The review of one version as an ASGI application.

    `host` is where it will be bound: other than the loopback demands a `token`. `names` are further host names under
    which browsers may ask for it. Raises `DataError`.
    """
    security.check_binding(host, token)
    desk = ReviewApp(store, version, token, now)
    routes = [
        Route("/", desk.front),
        Route("/enter", desk.enter, methods=["POST"]),
        Route("/leave", desk.leave, methods=["POST"]),
        Route("/read", desk.read),
        Route("/verdict", desk.verdict, methods=["POST"]),
        Route("/story", desk.story),
        Route("/findings", desk.findings),
    ]
    everywhere = host in ("0.0.0.0", "::")
    hosts = {*names, *(security.LOOPBACK if everywhere or host in security.LOOPBACK else (host,))}
    guard = Middleware(Guard, hosts=hosts, any_address=everywhere, policy=security.policy(desk.style, desk.script))
    return Starlette(
        routes=routes, middleware=[guard], exception_handlers={DataError: desk.mistake, HTTPException: desk.refused}
    )


class ReviewApp:
    """What every page needs: the version, its texts, the templates, the sessions."""

    def __init__(self, store: Path, version: str, token: str | None, now: Callable[[], datetime]) -> None:
        self.store, self.token, self.now = store, token, now
        self.version = open_version(store, version)
        self.texts = open_batches(store).comparisons()
        self.sessions = Sessions()
        self.said = VerdictLog(store)
        self.known: dict[tuple[str, frozenset[str]], queues.Queue] = {}
        here = files("dpo_data.review")
        self.style = here.joinpath("review.css").read_text(encoding="utf-8")
        self.script = here.joinpath("keys.js").read_text(encoding="utf-8")
        names = ("base", "parts", "enter", "front", "read", "done", "story", "findings", "mistake")
        self.templates = templates("dpo_data.review", *names)
        self.templates.filters["query"] = urlencode
        self.templates.globals.update(words=wording, style=self.style, script=self.script, version=self.version.id)

    async def front(self, request: Request) -> Response:
        """The queues with this reviewer's progress; before that, the question who it is."""
        session = self.sessions.of(request)
        if session.reviewer is None:
            return self._page(session, "enter.html", asks_token=self.token is not None, problem="")
        return self._page(session, "front.html", **await run_in_threadpool(self._front, session.reviewer))

    def _front(self, name: str) -> dict[str, Any]:
        mine = self.said.of(name)
        others = [other for other in self.said.reviewers() if other != name]
        rows = [
            {"queue": entry, "done": sum(found in mine for found in entry.ids)}
            for entry in map(self._queue, queues.standard_names(self.version))
            if entry.ids
        ]
        return {"rows": rows, "given": len(mine), "others": others, "runs": queues.runs(self.store)[:20]}

    async def enter(self, request: Request) -> Response:
        """Take the reviewer's name, and the token where one is asked for."""
        session, form = await self._form(request)
        problem = ""
        if self.token is not None and not security.same(form.get("token", ""), self.token):
            problem = "That is not the token."
        try:
            name = verdicts.reviewer(form.get("reviewer", ""))
        except DataError as error:
            problem = problem or str(error)
        if problem:
            return self._page(session, "enter.html", 403, asks_token=self.token is not None, problem=problem)
        self.sessions.end(session)
        return self._go(self.sessions.begin(name), "/")

    async def leave(self, request: Request) -> Response:
        """Forget who sits here."""
        session, _ = await self._form(request)
        self.sessions.end(session)
        return self._go(self.sessions.begin(), "/")

    async def read(self, request: Request) -> Response:
        """One comparison, blind; without an id the first of the queue that this reviewer has not judged."""
        session, name = self._reviewer(request)
        asked = request.query_params.get("id")
        context = await run_in_threadpool(self._read, name, request.query_params.get("q", ""), asked)
        return self._page(session, "read.html" if context["row"] else "done.html", **context)

    def _read(self, name: str, queue_name: str, asked: str | None) -> dict[str, Any]:
        entry = self._queue(queue_name)
        mine = self.said.of(name)
        if asked is not None and asked not in entry.ids:
            raise DataError(f"{asked[:40]!r} is not in the queue {entry.title!r}.")
        found = asked or next((row for row in entry.ids if row not in mine), None)
        done = sum(row in mine for row in entry.ids)
        context: dict[str, Any] = {"queue": entry, "done": done, "row": None, "before": None, "place": len(entry.ids)}
        if found is None:
            return {**context, "before": entry.ids[-1] if entry.ids else None}
        place = entry.ids.index(found)
        return {
            **context,
            "row": self._blind(name, found),
            "again": found in mine,
            "place": place + 1,
            "before": entry.ids[place - 1] if place else None,
        }

    def _blind(self, name: str, found: str) -> dict[str, Any]:
        """The texts in this reviewer's order, and nothing else of the row."""
        text = self._text(found)
        first = verdicts.first_shown(name, found)
        second = "b" if first == "a" else "a"
        left, right, compared = pieces(text[f"response_{first}"], text[f"response_{second}"])
        return {"id": found, "prompt": text["prompt"], "first": left, "second": right, "compared": compared}

    async def verdict(self, request: Request) -> Response:
        """Write a verdict down, then show the story."""
        session, form = await self._form(request)
        name = self._named(session)
        await run_in_threadpool(self._verdict, name, form)
        where = urlencode({"q": form.get("q", ""), "id": form.get("id", "")})
        return self._go(session, f"/story?{where}")

    def _verdict(self, name: str, form: dict[str, str]) -> None:
        found = form.get("id", "")
        entry = self._queue(form.get("q", ""))
        if found not in entry.ids:
            raise DataError(f"{found[:40]!r} is not in the queue {entry.title!r}.")
        first = verdicts.first_shown(name, found)
        row = self.version.ledger().filter(pl.col("comparison_id") == found)
        [decided] = row.select("preferred", "reasons", kept=KEPT).collect().to_dicts()
        given = Verdict(
            comparison_id=found,
            choice=verdicts.choice_of(form.get("said", ""), first),
            annotator=name,
            at=verdicts.now(self.now()),
            shown_first=first,
            version=self.version.id,
            queue=entry.name,
            preferred=decided["preferred"],
            reasons=tuple(decided["reasons"]),
            note=form.get("note", "").strip()[: verdicts.MOST_NOTE],
            again=found in self.said.of(name),
        )
        verdicts.append(self.store, given, self._text(found))

    async def story(self, request: Request) -> Response:
        """What is known of a comparison; only for those who have judged it."""
        session, name = self._reviewer(request)
        asked = {"q": request.query_params.get("q", ""), "id": request.query_params.get("id", "")}
        context = await run_in_threadpool(self._story, name, asked["id"])
        if context is None:
            return self._go(session, f"/read?{urlencode(asked)}")
        return self._page(session, "story.html", asked=asked, **context)

    def _story(self, name: str, found: str) -> dict[str, Any] | None:
        mine = self.said.of(name).get(found, [])
        if not mine:
            return None
        first = mine[-1].shown_first
        return {
            "given": mine[-1],
            "places": {first: "first", "b" if first == "a" else "a": "second"},
            "row": self._blind(name, found),
            "story": explain(self.store, found, self.version.id),
        }

    async def findings(self, request: Request) -> Response:
        """How far the reviewers agree with the pipeline and with one another."""
        session, _ = self._reviewer(request)
        found = await run_in_threadpool(lambda: findings(self.store, self.version, self.said.all()))
        return self._page(session, "findings.html", found=found)

    async def mistake(self, request: Request, error: Exception) -> Response:
        """A `DataError` as a page that says what to do."""
        return self._page(self.sessions.of(request), "mistake.html", 400, problem=str(error))

    async def refused(self, request: Request, error: Exception) -> Response:
        """Any other refusal as a page, and those who have not said who they are to the front."""
        session = self.sessions.of(request)
        if not isinstance(error, HTTPException):
            raise error
        if error.status_code == 401:
            return self._go(session, "/")
        return self._page(session, "mistake.html", error.status_code, problem=error.detail)

    def _reviewer(self, request: Request) -> tuple[Session, str]:
        session = self.sessions.of(request)
        return session, self._named(session)

    def _named(self, session: Session) -> str:
        if session.reviewer is None:
            raise HTTPException(401)
        return session.reviewer

    async def _form(self, request: Request) -> tuple[Session, dict[str, str]]:
        """Who sent a form, and its fields; 403 for one that this server did not make for them."""
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _MOST_BYTES:
                raise HTTPException(413, f"The form is larger than {_MOST_BYTES} bytes. Shorten the note.")
        fields = {key: values[-1] for key, values in parse_qs(body.decode("utf-8", "replace")).items()}
        session = self.sessions.of(request)
        if not security.same(fields.get("form_token", ""), session.form_token):
            raise HTTPException(403, "This form is too old or not from here. Open the page again and repeat.")
        return session, fields

    def _text(self, found: str) -> dict[str, Any]:
        rows = self.texts.filter(pl.col("comparison_id") == found).collect().to_dicts()
        if not rows:
            raise DataError(f"The text of {found[:40]} is no longer in the store: it was forgotten.")
        return dict(rows[0])

    def _queue(self, name: str) -> queues.Queue:
        """A queue by its name, made once: of a million rows a sample takes a second to draw."""
        judged = self.said.judged_elsewhere(self.version.id)
        if (name, judged) not in self.known:
            if len(self.known) >= _MOST_QUEUES:
                self.known.clear()
            self.known[name, judged] = queues.queue(self.version, name, judged)
        return self.known[name, judged]

    def _page(self, session: Session, template: str, status: int = 200, /, **context: Any) -> Response:
        text = self.templates.get_template(template).render(session=session, **context)
        return self._with_cookie(HTMLResponse(text, status), session)

    def _go(self, session: Session, where: str) -> Response:
        return self._with_cookie(RedirectResponse(where, 303), session)

    def _with_cookie(self, response: Response, session: Session) -> Response:
        response.set_cookie(self.sessions.cookie, session.key, httponly=True, samesite="strict", path="/")
        return response
