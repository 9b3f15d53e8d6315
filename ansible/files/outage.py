"""Asks a URL at a steady pace, each time on a new connection, and prints what became of it as JSON.

outage.py URL DIRECTORY: makes DIRECTORY/asking once answers come, and goes on until somebody removes that file.
"""

import asyncio
import json
import pathlib
import sys
import urllib.parse

EVERY = 0.005
# An answer that takes longer counts as none.
SLOW = 0.05
TIMEOUT = 3
# Without an answer for so long the address is not served at all.
PATIENCE = 15


async def ask(url, attempt, attempts):
    """One request; what it took, and whether it was answered with 200, goes into attempts."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    answered = False
    try:
        answered = await asyncio.wait_for(exchange(url), TIMEOUT)
    except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
        pass
    attempts[attempt] = (start, loop.time() - start, answered)


async def exchange(url):
    """Is the answer complete, and 200?"""
    reader, writer = await asyncio.open_connection(url.hostname, url.port or 80)
    try:
        request = f"GET {url.path or '/'} HTTP/1.0\r\nHost: {url.hostname}\r\n\r\n"
        writer.write(request.encode())
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.read()
        return head.split(b" ", 2)[1] == b"200"
    finally:
        writer.close()


def longest_outage(attempts):
    """From the start of an attempt that was not good to the start of the next good one."""
    longest, since = 0, None
    for start, took, answered in attempts:
        good = answered and took <= SLOW
        if good and since is not None:
            longest, since = max(longest, start - since), None
        if not good and since is None:
            since = start
    return longest if since is None else max(longest, start + took - since)


async def main():
    url = urllib.parse.urlsplit(sys.argv[1])
    asking = pathlib.Path(sys.argv[2]) / "asking"
    loop = asyncio.get_running_loop()
    begin = loop.time()
    attempts, tasks, told = {}, set(), False
    while not told or asking.exists():
        task = loop.create_task(ask(url, len(attempts), attempts))
        attempts[len(attempts)] = None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        await asyncio.sleep(max(0, begin + len(attempts) * EVERY - loop.time()))
        if not told and any(attempt and attempt[2] for attempt in attempts.values()):
            asking.touch()
            told = True
        if not told and loop.time() > begin + PATIENCE:
            sys.exit(f"{sys.argv[1]} does not answer: is the pair up, and is it reached from here?")
    await asyncio.gather(*tasks)
    seen = list(attempts.values())
    failed = sum(not answered for _, _, answered in seen)
    slow = sum(answered and took > SLOW for _, took, answered in seen)
    print(json.dumps({
        "requests": len(seen),
        "every_ms": round(EVERY * 1000),
        "failed": failed,
        "slow": slow,
        "slow_ms": round(SLOW * 1000),
        "longest_ms": round(longest_outage(seen) * 1000, 1),
    }))


asyncio.run(main())
