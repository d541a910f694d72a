"""Where the prompt of each request ended, shared by the workers of a model.

Dynamo sends a stream on as prompt and generated tokens in one list, and does not say where the prompt ended. RecGen's
states follow from the prompt alone, so the next worker has to know. The first worker of a request writes it down before
the first token; a request that ends is forgotten, and what a cut-off one leaves goes after a day.
"""

import base64
import hashlib
import json
import os
import pathlib
import tempfile
import time

import aiohttp

DAY = 24 * 3600
HOUR = 3600


def default_place(discovery):
    """Beside what the workers' discovery uses already."""
    if discovery == "etcd":
        return os.environ.get("ETCD_ENDPOINTS", "http://localhost:2379").split(",")[0]
    return os.environ.get("DYN_FILE_KV", os.path.join(tempfile.gettempdir(), "dynamo_store_kv")) + "-photonc"


async def opened(place):
    """The store at a folder or an address."""
    store = Etcd(place) if place.startswith(("http://", "https://")) else Folder(place)
    await store.open()
    return store


def entry(ids):
    """What is written of a prompt: its length, and what tells it from another request of the same name."""
    return json.dumps({"length": len(ids), "digest": digest(ids)})


def digest(ids):
    return hashlib.blake2b(",".join(map(str, ids)).encode(), digest_size=16).hexdigest()


def length_in(text, ids):
    """The length that an entry states, if these tokens begin with its prompt."""
    noted = json.loads(text)
    length = noted["length"]
    return length if length <= len(ids) and digest(ids[:length]) == noted["digest"] else None


class Folder:
    """A folder that all workers see."""

    def __init__(self, place):
        self.folder = pathlib.Path(place)

    async def open(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            try:
                if time.time() - path.stat().st_mtime > DAY:
                    path.unlink()
            except FileNotFoundError:
                pass  # another worker was faster

    def path(self, request_id):
        return self.folder / hashlib.blake2b(request_id.encode(), digest_size=16).hexdigest()

    async def length(self, request_id, ids):
        path = self.path(request_id)
        with tempfile.NamedTemporaryFile("w", dir=self.folder, delete=False) as file:
            file.write(entry(ids))
        try:
            os.link(file.name, path)  # whole, and only where there is none
        except FileExistsError:
            length = length_in(path.read_text(), ids)
            if length is not None:
                return length
            os.replace(file.name, path)
        finally:
            pathlib.Path(file.name).unlink(missing_ok=True)
        return len(ids)

    async def forget(self, request_id):
        self.path(request_id).unlink(missing_ok=True)

    async def close(self):
        pass


class Etcd:
    """etcd, by the JSON form of its interface."""

    def __init__(self, place):
        self.place, self.http, self.lease, self.leased = place, None, None, 0.0

    async def open(self):
        self.http = aiohttp.ClientSession(self.place, timeout=aiohttp.ClientTimeout(total=5))
        await self.grant()

    async def ask(self, path, body):
        async with self.http.post(path, json=body) as answer:
            answer.raise_for_status()
            return await answer.json()

    async def grant(self):
        """A lease that outlives whatever is written within the next hour by a day."""
        if time.monotonic() - self.leased > HOUR or self.lease is None:
            self.lease = (await self.ask("/v3/lease/grant", {"TTL": DAY + HOUR}))["ID"]
            self.leased = time.monotonic()
        return self.lease

    def key(self, request_id):
        return base64.b64encode(f"photonc/prompts/{request_id}".encode()).decode()

    async def length(self, request_id, ids):
        key = self.key(request_id)
        put = {"key": key, "value": base64.b64encode(entry(ids).encode()).decode(), "lease": await self.grant()}
        done = await self.ask(
            "/v3/kv/txn",
            {
                "compare": [{"key": key, "target": "CREATE", "result": "EQUAL", "create_revision": "0"}],
                "success": [{"request_put": put}],
                "failure": [{"request_range": {"key": key}}],
            },
        )
        if done.get("succeeded"):
            return len(ids)
        found = done["responses"][0]["response_range"].get("kvs", [])
        length = length_in(base64.b64decode(found[0]["value"]), ids) if found else None
        if length is None:
            await self.ask("/v3/kv/put", put)
            return len(ids)
        return length

    async def forget(self, request_id):
        await self.ask("/v3/kv/deleterange", {"key": self.key(request_id)})

    async def close(self):
        await self.http.close()
