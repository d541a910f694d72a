"""Hostile arguments: numbers beyond every bound, names that are none, options that do not fit each other."""

from fixtures import IDS, copy
from inputs import Input
from values import ESCAPE

NUMBERS = [
    "0",
    "1",
    "-1",
    "00",
    "3",
    "1000000000",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e3",
    "0x10",
    "",
    " 1",
    "1.5",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "-0.0",
    "½",
    "١",
    ESCAPE,
    "all",
    "max",
    "1,2",
    ",",
]
NAMES = [
    "",
    "nope",
    ESCAPE,
    "../x",
    "/",
    "/dev/zero",
    "-",
    "--",
    "\u202ex",
    "x" * 5000,
    "coarse",
    "recgen",
    "*",
    "a=b",
    "\n",
]

GENERATE = ["generate", "bundle", "--prompt-ids", IDS, "-n", "2", "--greedy", "-q"]
DRAW = ["generate", "bundle", "--prompt-ids", IDS, "-n", "2", "-q"]
SCORE = ["score", "bundle", "--ids", IDS, "-q"]
BENCH = ["bench", "bundle", "-q", "--repetitions", "1", "--regime", "16/16"]
EXPORT = ["export", "ckpt", "-o", "out", "-q"]
VERIFY = ["verify", "bundle", "-q"]

# A sound command and an option of it; what it takes is a number or a name.
OPTIONS = [
    *(
        (GENERATE, option, NUMBERS)
        for option in (
            "-n",
            "--samples",
            "--batch",
            "--reserve",
            "--run-ahead",
            "--threads",
            "--devices",
            "--presence-penalty",
            "--frequency-penalty",
            "--repetition-penalty",
            "--stop-ids",
            "--seed",
        )
    ),
    *((DRAW, option, NUMBERS) for option in ("--temperature", "--top-k", "--top-p", "--min-p", "--seed")),
    *(
        (GENERATE, option, NAMES)
        for option in (
            "--protocol",
            "--backend",
            "--align",
            "--print",
            "--stop",
            "--date",
            "--compute",
            "--ort-lib",
            "--provider",
            "--tools",
            "--out",
        )
    ),
    (
        ["generate", "bundle", "-n", "2", "--greedy", "-q"],
        "--prompt-ids",
        [*NUMBERS, "256", "255," * 100_000 + "1", "1 " * 3000],
    ),
    (["generate", "bundle", "-n", "2", "--greedy", "-q"], "--prompt", [*NAMES, "a" * 100_000]),
    *((SCORE, option, NUMBERS) for option in ("--window", "--stride", "--threads")),
    (["score", "bundle", "-q"], "--ids", [*NUMBERS, "1," * 60_000 + "1"]),
    (SCORE, "--logits", NAMES),
    *((BENCH, option, NUMBERS) for option in ("--batch", "--repetitions", "--reserve", "--run-ahead", "--threads")),
    (BENCH, "--regime", [f"{prompt}/{new}" for prompt in NUMBERS[:10] for new in ("0", "16", "18446744073709551615")]),
    (BENCH, "--plot", NAMES),
    *((EXPORT, option, NUMBERS) for option in ("--max-tokens", "--stop-after", "--pad-heads", "-O")),
    *(
        (EXPORT, option, NAMES)
        for option in ("--target", "--dtype", "--protocol", "--dialect", "--weight-map", "--print-after", "--profile")
    ),
    (
        EXPORT,
        "--quant",
        [
            *NAMES,
            "level1=int8",
            "lm_head=int4",
            "=int8",
            "level1=",
            "level1.decoder=int8,level1.decoder=fp8",
            "level1=int8," * 5000 + "level1=int8",
            "nope=int8",
        ],
    ),
    (
        EXPORT,
        "--target",
        ["tensorrt-rtx:0", "tensorrt-rtx:", "tensorrt-rtx:999999999999", "portable,portable", ",", "cuda,portable"],
    ),
    *((VERIFY, option, NUMBERS) for option in ("--seed", "--threads")),
    (VERIFY, "--graph", NAMES),
    *(
        (
            [*VERIFY, "--drift", "--ids", ",".join(["1"] * 64), "--prompt-tokens", "16", "-n", "16", "--prompts", "1"],
            option,
            NUMBERS,
        )
        for option in ("--batch", "--distances", "--prompt-tokens", "-n", "--prompts", "--min-agreement", "--max-kl")
    ),
    *((["inspect", "ckpt"], option, NAMES) for option in ("--graph", "--explain", "--format", "--gpu", "--dialect")),
    *((["inspect", "bundle", "--cost"], option, NUMBERS) for option in ("--batch", "--context", "--run-ahead")),
    (["inspect", "bundle"], "--fold", NUMBERS),
    *((["inspect", "bundle", "--format", form], "--context", NUMBERS) for form in ("json", "html")),
    *((["synth", "--preset", "tiny", "-o", "out", "-q"], option, NUMBERS) for option in ("--layers", "--seed")),
    (["synth", "-o", "out"], "--preset", NAMES),
    *((["reduce", "bundle", "--graph", "coarse", "-q"], option, NAMES) for option in ("--passes", "--graph")),
    *(
        (["package", "bundle", "-o", "out", "-q", "--for", kind], option, NAMES)
        for kind in ("dynamo", "triton", "kserve", "docker")
        for option in ("--served-model-name", "--image", "--chat-template")
    ),
    (["package", "bundle", "--for", "kserve", "-o", "out", "-q"], "--gpus", NUMBERS),
    (["build", "bundle"], "--engine", [*NAMES, "tensorrt-rtx:89", "tensorrt:89", "tensorrt-rtx:89,,"]),
    (
        ["build", "bundle", "--engine", "tensorrt-rtx:89"],
        "--profile",
        [*NAMES, "batch=0:0:0", "batch=1:8:18446744073709551615", "batch=8:1:1", "capacity=", "batch=1:1:1," * 1000],
    ),
    (["completions"], "", NAMES),
    (["doctor"], "", NAMES),
    (["export"], "", NAMES),
    (["generate", "--prompt-ids", "1"], "", NAMES),
    (["inspect"], "", NAMES),
    ([], "", NAMES),
    (["diff", "bundle"], "", NAMES),
    *(
        (["serve", "bundle", "--host", "256.0.0.1"], option, NUMBERS)
        for option in (
            "--port",
            "--batch",
            "--max-tokens",
            "--max-queue",
            "--request-timeout",
            "--keep-alive",
            "--max-body",
            "--run-ahead",
        )
    ),
]

