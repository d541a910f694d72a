#!/usr/bin/env python3
"""Draws the pictures of PHOTON in this folder: photon*.svg. They read in light and in dark, and the same script
gives the same bytes. Needs Python's standard library alone.

    docs/images/photon.py            writes them
"""

import sys
from pathlib import Path

STYLE = """
svg { --page: #ffffff; --ink: #1f2328; --faint: #59636e; --line: #8c959f; --box: #f0f3f6;
  --ahead: #0969da; --ahead-box: #ddf0ff; --wide: #bc4c00; --wide-box: #fff1e5; }
@media (prefers-color-scheme: dark) { svg { --page: #0d1117; --ink: #e6edf3; --faint: #9da7b3; --line: #6e7681;
  --box: #1c2128; --ahead: #6cb6ff; --ahead-box: #10243e; --wide: #f69d50; --wide-box: #2f1d10; } }
text { font: 14px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: var(--ink); }
.page { fill: var(--page); }
.small { font-size: 12px; fill: var(--faint); }
.ahead { fill: var(--ahead); } .wide { fill: var(--wide); }
.strong { font-weight: 600; }
.middle { text-anchor: middle; } .end { text-anchor: end; }
.box { fill: var(--box); stroke: var(--line); }
.box-ahead { fill: var(--ahead-box); stroke: var(--ahead); stroke-width: 1.5; }
.box-wide { fill: var(--wide-box); stroke: var(--wide); stroke-width: 1.5; }
.band { fill: none; stroke-width: 1.5; stroke-dasharray: 6 4; }
.band-ahead { stroke: var(--ahead); } .band-wide { stroke: var(--wide); } .band-plain { stroke: var(--line); }
.arrow { fill: none; stroke: var(--line); stroke-width: 1.25; }
.arrow-ahead { fill: none; stroke: var(--ahead); stroke-width: 2; }
.arrow-wide { fill: none; stroke: var(--wide); stroke-width: 1.25; }
.faded { stroke-dasharray: 3 3; }
.head { fill: var(--line); } .head-ahead { fill: var(--ahead); } .head-wide { fill: var(--wide); }
"""

KINDS = ("", "-ahead", "-wide")


class Drawing:
    """An SVG that grows; lengths are pixels."""

    def __init__(self, width, height, title, description):
        heads = "".join(
            f'<marker id="head{kind}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'markerUnits="userSpaceOnUse" orient="auto"><path class="head{kind}" d="M0 0 8 4 0 8z"/></marker>'
            for kind in KINDS
        )
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" role="img" aria-labelledby="title description">',
            f'<title id="title">{title}</title>',
            f'<desc id="description">{description}</desc>',
            f"<style>{STYLE}</style>",
            f"<defs>{heads}</defs>",
            f'<rect class="page" width="{width}" height="{height}" rx="8"/>',
        ]

    def box(self, x, y, width, height, kind="", radius=4):
        self.parts.append(
            f'<rect class="box{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}"/>'
        )

    def band(self, x, y, width, height, kind):
        self.parts.append(
            f'<rect class="band band{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="10"/>'
        )

    def text(self, x, y, words, style=""):
        named = f' class="{style}"' if style else ""
        self.parts.append(f'<text{named} x="{x}" y="{y}">{words}</text>')

    def labelled(self, x, y, width, height, lines, kind="", style=""):
        self.box(x, y, width, height, kind)
        first = y + height / 2 + 5 - 8 * (len(lines) - 1)
        for number, words in enumerate(lines):
            self.text(x + width / 2, first + 16 * number, words, f"middle {style}".strip())

    def arrow(self, path, kind="", faded=False):
        dashes = " faded" if faded else ""
        self.parts.append(f'<path class="arrow{kind}{dashes}" d="{path}" marker-end="url(#head{kind})"/>')

    def finished(self):
        return "\n".join([*self.parts, "</svg>", ""])


