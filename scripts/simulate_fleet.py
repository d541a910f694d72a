#!/usr/bin/env python3
"""A fleet that is larger than any here, simulated with recorded timings: where frontends, workers and queues saturate.

usage: scripts/simulate_fleet.py [--router smg dynamo] [--servers 4 25 100] [--frontend-cores 8 32] [--load 0.8]
                                 [--prompt-tokens 512] [--new-tokens 2048] [--run-ahead 8] [--rows 512] [--seconds 8]

Requests arrive at random (Poisson) at `--load` of what the GPUs draw. A frontend sends each to the server that it
takes for the least busy: its own requests it counts, the others' it hears of twice a second. A server draws a burst
for all its rows, prefill of what was admitted first; each burst is an event for every row, which passes its worker,
where there is one, and its frontend's cores. Nothing but Python is needed, and the same arguments print the same
table.

Columns: streams under way; tokens/s and the GPUs' part of them; events/s; how busy frontends and workers are (above
100 %: more comes than they can pass on, and delays only grow); time to the first token, and how long events wait for
cores.
"""

import argparse
import heapq
import math
import random

# H200, `paper-600m` in bf16: steady tokens/s by rows, and prefill of 32 prompts of 2 048 (docs/performance.md).
TOKENS_PER_S = {1: 26_700, 8: 171_600, 64: 606_800, 2048: 935_900}
PREFILL_SECONDS = 10.9e-3 / (32 * 2048)
META_TOKENS = 16
# Seconds of one core for a request and for an event: of the frontend, and of the worker by the server (docs/scale.md).
ROUTERS = {"smg": ((170e-6, 23e-6), None), "dynamo": ((563e-6, 170e-6), (844e-6, 126e-6))}
REPORT_SECONDS = 0.5
MAX_QUEUE = 256


def tokens_per_s(rows):
    """Between the recorded points, straight in logarithms."""
    known = sorted(TOKENS_PER_S.items())
    for (low, slow), (high, fast) in zip(known, known[1:]):
        if rows <= high:
            part = math.log(rows / low) / math.log(high / low)
            return math.exp(math.log(slow) + part * math.log(fast / slow))
    return known[-1][1]


class Cores:
    """Work is done in the order in which it comes."""

    def __init__(self, count, costs):
        self.count, (self.of_request, self.of_event), self.free, self.busy = count, costs, 0.0, 0.0

    def takes(self, now, requests=0, events=0):
        """When this work is done."""
        seconds = (requests * self.of_request + events * self.of_event) / self.count
        self.free = max(now, self.free) + seconds
        self.busy += seconds
        return self.free


class Server:
    def __init__(self, worker):
        self.waiting, self.rows, self.running, self.reported, self.worker = [], [], False, 0, worker


