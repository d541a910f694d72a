#!/usr/bin/env python3
"""Makes the pages of docs that are lists: run it when docs/check.py says that one of them is not what it makes.

    docs/reference.py          writes all of them; needs Python's standard library alone (3.10 or newer)

command-help.md   the help of every command, from the snapshots that tests/cli.rs compares with the program
http-api.md       every endpoint and body, from openapi.json, which tests/serve compares with the server
python-api.md     names, types and docstrings of the Python package, from its sources
"""

import ast
import json
import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SNAPSHOTS = ROOT / "tests/snapshots"
PACKAGE = ROOT / "crates/photonc-python/python/photonc"
NATIVE = ROOT / "crates/photonc-python/src"
COLUMNS = 120


def wrapped(text):
    """A paragraph in lines; code spans stay whole."""
    return textwrap.fill(" ".join(text.split()), COLUMNS, break_long_words=False, break_on_hyphens=False)


def cell(text):
    """A text in a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def made_by(source):
    return f"<!-- Made by docs/reference.py from {source}; change that. -->"


# Commands


def help_of(name):
    """What `photonc NAME --help` prints, from the snapshot."""
    text = (SNAPSHOTS / f"cli__{name}.snap").read_text(encoding="utf-8")
    _, _, shown = text.split("---\n", 2)
    lines = shown.rstrip("\n").split("\n")
    if not lines[0].startswith("$ photonc ") or lines[-1] != "--- exit code 0":
        sys.exit(f"tests/snapshots/cli__{name}.snap is no help")
    return "\n".join(line.rstrip() for line in lines[1:-1]).strip("\n")


def commands():
    whole = help_of("help")
    names = re.findall(r"^  ([a-z]+)\s", whole.split("Commands:\n")[1].split("\n\n")[0], re.MULTILINE)
    parts = [
        made_by("tests/snapshots/cli__help*.snap"),
        "# Every option",
        wrapped(
            "What `photonc COMMAND --help` prints. [Commands](commands.md) says which command is for what, what exit "
            "codes mean, and which variables are read."
        ),
        f"```text\n{whole}\n```",
    ]
    for name in names:
        if name != "help":
            parts += [f"## `photonc {name}`", f"```text\n{help_of(f'help_{name}')}\n```"]
    return parts


# HTTP


def type_of(schema, links=True):
    """A schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})" if links else name
    for word in ("oneOf", "anyOf", "allOf"):
        if word in schema:
            kinds = dict.fromkeys(type_of(one, links) for one in schema[word])
            return " or ".join(sorted(kinds, key=lambda kind: kind == "null"))
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    kinds = schema.get("type", "any value")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    told = []
    for kind in kinds:
        if kind == "array":
            told.append(f"list of {type_of(schema.get('items', {}), links)}")
        elif kind == "object" and isinstance(schema.get("additionalProperties"), dict):
            told.append(f"map to {type_of(schema['additionalProperties'], links)}")
        else:
            told.append(kind)
    return " or ".join(told)


def bounds_of(schema):
    found = []
    for word, shown in (("minimum", "at least"), ("maximum", "at most"), ("maxItems", "at most"), ("default", "default")):
        if word in schema:
            found.append(f"{shown} {json.dumps(schema[word])}")
    return f" ({', '.join(found)})" if found else ""


def fields_of(schema):
    """Tables of the fields of a schema, those of its parts included."""
    rows, others = [], []
    for part in schema.get("allOf", [schema]):
        if "$ref" in part:
            others.append(type_of(part))
        for name, field in part.get("properties", {}).items():
            needed = name in part.get("required", [])
            told = cell(field.get("description", "")) + (" **Required.**" if needed else "")
            rows.append(f"| `{name}` | {cell(type_of(field) + bounds_of(field))} | {told.strip()} |")
    parts = ["\n".join(["| field | type | meaning |", "|---|---|---|", *rows])] if rows else []
    return parts + ([f"And all fields of {', '.join(others)}."] if others else [])


def body_of(content):
    return ", ".join(f"{type_of(media.get('schema', {}))} (`{kind}`)" for kind, media in content.items())