def overview():
    """The prompt read bottom-up, the coarse stream ahead of it, and the wide expansion."""
    d = Drawing(
        880,
        372,
        "PHOTON: a coarse stream that runs ahead, and a wide expansion",
        "The prompt is read bottom-up, from 16 tokens to four vectors to one state. From then on each "
        "state gives the four vectors of the next 16 tokens, and these give the next state: the coarse "
        "stream, which reads no token. The tokens of all meta-contexts follow in one wide batch.",
    )
    left, column, top, middle, bottom = 138, 182, 64, 160, 268
    d.text(14, top + 16, "level 2", "strong")
    d.text(14, top + 32, "one state", "small")
    d.text(14, middle + 10, "level 1", "strong")
    d.text(14, middle + 26, "four vectors", "small")
    d.text(14, bottom + 4, "tokens", "strong")
    d.text(14, bottom + 20, "sixteen", "small")

    d.band(left + column - 6, 30, 3 * column + 2, 172, "-ahead")
    d.text(left + column + 6, 24, "1 · coarse: runs ahead, one step for 16 tokens", "ahead strong")
    d.band(left + column - 6, 244, 3 * column + 2, 56, "-wide")
    d.text(left + column + 6, 326, "2 · expand: the tokens of all of them, in one wide batch", "wide strong")
    ways = "each chunk of four tokens is drawn one after the other, all chunks side by side"
    d.text(left + column + 6, 346, ways, "small")
    d.text(left + 80, 326, "the prompt", "strong middle")
    d.text(left + 80, 346, "is read bottom-up", "small middle")

    for k in range(4):
        x = left + k * column
        kind, arrows = ("", "") if k == 0 else ("-ahead", "-ahead")
        for unit in range(4):
            d.box(x + 4 + unit * 40, middle, 32, 26, kind)
            for token in range(4):
                d.box(x + 3 + unit * 40 + token * 9, bottom - 8, 7, 18, "" if k == 0 else "-wide", 2)
        d.labelled(x + 56, top, 48, 36, [f"s{'₀₁₂₃'[k]}"], kind)
        # What a unit is made of: four vectors of each state, four tokens of each vector of the prompt.
        d.arrow(f"M{x + 80} {middle - 4}V{top + 40}", arrows)
        if k == 0:
            for unit in range(4):
                d.arrow(f"M{x + 20 + unit * 40} {bottom - 12}V{middle + 30}")
        # Everything below is conditioned on the unit before: the state of the meta-context before, the vector of the
        # chunk before.
        if k < 3:
            start, end = f"{x + 107} {top + 18}", f"{x + column} {middle + 13}"
            d.arrow(f"M{start}C{x + 165} {top + 18} {x + 150} {middle + 13} {end}", "-ahead")
        for unit in range(4):
            start = x + 20 + unit * 40
            if k == 0 and unit < 3:
                continue
            end = start + 40 if unit < 3 else x + column + 20
            if k == 3 and unit == 3:
                continue
            d.arrow(f"M{start} {middle + 29}C{start} {middle + 62} {end} {middle + 52} {end} {bottom - 12}", "-wide")
    x = left + 3 * column
    d.arrow(f"M{x + 107} {top + 18}H{x + 150}", "-ahead", faded=True)
    return d.finished()


def units():
    """What a chunk, a unit and a meta-context are."""
    d = Drawing(
        720,
        262,
        "Tokens, chunks, units and a meta-context",
        "Sixteen tokens in four chunks of four. Each chunk becomes one unit of level 1; four units of "
        "level 1 become one unit of level 2. The sixteen tokens are a meta-context.",
    )
    left, top, middle, bottom = 150, 26, 104, 182
    d.text(14, top + 22, "level 2", "strong")
    d.text(14, middle + 22, "level 1", "strong")
    d.text(14, bottom + 20, "tokens", "strong")
    d.labelled(left + 140, top, 120, 34, ["one unit"], "-ahead")
    for unit in range(4):
        x = left + unit * 102
        d.labelled(x, middle, 90, 34, ["unit"], "-ahead")
        d.arrow(f"M{x + 45} {middle - 3}L{left + 200 + (unit - 1.5) * 22} {top + 38}")
        for token in range(4):
            d.labelled(x + token * 23, bottom, 20, 28, [str(4 * unit + token + 1)], "", "small")
            d.arrow(f"M{x + 10 + token * 23} {bottom - 3}L{x + 45 + (token - 1.5) * 12} {middle + 38}")
    d.arrow(f"M{left} {bottom + 42}H{left + 396}")
    d.arrow(f"M{left + 396} {bottom + 42}H{left}")
    d.text(left + 198, bottom + 62, "a meta-context: the tokens of one unit of the top level", "small middle")
    d.text(left + 420, middle + 14, "a chunk of 4 units,", "small")
    d.text(left + 420, middle + 30, "folded into one (C₂ = 4)", "small")
    d.text(left + 420, bottom + 10, "a chunk of 4 tokens,", "small")
    d.text(left + 420, bottom + 26, "folded into one (C₁ = 4)", "small")
    return d.finished()


