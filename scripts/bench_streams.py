#!/usr/bin/env python3
"""Tokens a second of `photonc serve` with so many streams at once: what HTTP costs beside `photonc bench`.

usage: scripts/bench_streams.py URL [--streams 64] [--prompt-tokens 128] [--new-tokens 512] [--rounds 4] [--processes 4]
                                    [--protocol recgen] [--top-k 0] [--against TOKENS_PER_SECOND]

Needs nothing but Python. Every stream asks for token ids (`POST /v1/generate`), ignores ends of sequences, and begins
another request when one is done. Clients read on the same machine, in `--processes` processes. The rate is that of all
tokens over all the time, prompts included, as in the line `tokens/s` of `photonc bench`; with more rounds the beginning
and the end weigh less. With `--against`, the part of that rate.
"""

import argparse
import asyncio
import json
import multiprocessing
import time
import urllib.parse


async def stream(url, body, came):
    """One request; `came` is told when tokens came, and how many."""
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    text = json.dumps(body).encode()
    head = f"POST {url.path}/v1/generate HTTP/1.1\r\nhost: {url.hostname}\r\nconnection: close\r\n"
    head += "content-type: application/json\r\n"
    writer.write(head.encode() + f"content-length: {len(text)}\r\n\r\n".encode() + text)
    status = await reader.readline()
    if b" 200 " not in status:
        raise SystemExit(f"{status.decode()}{(await reader.read()).decode()}")
    whole = False
    async for line in reader:
        whole |= line.startswith(b"data: [DONE]")
        if line.startswith(b'data: {"index"'):
            came.append((time.time(), len(json.loads(line[6:])["token_ids"])))
    writer.close()
    if not whole:
        raise SystemExit("a stream broke off")


async def client(url, arguments, number):
    """One stream after the other; the times and counts of its tokens."""
    came = []
    for turn in range(arguments.rounds):
        seed = number * arguments.rounds + turn
        prompt = [(seed * 7919 + place * 31) % arguments.vocab for place in range(arguments.prompt_tokens)]
        await stream(
            url,
            {
                "token_ids": prompt,
                "max_tokens": arguments.new_tokens,
                "ignore_eos": True,
                "stream": True,
                "seed": seed,
                "protocol": arguments.protocol,
                "top_k": arguments.top_k,
            },
            came,
        )
    return came


def process(arguments, numbers, told):
    async def run():
        url = urllib.parse.urlsplit(arguments.url)
        told.put(await asyncio.gather(*(client(url, arguments, number) for number in numbers)))

    asyncio.run(run())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
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
    parser.add_argument("--against", type=float)
    arguments = parser.parse_args()
    told = multiprocessing.Queue()
    shares = [
        range(first, arguments.streams, arguments.processes)
        for first in range(min(arguments.processes, arguments.streams))
    ]
    workers = [multiprocessing.Process(target=process, args=(arguments, share, told)) for share in shares]
    begin = time.time()
    for worker in workers:
        worker.start()
    streams = [came for _ in workers for came in told.get()]
    for worker in workers:
        worker.join()
    end = max(came[-1][0] for came in streams)
    tokens = sum(count for came in streams for _, count in came)
    rate = tokens / (end - begin)
    found = {
        "streams": arguments.streams,
        "tokens_per_s": round(rate, 1),
        "seconds": round(end - begin, 2),
        "events": sum(map(len, streams)),
    }
    if arguments.against:
        found["part"] = round(rate / arguments.against, 3)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
