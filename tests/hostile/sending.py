"""Inputs that are sent to the server of their job instead of commands that meet files."""

import bodies
from inputs import Input
from served import head, strict

NO_JSON = "no JSON"
# Of a body that would take too much memory.
TOO_MANY = "values"
READ_AS = "a value is as its rule has it"


def sent(kind, name, request, names=(), accept="", **how):
    """Bytes, or pieces of them with what stands between, or what makes them; `how` is `Server.meet`'s."""

    def run(server):
        pieces = request() if callable(request) else request
        return server.meet([pieces] if isinstance(pieces, bytes) else pieces, names=names, **how)

    return Input(kind, name, None, [], names, accept, run=run)


def posted(name, path, body, names=(), accept="", more=()):
    """A body that is posted, or what makes one."""

    def request():
        made = body() if callable(body) else body
        return head("POST", path, made if isinstance(made, bytes) else made.encode("utf-8", "surrogatepass"), more)

    return sent("http", f"{path} {name}", request, names, accept)


def judged(name, path, text, touched=()):
    """A body whose parameters are judged by the rules; `touched` are those that a refusal may name where none of them
    is to blame."""
    try:
        body = strict(text, bodies.objects)
    except ValueError:
        # The first that is wrong is named, which may be a parameter before the mistake.
        return posted(name, path, text, (NO_JSON, TOO_MANY, bodies.NOT_KNOWN, *touched))
    blamed = bodies.wrong(path, body)
    names = tuple(blamed or {bodies.REQUIRED.get(path, ""), *touched} - {""})
    return posted(name, path, text, names, "" if blamed else READ_AS)
