#!/usr/bin/env python3
"""Tokens a second of `photonc serve` with so many streams at once: what HTTP costs beside `photonc bench`.

usage: scripts/bench_streams.py URL.. [--streams 64] [--prompt-tokens 128] [--new-tokens 512] [--rounds 4]
                                      [--processes 4] [--seconds S] [--warm-up 5] [--text MODEL] [--protocol recgen]
                                      [--top-k 0] [--against TOKENS_PER_SECOND]

Needs nothing but Python. Every stream asks for token ids (`POST /v1/generate`), ignores ends of sequences, and begins
another request on the same connection when one is done; several URLs have the streams in turn. Clients read on the
same machine, in `--processes` processes. The rate is that of all tokens over all the time, prompts included, as in
the line `tokens/s` of `photonc bench`; with more rounds the beginning and the end weigh less. With `--seconds`,
streams go on without an end, and the rate is that of so many seconds behind the warm-up. With `--text`, prompts are
texts of the words that scripts/bench_fleet.py gives a model (`POST /v1/completions`), for gateways that pass no ids.
With `--against`, the part of that rate.
"""

import argparse
import asyncio
import json
import multiprocessing
import time
import urllib.parse


class Connection:
    """One to a server, kept for the next request: HTTP/1.1 with chunked answers."""

    def __init__(self, url):
        self.url, self.reader, self.writer = urllib.parse.urlsplit(url), None, None

    async def lines(self, path, body):
        """The lines of an answer, as they come."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(self.url.hostname, self.url.port, limit=1 << 20)
        text = json.dumps(body).encode()
        head = f"POST {self.url.path}{path} HTTP/1.1\r\nhost: {self.url.hostname}\r\ncontent-type: application/json\r\n"
        self.writer.write(head.encode() + f"content-length: {len(text)}\r\n\r\n".encode() + text)
        status, keep = await self.reader.readline(), True
        while (header := (await self.reader.readline()).lower()) not in (b"\r\n", b""):
            keep &= header != b"connection: close\r\n"
        if b" 200 " not in status:
            raise SystemExit(f"{status.decode()}{(await self.reader.read(4096)).decode()}")
        rest = b""
        while size := int(await self.reader.readline(), 16):
            # A gateway may end a piece in the middle of a line.
            *whole, rest = (rest + (await self.reader.readexactly(size + 2))[:-2]).split(b"\n")
            for line in whole:
                yield line
        await self.reader.readline()
        if not keep:
            self.writer.close()
            self.writer = None


async def stream(connection, path, body, came):
    """One request; `came` is told when tokens came, and how many."""
    whole = False
    async for line in connection.lines(path, body):
        if line.startswith(b"data: [DONE]"):
            whole = True
        elif line.startswith(b"data: {"):
            event = json.loads(line[6:])
            if event.get("error"):
                raise SystemExit(line.decode())
            # Completions have choices, `/v1/generate` says it at the top.
            for told in event.get("choices", [event]):
                if count := len(told.get("token_ids") or ()):
                    came.append((time.time(), count))
    if not whole:
        raise SystemExit("a stream broke off")


def request(arguments, seed):
    """The path and the body of a request."""
    prompt = [(seed * 7919 + place * 31) % arguments.vocab for place in range(arguments.prompt_tokens)]
    body = {
        "max_tokens": arguments.new_tokens,
        "ignore_eos": True,
        "stream": True,
        "seed": seed,
        "protocol": arguments.protocol,
    }
    # Gateways refuse 0, which is what nothing means.
    if arguments.top_k:
        body["top_k"] = arguments.top_k
    if not arguments.text:
        return "/v1/generate", body | {"token_ids": prompt}
    words = " ".join(f"w{token:x}" for token in prompt)
    return "/v1/completions", body | {"model": arguments.text, "prompt": words, "return_token_ids": True}


async def client(arguments, number, came):
    """One stream after the other."""
    connection, turn = Connection(arguments.urls[number % len(arguments.urls)]), 0
    while arguments.seconds or turn < arguments.rounds:
        await stream(connection, *request(arguments, number + turn * arguments.streams), came)
        turn += 1


def process(arguments, numbers, until, told):
    """The times and counts of the tokens of some streams."""

    async def run():
        came = [[] for _ in numbers]
        clients = [asyncio.ensure_future(client(arguments, *one)) for one in zip(numbers, came)]
        done, _ = await asyncio.wait(clients, timeout=until and until - time.time())
        for one in done:
            one.result()
        return came

    try:
        told.put(asyncio.run(run()))
    except (SystemExit, OSError, ValueError, asyncio.IncompleteReadError) as error:
        told.put(str(error) or repr(error))


def measured(arguments):
    """Tokens/s of streams, and how many there were."""
    told, begin = multiprocessing.Queue(), time.time()
    until = begin + arguments.warm_up + arguments.seconds if arguments.seconds else None
    shares = [
        range(first, arguments.streams, arguments.processes)
        for first in range(min(arguments.processes, arguments.streams))
    ]
    workers = [multiprocessing.Process(target=process, args=(arguments, share, until, told)) for share in shares]
    for worker in workers:
        worker.start()
    answers = [told.get() for _ in workers]
    for worker in workers:
        worker.join()
    for answer in answers:
        if isinstance(answer, str):
            raise SystemExit(answer)
    events = [event for came in answers for stream in came for event in stream]
    if until:
        begin = until - arguments.seconds
        events = [event for event in events if begin <= event[0] < until]
    seconds = arguments.seconds or max(at for at, _ in events) - begin
    return {
        "streams": arguments.streams,
        "tokens_per_s": round(sum(count for _, count in events) / seconds, 1),
        "seconds": round(seconds, 2),
        "events": len(events),
    }


def parsed(words=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("urls", nargs="+")
    for name, default in [
        ("streams", 64),
        ("prompt-tokens", 128),
        ("new-tokens", 512),
        ("rounds", 4),
        ("processes", 4),
        ("top-k", 0),
        ("vocab", 256),
    ]:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--protocol", default="recgen")
    parser.add_argument("--text", metavar="MODEL")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--warm-up", type=float, default=5)
    parser.add_argument("--against", type=float)
    return parser.parse_args(words)


def main():
    arguments = parsed()
    found = measured(arguments)
    if arguments.against:
        found["part"] = round(found["tokens_per_s"] / arguments.against, 3)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