# Numbers of these that are no mistake: a seed may be any, and so many of what is not there are none.
REFUSED_ZERO = {
    "--samples",
    "-n",
    "--batch",
    "--run-ahead",
    "--threads",
    "--window",
    "--stride",
    "--repetitions",
    "--max-tokens",
    "--pad-heads",
    "--layers",
    "--gpus",
    "--context",
    "--prompts",
    "--prompt-tokens",
    "--distances",
}
NOT_A_NUMBER = {"", "1.5x", ESCAPE, "½", "١", "0x10"}


def argument(rng, fixtures):
    cases = [(base, option, value) for base, option, values in OPTIONS for value in values]
    while True:
        for base, option, value in rng.sample(cases, len(cases)):
            command = list(base)
            if option in command:
                at = command.index(option)
                command[at + 1] = value
            else:
                command += ([option] if option else []) + [value]
            if rng.random() < 0.15 and "--json" not in command:
                command = ["--json", *command]

            def make(fixtures, folder):
                copy(fixtures.folder / "b", folder / "bundle")
                copy(fixtures.folder / "m", folder / "ckpt")

            accept = "what an option takes is its reader's to say"
            if value == "0" and option in REFUSED_ZERO:
                accept = ""
            if value in NOT_A_NUMBER and any(
                values is NUMBERS and base is known and option == other for known, other, values in OPTIONS
            ):
                accept = ""
            shown = value if len(value) < 30 else f"{value[:20]}..{len(value)}"
            yield Input(
                "argument", f"{' '.join(base[:1])} {option} {shown!r}", make, [command], (), accept, prints_text=True
            )