def operation(verb, path, operation, shared):
    parts = [f"### `{verb.upper()} {path}`"]
    told = [operation.get("summary", ""), operation.get("description", "")]
    parts += [wrapped(text) for text in told if text.strip()]
    rows = [
        f"| `{one['name']}` | {one['in']} | {cell(type_of(one.get('schema', {})))} | {cell(one.get('description', ''))} |"
        for one in operation.get("parameters", [])
    ]
    if rows:
        parts.append("\n".join(["| parameter | in | type | meaning |", "|---|---|---|---|", *rows]))
    if "requestBody" in operation:
        parts.append(f"Body: {body_of(operation['requestBody']['content'])}.")
    answers = []
    for status, answer in operation["responses"].items():
        if (status, answer.get("description")) in shared:
            continue
        content = body_of(answer["content"]) if answer.get("content") else "none"
        answers.append(f"| {status} | {cell(answer.get('description', ''))} | {cell(content)} |")
    if shared <= {(status, answer.get("description")) for status, answer in operation["responses"].items()}:
        answers.append("| others | [Errors](#errors) | [ErrorResponse](#errorresponse) (`application/json`) |")
    parts.append("\n".join(["| status | meaning | body |", "|---|---|---|", *answers]))
    return parts


def http():
    api = json.loads((DOCS / "openapi.json").read_text(encoding="utf-8"))
    operations = [(verb, path, one) for path, verbs in api["paths"].items() for verb, one in verbs.items()]
    answers = [{(s, a.get("description")) for s, a in one["responses"].items()} for _, _, one in operations]
    # What all endpoints that refuse anything may answer is said once.
    refusing = [found for found in answers if any(status == "400" for status, _ in found)]
    shared = {answer for answer in set.intersection(*refusing) if int(answer[0]) >= 400}
    parts = [
        made_by("docs/openapi.json"),
        "# The HTTP API",
        wrapped(
            "Every endpoint and every field of `photonc serve`. [Serving](serving.md) says how to use them; the same as "
            "data, to generate clients from, is [openapi.json](openapi.json) here and `GET /openapi.json` of a server."
        ),
        "## Errors",
        "Where an endpoint's table has a line `others`, these are they. Each has a body [ErrorResponse](#errorresponse).",
        "\n".join(["| status | meaning |", "|---|---|", *(f"| {s} | {cell(d)} |" for s, d in sorted(shared))]),
    ]
    for tag in api["tags"]:
        parts.append(f"## {tag['description']}")
        for verb, path, one in operations:
            if tag["name"] in one.get("tags", []):
                parts += operation(verb, path, one, shared)
    parts.append("## Bodies")
    for name, schema in sorted(api["components"]["schemas"].items()):
        parts.append(f"### {name}")
        if schema.get("description"):
            parts.append(wrapped(schema["description"]))
        fields = fields_of(schema)
        parts += fields if fields else [f"{type_of(schema)[:1].upper()}{type_of(schema)[1:]}."]
    return parts


# Python


def paragraphs(docstring):
    """A docstring as Markdown: examples become blocks, double backticks single ones."""
    parts = []
    for block in re.split(r"\n\s*\n", docstring.strip()) if docstring else []:
        if block.lstrip().startswith(">>>"):
            parts.append(f"```python\n{textwrap.dedent(block)}\n```")
        else:
            # An example may follow its words without a blank line.
            words, arrow, example = block.partition("\n>>>")
            parts.append(wrapped(words.replace("``", "`")))
            if arrow:
                parts.append(f"```python\n>>>{example}\n```")
    return parts


def header(source, node):
    """How a function is declared, as it stands in the source, without its body."""
    lines = source.split("\n")[node.lineno - 1 : node.body[0].lineno]
    if node.body[0].lineno > node.lineno:
        lines.pop()
    text = textwrap.dedent("\n".join(lines)).rstrip()
    return text.removesuffix("...").rstrip().removesuffix(":")


def is_property(node):
    return any(isinstance(one, ast.Name) and one.id == "property" for one in node.decorator_list)


def documented(body):
    """Annotated names with the docstring behind each."""
    for at, node in enumerate(body):
        if isinstance(node, ast.AnnAssign):
            after = body[at + 1] if at + 1 < len(body) else None
            text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
            yield node, text


