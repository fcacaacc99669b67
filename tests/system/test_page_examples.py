"""The two examples of chronopype's page, with only the import changed and the gaps filled in.

Gaps of the first: a client, an URL, a main. Of the second: ``import websockets`` (in the legacy
flavour, whose connections have the ``open`` that the page uses), an URL, `process_message`, and a
shorter run. Both are run as scripts without an ``if __name__ == "__main__"`` guard.
"""

from __future__ import annotations

import re
import signal

from tests.system.scripts import Script, Scripts, wait_until
from tests.system.servers import HTTP, WEBSOCKET, free_port, serve

FIRST = '''
import asyncio, sys, time
import aiohttp
from chronopype_mp import ClockConfig, ClockMode
from chronopype_mp.clocks import RealtimeClock

URL = sys.argv[1]

class Client:
    def __init__(self):
        self.session = aiohttp.ClientSession()
    async def health_check(self):
        async with self.session.get(URL + "/health") as response:
            return response
    async def close(self):
        await self.session.close()
    def process(self, timestamp):
        print("processed", timestamp, flush=True)

async def create_api_client():
    return Client()

import logging
from chronopype_mp.processors import NetworkProcessor, NetworkStatus
class ApiProcessor(NetworkProcessor):
    LOGGER_NAME = "ApiProcessor"
    @classmethod
    def logger(cls) -> logging.Logger:
        return logging.getLogger(cls.LOGGER_NAME)
    async def check_network(self) -> NetworkStatus:
        """Check if the API is reachable."""
        try:
            response = await self.client.health_check()
            if response.ok:
                return NetworkStatus.CONNECTED
            return NetworkStatus.NOT_CONNECTED
        except Exception:
            return NetworkStatus.ERROR
    async def start_network(self) -> None:
        """Called when connection is established."""
        self.client = await create_api_client()
    async def stop_network(self) -> None:
        """Called when disconnecting."""
        await self.client.close()
    def tick(self, timestamp: float) -> None:
        """Only runs when network is connected."""
        self.client.process(timestamp)

async def main():
    config = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=0.1)
    processor = ApiProcessor()
    print(processor.network_status, flush=True)
    processor.check_network_interval = 0.5
    processor.check_network_timeout = 3.0
    processor.network_error_wait_time = 30.0
    async with RealtimeClock(config) as clock:
        clock.events.subscribe(lambda event: print("event", event, flush=True))
        clock.add_processor(processor)
        await clock.run_til(time.time() + 300)
asyncio.run(main())
'''

SECOND = """
import sys
from websockets.legacy import client as websockets
URL = sys.argv[1]

import asyncio
import logging
from chronopype_mp import ClockConfig, ClockMode
from chronopype_mp.clocks import RealtimeClock
from chronopype_mp.processors import NetworkProcessor, NetworkStatus
class WebSocketProcessor(NetworkProcessor):
    LOGGER_NAME = "WebSocketProcessor"
    @classmethod
    def logger(cls) -> logging.Logger:
        return logging.getLogger(cls.LOGGER_NAME)
    async def check_network(self) -> NetworkStatus:
        if self.ws and self.ws.open:
            return NetworkStatus.CONNECTED
        return NetworkStatus.NOT_CONNECTED
    async def start_network(self) -> None:
        self.ws = await websockets.connect(URL)
    async def stop_network(self) -> None:
        if self.ws:
            await self.ws.close()
    def on_connected(self) -> None:
        super().on_connected()
        self.logger().info("WebSocket connected, subscribing to feed")
    async def async_tick(self, timestamp: float) -> None:
        if self.network_status == NetworkStatus.CONNECTED:
            data = await self.ws.recv()
            self.process_message(data, timestamp)
    def process_message(self, data, timestamp):
        print("processed", timestamp, flush=True)
async def main():
    config = ClockConfig(
        clock_mode=ClockMode.REALTIME,
        start_time=asyncio.get_event_loop().time(),
        tick_size=0.1,
    )
    processor = WebSocketProcessor()
    processor.check_network_interval = 0.5
    async with RealtimeClock(config) as clock:
        clock.events.subscribe(lambda event: print("event", event, flush=True))
        clock.add_processor(processor)
        await clock.run_til(config.start_time + 300)
asyncio.run(main())
"""


def ticks_of(script: Script) -> list[float]:
    return [float(t) for t in re.findall(r"processed ([\d.]+)", script.output)]


def wait_for_more_ticks(script: Script, count: int = 5) -> None:
    goal = len(ticks_of(script)) + count
    wait_until(lambda: len(ticks_of(script)) >= goal, 30.0, lambda: script.output)


def connects(script: Script) -> int:
    return script.output.count("after=<NetworkStatus.CONNECTED: 3>")


def loses_and_gets_back_its_server(
    scripts: Scripts, script: Script, server_source: str, port: int, server: Script
) -> None:
    """Kill the server; start it again; the example must follow."""
    wait_for_more_ticks(script)
    assert connects(script) == 1
    server.signal_group(signal.SIGKILL)
    server.wait()
    script.wait_for("before=<NetworkStatus.CONNECTED: 3>, after=<NetworkStatus.DISCONNECTING: 4>")
    wait_until(
        lambda: script.output.count("after=<NetworkStatus.CONNECTING: 2>") >= 3,
        30.0,
        lambda: script.output,
    )
    ticks = len(ticks_of(script))
    server = serve(scripts, server_source, port)
    wait_until(lambda: connects(script) == 2, 30.0, lambda: script.output)
    assert len(ticks_of(script)) <= ticks + 1
    wait_for_more_ticks(script)
    script.signal_group(signal.SIGINT)
    script.wait()
    assert connects(script) == 2
    assert "after=<NetworkStatus.STOPPED: 0>" in script.output
    timestamps = ticks_of(script)
    assert timestamps == sorted(set(timestamps))
    server.signal_group(signal.SIGTERM)
    server.wait()


def test_the_http_example_connects_ticks_loses_its_server_backs_off_and_reconnects(
    scripts: Scripts,
) -> None:
    port = free_port()
    server = serve(scripts, HTTP, port)
    script = scripts.start(FIRST, f"http://127.0.0.1:{port}")
    loses_and_gets_back_its_server(scripts, script, HTTP, port, server)
    assert script.output.startswith("NetworkStatus.STOPPED")


def test_the_websocket_example_connects_ticks_loses_its_server_backs_off_and_reconnects(
    scripts: Scripts,
) -> None:
    port = free_port()
    server = serve(scripts, WEBSOCKET, port)
    script = scripts.start(SECOND, f"ws://127.0.0.1:{port}")
    loses_and_gets_back_its_server(scripts, script, WEBSOCKET, port, server)
    # Its clock starts at the event loop's time, and so do its ticks' timestamps.
    assert max(ticks_of(script)) < 1_000_000_000