class Simulation:
    def __init__(self, given, router, servers, cores):
        self.given, self.random = given, random.Random(1)
        frontend, worker = ROUTERS[router]
        frontends = max(1, cores // 8)
        self.frontends = [Cores(cores / frontends, frontend) for _ in range(frontends)]
        self.servers = [Server(worker and Cores(1, worker)) for _ in range(servers)]
        self.own = [[0] * servers for _ in range(frontends)]
        self.queue, self.number, self.now = [], 0, 0.0
        self.tokens = self.events = self.refused = 0
        self.first, self.delays, self.streams = [], [], []
        bursts = math.ceil(given.new_tokens / (META_TOKENS * given.run_ahead))
        drawn = bursts * META_TOKENS * given.run_ahead / tokens_per_s(given.rows)
        self.capacity = servers / (drawn + given.prompt_tokens * PREFILL_SECONDS)
        self.bursts, self.warm = bursts, given.seconds / 4

    def at(self, when, what, *about):
        self.number += 1
        heapq.heappush(self.queue, (when, self.number, what, about))

    def run(self):
        self.at(0.0, self.arrive)
        self.at(REPORT_SECONDS, self.report)
        while self.queue and self.queue[0][0] < self.given.seconds:
            self.now, _, what, about = heapq.heappop(self.queue)
            what(*about)
        return self

    def counts(self):
        return self.now >= self.warm

    def report(self):
        for server in self.servers:
            server.reported = len(server.waiting) + len(server.rows)
        if self.counts():
            self.streams.append(sum(server.reported for server in self.servers))
        self.at(self.now + REPORT_SECONDS, self.report)

    def arrive(self):
        self.at(self.now + self.random.expovariate(self.given.load * self.capacity), self.arrive)
        frontend = self.random.randrange(len(self.frontends))
        # Two at random and the better of them, which is near the least of all and does not herd.
        pair = [self.random.randrange(len(self.servers)) for _ in range(2)]
        own = self.own[frontend]
        chosen = min(pair, key=lambda one: own[one] * len(self.frontends) + self.servers[one].reported)
        own[chosen] += 1
        done = self.frontends[frontend].takes(self.now, requests=1)
        self.at(done, self.reach, chosen, [frontend, self.now, self.bursts])

    def reach(self, chosen, request):
        """Through the worker, if there is one: work is given to cores when it comes to them, never ahead."""
        worker = self.servers[chosen].worker
        self.at(worker.takes(self.now, requests=1) if worker else self.now, self.admit, chosen, request)

    def admit(self, chosen, request):
        server = self.servers[chosen]
        if len(server.waiting) >= MAX_QUEUE:
            self.own[request[0]][chosen] -= 1
            self.refused += self.counts()
            return
        server.waiting.append(request)
        if not server.running:
            self.burst(chosen)

    def burst(self, chosen):
        server, given = self.servers[chosen], self.given
        free = given.rows - len(server.rows)
        admitted, server.waiting = server.waiting[:free], server.waiting[free:]
        server.rows += admitted
        server.running = bool(server.rows)
        if server.running:
            drawn = len(server.rows) * META_TOKENS * given.run_ahead / tokens_per_s(len(server.rows))
            prefill = len(admitted) * given.prompt_tokens * PREFILL_SECONDS
            self.at(self.now + prefill + drawn, self.drawn, chosen)

    def drawn(self, chosen):
        server, by_frontend = self.servers[chosen], {}
        for request in server.rows:
            by_frontend.setdefault(request[0], []).append(request)
        if self.counts():
            self.events += len(server.rows)
            self.tokens += len(server.rows) * META_TOKENS * self.given.run_ahead
        for frontend, requests in by_frontend.items():
            done = server.worker.takes(self.now, events=len(requests)) if server.worker else self.now
            began = [began for _, began, left in requests if left == self.bursts]
            self.at(done, self.passed, frontend, len(requests), self.now, began)
        for request in server.rows:
            request[2] -= 1
            self.own[request[0]][chosen] -= request[2] == 0
        server.rows = [request for request in server.rows if request[2]]
        self.burst(chosen)

    def passed(self, frontend, events, drawn, began):
        done = self.frontends[frontend].takes(self.now, events=events)
        if self.counts():
            self.delays.append(done - drawn)
            self.first += [done - one for one in began]


def quantile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else float("nan")


def row(given, router, servers, cores):
    done = Simulation(given, router, servers, cores).run()
    seconds = given.seconds - done.warm
    share = done.tokens / seconds / (servers * tokens_per_s(given.rows))
    # What was promised to cores, also behind the end.
    busy = sum(one.busy for one in done.frontends) / len(done.frontends) / given.seconds
    workers = [one.worker.busy for one in done.servers if one.worker]
    beside = f"{sum(workers) / len(workers) / given.seconds:.0%}" if workers else "-"
    streams = sum(done.streams) / max(1, len(done.streams))
    first, waits = [
        [f"{1e3 * quantile(values, part):,.0f}" for part in (0.5, 0.99)] for values in (done.first, done.delays)
    ]
    return (
        f"| {router} | {servers} | {cores} | {streams:,.0f} | {done.tokens / seconds / 1e6:.1f} M | {share:.0%} "
        f"| {done.events / seconds / 1e3:,.0f} K | {busy:.0%} | {beside} | {first[0]}, {first[1]} "
        f"| {waits[0]}, {waits[1]} "
        f"| {done.refused} |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--router", nargs="+", choices=ROUTERS, default=list(ROUTERS))
    parser.add_argument("--servers", type=int, nargs="+", default=[4, 25, 100])
    parser.add_argument("--frontend-cores", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--load", type=float, default=0.8)
    for name, default in [("prompt-tokens", 512), ("new-tokens", 2048), ("run-ahead", 8), ("rows", 512)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seconds", type=float, default=8)
    given = parser.parse_args()
    print(
        "| router | servers | cores of frontends | streams | tokens/s | of the GPUs | events/s | frontends busy "
        "| workers busy "
        "| first token p50, p99 ms | an event waits p50, p99 ms | refused |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for router in given.router:
        for servers in given.servers:
            for cores in given.frontend_cores:
                print(row(given, router, servers, cores), flush=True)


if __name__ == "__main__":
    main()