def field_rows(node):
    """Fields and properties of a class, those that its constructor makes included."""
    places = [node.body]
    places += [one.body for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
    for body in places:
        for field, text in documented(body):
            name = field.target.id if isinstance(field.target, ast.Name) else field.target.attr
            if name.startswith("_"):
                continue
            kind, default = ast.unparse(field.annotation), ""
            if field.value is not None and body is node.body:
                made = ast.unparse(field.value)
                default = {"field(default_factory=list)": "[]"}.get(made, made)
            yield name, kind, default, text
    for one in node.body:
        if isinstance(one, ast.FunctionDef) and is_property(one) and not one.name.startswith("_"):
            yield one.name, ast.unparse(one.returns), "", ast.get_docstring(one) or ""


def native_docstrings():
    """What the native half says of exceptions and of `Array` with its methods: stubs have no docstrings."""
    errors = (NATIVE / "errors.rs").read_text(encoding="utf-8")
    exception = re.compile(r'create_exception!\(\s*photonc,\s*(\w+),\s*\w+,\s*"([^"]*)"\s*\)')
    # `Error` would hide another type there.
    found = {name.replace("PhotoncError", "Error"): text for name, text in exception.findall(errors)}
    source = (NATIVE / "array.rs").read_text(encoding="utf-8")
    described = re.compile(r"((?:^ *///.*\n)+)(?:^ *#\[.*\]\n)*^ *(?:pub )?(?:fn|struct) (\w+)", re.MULTILINE)
    for comment, name in described.findall(source):
        text = "\n".join(line.strip().removeprefix("///").strip() for line in comment.strip().split("\n"))
        found["Array" if name == "Array" else f"Array.{name}"] = text
    return found


def python_class(source, node, docstrings):
    """A class; `docstrings` has those that the source lacks, by name."""
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    parts = [f"### {node.name}", f"```python\nclass {node.name}{f'({bases})' if bases else ''}\n```"]
    parts += paragraphs(ast.get_docstring(node) or docstrings.get(node.name, ""))
    rows = []
    for name, kind, default, text in field_rows(node):
        text = text or docstrings.get(f"{node.name}.{name}", "")
        shown = f"`{cell(default)}`" if default else ""
        rows.append(f"| `{name}` | `{cell(kind)}` | {shown} | {cell(text.replace('``', '`'))} |")
    if rows:
        parts.append("\n".join(["| name | type | default | meaning |", "|---|---|---|---|", *rows]))
    for one in node.body:
        function = isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef))
        if function and not one.name.startswith("_") and not is_property(one):
            parts += python_function(source, one, f"{node.name}.{one.name}", docstrings, "####")
    return parts


def python_function(source, node, name, docstrings, level="###"):
    parts = [f"{level} {name}", f"```python\n{header(source, node)}\n```"]
    return parts + paragraphs(ast.get_docstring(node) or docstrings.get(name, ""))


def python():
    package = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    parts = [
        made_by("crates/photonc-python/python/photonc"),
        "# The Python API",
        wrapped(
            "Every public name of the package `photonc`. [Python](python.md) is the introduction. The examples are run "
            "by the package's tests."
        ),
        *paragraphs(ast.get_docstring(package)),
    ]
    listed = next(
        ast.literal_eval(node.value)
        for node in package.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
    )
    shown = set()
    imports = [node for node in package.body if isinstance(node, ast.ImportFrom)]
    # What people begin with comes first.
    order = ["_model", "_sampling", "_results", "_files", "_checkpoint", "_photonc"]
    for node in sorted(imports, key=lambda node: order.index(node.module.rsplit(".", 1)[1])):
        path = PACKAGE / f"{node.module.rsplit('.', 1)[1]}.py"
        native = not path.is_file()
        source = (path.with_suffix(".pyi") if native else path).read_text(encoding="utf-8")
        module = ast.parse(source)
        if native:
            parts += ["## Arrays and errors", "What they are for: [Arrays](python.md#arrays), [Errors](python.md#errors)."]
        else:
            parts.append("## " + ast.get_docstring(module).split("\n")[0].rstrip("."))
        wanted = {alias.name for alias in node.names}
        docstrings = native_docstrings() if native else {}
        for one in module.body:
            if isinstance(one, ast.ClassDef) and one.name in wanted:
                parts += python_class(source, one, docstrings)
            elif isinstance(one, ast.FunctionDef) and one.name in wanted:
                parts += python_function(source, one, one.name, docstrings)
            elif isinstance(one, ast.AnnAssign) and one.target.id in wanted:
                parts += [f"### {one.target.id}", f"```python\n{ast.unparse(one)}\n```"]
            else:
                continue
            shown.add(one.target.id if isinstance(one, ast.AnnAssign) else one.name)
    if shown != set(listed):
        sys.exit(f"photonc.__all__ and what it imports differ: {', '.join(sorted(shown ^ set(listed)))}")
    return parts


def pages():
    """Every page, by its name in docs."""
    made = {"command-help.md": commands(), "http-api.md": http(), "python-api.md": python()}
    return {name: "\n\n".join(parts) + "\n" for name, parts in made.items()}


def main(arguments):
    if arguments:
        print(__doc__.strip())
        return 0 if arguments in (["-h"], ["--help"]) else 2
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