def window():
    """How one vector becomes a chunk: prefix, elements, feedback."""
    d = Drawing(
        760,
        286,
        "The window of a decoder",
        "One vector becomes two prefix vectors. A small Transformer reads them and yields the first "
        "element of the chunk; each element is fed back and yields the next, up to four. The window is "
        "five positions long, however long the text is.",
    )
    d.labelled(14, 186, 118, 44, ["the unit before,", "one vector"], "-ahead", "small")
    d.labelled(164, 186, 92, 44, ["converter"], "")
    d.arrow("M134 208H160")
    names = ["u₁", "u₂", "y₁", "y₂", "y₃"]
    for place, name in enumerate(names):
        x = 296 + place * 88
        d.labelled(x, 186, 56, 44, [name], "" if place < 2 else "-wide")
        d.arrow(f"M{x + 28} 183V152")
    d.arrow("M258 200H292")
    d.box(286, 104, 428, 44)
    d.text(366, 131, "causal decoder", "middle")
    for place in range(1, 5):
        x = 296 + place * 88
        d.arrow(f"M{x + 28} 101V70", "-wide")
        d.labelled(x, 26, 56, 40, [f"x{'₁₂₃₄'[place - 1]}"], "-wide")
        if place < 4:
            d.arrow(f"M{x + 59} 46C{x + 78} 46 {x + 74} 208 {x + 84} 208", "-wide", faded=True)
    d.text(368, 252, "prefix", "small middle")
    d.text(588, 252, "fed back: tokens, or the outputs themselves", "small middle")
    d.text(14, 52, "a chunk: four elements,", "small")
    d.text(14, 68, "one after the other", "small")
    alone = "No window sees another window. So the chunks of a text, and of many texts, can be decoded side by side."
    d.text(14, 274, alone, "small")
    return d.finished()


def step():
    """The step program, its delay, and what a sample reaches."""
    d = Drawing(
        880,
        330,
        "One step of the generator, and the two ways back to its state",
        "From the state of the step before, the level-2 decoder makes the reconstruction, the level-1 "
        "decoder makes logits, and tokens are sampled. RecGen makes the next state of the reconstruction: "
        "no sample is on that way. HierGen makes it of the tokens, through the level-1 encoder.",
    )
    row, low = 70, 226
    d.labelled(16, row, 120, 48, ["top_state", "of the step before"], "-ahead", "small")
    d.labelled(172, row, 124, 48, ["level-2 converter", "and decoder"], "-ahead", "small")
    d.labelled(332, row, 124, 48, ["reconstruction", "four vectors"], "-ahead", "small")
    d.labelled(500, row, 124, 48, ["level-1 converter,", "decoder, head"], "-wide", "small")
    d.labelled(660, row, 76, 48, ["sample"], "-wide", "small")
    d.labelled(772, row, 84, 48, ["16 tokens"], "-wide", "small")
    for start, end in [(136, 168), (296, 328), (456, 496), (624, 656), (736, 768)]:
        kind = "-ahead" if end < 400 else "-wide"
        d.arrow(f"M{start + 2} {row + 24}H{end}", kind)
    d.labelled(16, low, 120, 48, ["top_state", "of the next step"], "-ahead", "small")
    d.labelled(172, low, 124, 48, ["level-2 encoder,", "with its cache"], "-ahead", "small")
    d.labelled(332, low, 124, 48, ["level-2 chunker"], "-ahead", "small")
    d.labelled(600, low, 136, 48, ["embedding and", "level-1 encoder"], "-wide", "small")
    d.arrow(f"M170 {low + 24}H140", "-ahead")
    d.arrow(f"M330 {low + 24}H300", "-ahead")
    d.arrow(f"M394 {row + 50}V{low - 4}", "-ahead")
    d.text(404, 146, "RecGen: no sample on the way", "ahead strong")
    d.text(404, 164, "this loop is the coarse graph", "small")
    d.arrow(f"M814 {row + 50}V{low + 24}H740", "-wide", faded=True)
    d.arrow(f"M598 {low + 24}H460", "-wide", faded=True)
    d.text(802, 194, "HierGen: through the tokens", "wide strong end")
    d.text(802, 212, "then there is no split", "small end")
    d.arrow(f"M76 {low - 3}V{row + 52}", "-ahead", faded=True)
    d.text(86, 168, "delay", "small")
    d.text(16, 32, "one step: 16 tokens", "strong")
    colours = "Blue: what no sampled token reaches under RecGen. Orange: what follows in the wide batch."
    d.text(16, 308, colours, "small")
    return d.finished()


def drawings():
    """Every picture by the name of its file."""
    return {
        "photon.svg": overview(),
        "photon-units.svg": units(),
        "photon-window.svg": window(),
        "photon-step.svg": step(),
    }


def main():
    folder = Path(__file__).resolve().parent
    for name, drawn in drawings().items():
        (folder / name).write_text(drawn, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
