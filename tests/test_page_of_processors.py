"""The page "Write a processor": each of its code blocks runs, and its tables are complete."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import websockets
from aiohttp import web

from chronopype_mp import BackoffPolicy, NetworkProcessor, StartWhen, Supervision
from chronopype_mp.processors import NetworkStatus
from chronopype_mp.processors.network import SETTINGS
from chronopype_mp.testing import ProcessorTest
from tests.waiting import run

PAGE = (Path(__file__).parent.parent / "docs" / "processors.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.S | re.M)
"""The programs of the page."""

CONNECTED = NetworkStatus.CONNECTED
NOT_CONNECTED = NetworkStatus.NOT_CONNECTED


def defined() -> dict[str, Any]:
    """Execute the blocks one after another, as in one module; return its names."""
    names: dict[str, Any] = {"__name__": "page"}
    for block in BLOCKS:
        lines_before = PAGE[: PAGE.index(block)].count("\n")  # for tracebacks
        exec(compile("\n" * lines_before + block, "docs/processors.md", "exec"), names)
    return names


@contextlib.asynccontextmanager
async def feed_server() -> AsyncIterator[tuple[str, list[str]]]:
    """Serve a price to every client, and note what they send."""
    heard: list[str] = []

    async def serve(ws: websockets.ServerConnection) -> None:
        await ws.send('{"price": 1.5}')
        async for message in ws:
            heard.append(str(message))
            if message == "fail":
                await ws.send("{}")

    async with websockets.serve(serve, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}", heard


@contextlib.asynccontextmanager
async def api_server() -> AsyncIterator[tuple[str, list[web.Response]]]:
    """Answer with the responses of a list, the last one again and again."""
    responses: list[web.Response] = [web.Response()]

    async def answer(request: web.BaseRequest) -> web.Response:
        return responses.pop(0) if len(responses) > 1 else web.Response(status=responses[0].status)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", responses
    finally:
        await runner.cleanup()


async def prices(page: dict[str, Any]) -> None:
    async with feed_server() as (url, heard), ProcessorTest(page["Prices"](url)) as feed:
        await feed.reaches(CONNECTED)
        await feed.until(lambda: feed.processor.price == 1.5 and heard == ["subscribe"])
        await feed.tick()
        await feed.processor.ws.close()
        assert (await feed.reaches(NOT_CONNECTED)).reason == "run_network returned"
        await feed.reaches(CONNECTED, within=2.0)


async def prices_that_fail(page: dict[str, Any]) -> None:
    async with feed_server() as (url, _), ProcessorTest(page["Prices"](url)) as feed:
        await feed.reaches(CONNECTED)
        await feed.processor.ws.send("fail")
        with pytest.raises(KeyError, match="price"):
            await feed.reaches(NOT_CONNECTED)


async def account(page: dict[str, Any]) -> None:
    async with api_server() as (url, responses), ProcessorTest(page["Account"](url)) as feed:
        responses.insert(0, web.Response(status=429, headers={"Retry-After": "7"}))
        refused = await feed.reaches(NOT_CONNECTED)
        assert refused.reason == "check_network: RetryAfter: retry after 7 s"
        assert (await feed.reaches(CONNECTED, within=60.0)).at == 7.0
        responses[:] = [web.Response(status=401)]
        refused = await feed.reaches(NetworkStatus.ERROR, within=10.0)
        assert "PermanentFailure: the key is wrong" in refused.reason
        await feed.advance(10_000.0)
        assert feed.transitions[-1] == NetworkStatus.ERROR


async def subscribed(page: dict[str, Any]) -> None:
    async with feed_server() as (url, _), ProcessorTest(page["Subscribed"](url)) as feed:
        await feed.reaches(CONNECTED)
        (task,) = [each for each in asyncio.all_tasks() if each.get_name() == "keep-alive"]
        feed.processor.connection_lost("test")
        await feed.reaches(NOT_CONNECTED)
        assert task.cancelled()


async def called_back(page: dict[str, Any]) -> None:
    async with ProcessorTest(page["CalledBack"]()) as feed:
        await feed.reaches(CONNECTED)
        feed.processor.client.closed.set()
        lost = await feed.reaches(NOT_CONNECTED)
        assert lost.reason == "the server has closed the connection"
        await feed.reaches(CONNECTED, within=60.0)
        feed.processor.client.closed.set()
        feed.processor.client.thread.join()


async def blocking(page: dict[str, Any]) -> None:
    assert page["supervision"] == Supervision(max_check_timeouts=4, max_downtime=900.0)
    async with api_server() as (url, responses), ProcessorTest(page["Blocking"](url)) as feed:
        await feed.reaches(CONNECTED)
        responses[:] = [web.Response(status=204)]
        refused = await feed.reaches(NOT_CONNECTED, within=10.0)
        assert refused.reason == "check_network() returned NOT_CONNECTED"


async def patient(page: dict[str, Any]) -> None:
    async with feed_server() as (url, _), ProcessorTest(page["Patient"](url)) as feed:
        await feed.reaches(CONNECTED)
        feed.processor.connection_lost("test")
        await feed.reaches(NOT_CONNECTED)
        await feed.advance(4.4)
        assert feed.transitions[-1] == NOT_CONNECTED
        assert 4.5 <= (await feed.reaches(CONNECTED, within=60.0)).at <= 5.5


async def the_test(page: dict[str, Any]) -> None:
    await page["lose_a_connection"]()


SCENARIOS: list[tuple[str, Callable[[dict[str, Any]], Awaitable[None]]]] = [
    ("class Prices", prices),
    ("class Prices", prices_that_fail),
    ("class Account", account),
    ("class Subscribed", subscribed),
    ("class CalledBack", called_back),
    ("class Blocking", blocking),
    ("supervision =", blocking),
    ("class Patient", patient),
    ("def test_a_silent_feed", the_test),
]


@pytest.mark.parametrize(
    "scenario",
    dict.fromkeys(scenario for _, scenario in SCENARIOS),
    ids=lambda scenario: scenario.__name__,
)
def test_what_the_page_shows_does_what_it_says(
    scenario: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    async def run_it() -> None:
        await scenario(defined())

    run(run_it())


def test_every_block_is_run() -> None:
    for block in BLOCKS:
        assert any(line in block for line, _ in SCENARIOS), block
    for line, _ in SCENARIOS:
        assert any(line in block for block in BLOCKS), line


def table(heading: str) -> dict[str, str]:
    """Return the first two columns of the first table in a section."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| `?(.+?)`? \|", section, re.M)
    return dict(rows)


def test_the_table_of_settings_is_complete_and_right() -> None:
    shown = table("Settings")
    assert shown.keys() == SETTINGS.keys()
    known = {
        "BackoffPolicy()": BackoffPolicy(),
        "(OSError, TimeoutError)": (OSError, TimeoutError),
        "StartWhen.NEEDED": StartWhen.NEEDED,
    }
    for name, default in shown.items():
        value = known[default] if default in known else ast.literal_eval(default)
        assert getattr(NetworkProcessor, name) == value, name


def test_the_calls_of_the_page_exist() -> None:
    for name in re.findall(r"`self\.(\w+)\(", PAGE):
        assert hasattr(NetworkProcessor, name), name
    for name in re.findall(r"`(?:await )?feed\.(\w+)", PAGE):
        assert hasattr(ProcessorTest, name) or name in ("processor", "clock"), name
