"""Renders chat templates with Jinja2 set up as transformers sets it up, for tests/chat.rs.

    chat_check.py CASES RESULTS

CASES has one JSON object a line: `template`, `variables`, and `date`, seconds since 1970. RESULTS gets one line for each:
`{"text": ..}`, or `{"error": ..}` where Python refuses.
"""

import json
import sys
from datetime import datetime, timezone

import jinja2.nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    """The tag `generation`: its body, as the body of a call."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        call = self.call_method("_body", [])
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def environment(date):
    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise TemplateError(message)

    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = date.strftime
    return made


def main(cases, results):
    with open(cases, encoding="utf-8") as lines, open(results, "w", encoding="utf-8") as out:
        for line in lines:
            case = json.loads(line)
            date = datetime.fromtimestamp(case["date"], timezone.utc).replace(tzinfo=None)
            try:
                template = environment(date).from_string(case["template"])
                result = {"text": template.render(**case["variables"])}
                json.dumps(result, ensure_ascii=False).encode()
            except Exception as error:  # whatever Python refuses with
                result = {"error": f"{type(error).__name__}: {error}"[:300]}
            out.write(json.dumps(result, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
