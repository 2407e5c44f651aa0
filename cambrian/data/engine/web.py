"""Requests to the sites and endpoints of others: polite, limited, recorded."""

from __future__ import annotations

import logging
import os
import time
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit
from urllib.robotparser import RobotFileParser

from cambrian.data.engine.recording import Reply, Request
from cambrian.interfaces import ArtifactError, RecordError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx2

    from cambrian.data.engine.config import EngineConfig
    from cambrian.data.engine.recording import Recording

_HEADERS = ("content-type", "location", "retry-after")
_REDIRECTS = (301, 302, 303, 307, 308)
_REASONS = {413: "reply-too-large"}
_MAX_PREVIEW = 120
_log = logging.getLogger("cambrian")


class Web:
    """The engine's only way out: what the recording has is not asked for again.

    Between two requests to one host lies its interval; robots.txt is asked for first and obeyed; other hosts than the
    listed ones are not visited. Time passes only where the network is used.
    """

    def __init__(self, config: EngineConfig, recording: Recording) -> None:
        self._config = config
        self._crawl = config.crawl
        self._recording = recording
        self._robots: dict[str, RobotFileParser] = {}
        self._next_at: dict[str, float] = {}
        self._client: httpx2.Client | None = None
        self.num_requests = 0
        """Sent over the network."""

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()

    def get(self, url: str) -> Reply:
        """What is at an address, after redirects.

        Raises:
            RecordError: `foreign-host`, `forbidden-by-robots`, `robots-unanswered`, `unanswered`, `not-found`,
                `too-many-redirects`, `reply-too-large`.
            ArtifactError: the recording has no reply and may not be extended.
        """
        for _ in range(self._crawl.max_redirects + 1):
            self._check_host(url)
            self._check_robots(url)
            reply = self._ask(Request(url))
            if reply.status in _REDIRECTS and reply.headers.get("location"):
                url = urljoin(url, reply.headers["location"])
                continue
            if not 200 <= reply.status < 300:
                reason = _REASONS.get(reply.status, "not-found" if reply.is_final else "unanswered")
                raise RecordError(reason, f"{url}: the server answers {reply.status}")
            return reply
        raise RecordError("too-many-redirects", f"{url} is behind more than {self._crawl.max_redirects} redirects")

    def post(self, url: str, body: str) -> Reply:
        """The endpoint's reply to a JSON body, whatever its status; its host needs no permission.

        Raises:
            RecordError: `unanswered` after all attempts.
            ArtifactError: the recording has no reply and may not be extended, or the key is not in the environment.
        """
        reply = self._ask(Request(url, body))
        if not reply.is_final:
            raise RecordError("unanswered", f"{url}: the endpoint answers {reply.status}")
        return reply

    def _check_host(self, url: str) -> None:
        parts = urlsplit(url)
        is_known = any(fnmatchcase(parts.netloc, pattern) for pattern in self._crawl.hosts)
        if parts.scheme not in ("http", "https") or not is_known:
            raise RecordError("foreign-host", f"{url} is not on one of crawl.hosts")

    def _check_robots(self, url: str) -> None:
        parts = urlsplit(url)
        site = f"{parts.scheme}://{parts.netloc}"
        if site not in self._robots:
            reply = self._ask(Request(f"{site}/robots.txt"))
            for _ in range(self._crawl.max_redirects):
                if reply.status in _REDIRECTS and reply.headers.get("location"):
                    reply = self._ask(Request(urljoin(f"{site}/robots.txt", reply.headers["location"])))
            parser = RobotFileParser()
            if not reply.is_final:
                raise RecordError("robots-unanswered", f"{site}/robots.txt: the server answers {reply.status}")
            # A site without the file allows everything; one that hides it, nothing (RFC 9309).
            text = reply.body.decode("utf-8", errors="replace") if reply.status == 200 else ""
            parser.parse((text if reply.status not in (401, 403) else "User-agent: *\nDisallow: /").splitlines())
            self._robots[site] = parser
        if not self._robots[site].can_fetch(self._crawl.user_agent, url):
            raise RecordError("forbidden-by-robots", f"{site}/robots.txt does not allow {url}")

    def _ask(self, request: Request) -> Reply:
        """The recorded reply, or one from the network; the last of several attempts may be one that is not final."""
        # What stayed unanswered when it was recorded is so in a replay; a recording that goes on asks again.
        found = self._recording.find(request, only_final=self._config.mode == "record")
        if found is not None:
            return found
        if self._config.mode == "replay":
            what = f"{request.url} {request.body or ''}"[:_MAX_PREVIEW]
            raise ArtifactError(
                f"the recording has no reply to {what!r}: fields, prompts, models or addresses are not those that it "
                "was made with; restore them, or set engine.mode to record, which needs the network and the key"
            )
        wait_s = self._crawl.retry_wait_s
        for attempt in range(1, self._crawl.num_attempts + 1):
            reply = self._send(request)
            self._recording.add(request, reply)
            if reply.is_final or attempt == self._crawl.num_attempts:
                break
            retry_after = reply.headers.get("retry-after", "")
            pause_s = max(wait_s, float(retry_after) if retry_after.isdecimal() else 0.0)
            _log.warning("%s answers %d; trying again in %.1f s", request.url, reply.status, pause_s)
            time.sleep(pause_s)
            wait_s *= 2
        return reply

    def _send(self, request: Request) -> Reply:
        """One request; a server that does not answer counts as 504, and a reply that is too large as 413."""
        import httpx2

        self._wait_turn(request.url)
        headers = {"User-Agent": self._crawl.user_agent} if request.body is None else self._endpoint_headers()
        self.num_requests += 1
        if self._client is None:
            self._client = httpx2.Client(timeout=self._crawl.timeout_s)
        try:
            with self._client.stream(
                "GET" if request.body is None else "POST",
                request.url,
                content=request.body,
                headers=headers,
            ) as response:
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > self._crawl.max_bytes:
                        return Reply(413, {}, b"")
                return Reply(response.status_code, _chosen(response.headers), bytes(body))
        except httpx2.InvalidURL:
            return Reply(400, {}, b"")
        except httpx2.HTTPError as error:
            _log.warning("%s: %s %s", request.url, type(error).__name__, error)
            return Reply(504, {}, b"")

    def _endpoint_headers(self) -> dict[str, str]:
        variable = self._config.model.api_key_variable
        key = os.environ.get(variable)
        if not key:
            raise ArtifactError(f"the environment has no {variable}: it holds the key of {self._config.model.base_url}")
        return {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def _wait_turn(self, url: str) -> None:
        parts = urlsplit(url)
        robots = self._robots.get(f"{parts.scheme}://{parts.netloc}")
        delay = robots.crawl_delay(self._crawl.user_agent) if robots is not None else None
        interval_s = max(self._crawl.min_interval_s, float(delay or 0))
        now = time.monotonic()
        turn = max(now, self._next_at.get(parts.netloc, now))
        if turn > now:
            time.sleep(turn - now)
        self._next_at[parts.netloc] = turn + interval_s


def _chosen(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: headers[name] for name in _HEADERS if name in headers}
