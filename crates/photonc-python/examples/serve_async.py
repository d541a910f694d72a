"""Several streams on one event loop, one of them left early. Usage: serve_async.py BUNDLE [BACKEND]"""

import asyncio
import contextlib
import sys

import photonc


async def answer(model: photonc.Model, prompt: str, most: int) -> str:
    """The text behind a prompt, cut off behind so many tokens."""
    text, tokens = "", 0
    params = photonc.SamplingParams(temperature=0, max_tokens=60)
    async with contextlib.aclosing(model.astream(prompt, params)) as bursts:
        async for burst in bursts:
            text += burst.text or ""
            tokens += len(burst.token_ids)
            if tokens >= most:
                break
    return text


async def main(bundle: str, backend: str = "auto") -> None:
    """Three prompts side by side."""
    with photonc.load(bundle, backend) as model:
        prompts = ["The old man", "In the beginning", "And he said"]
        for text in await asyncio.gather(*(answer(model, prompt, 20 * at + 20) for at, prompt in enumerate(prompts))):
            print(repr(text))


asyncio.run(main(*sys.argv[1:3]))
