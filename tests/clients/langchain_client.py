"""`langchain-openai`, unmodified: a chain, a batch, streams, asynchronous calls, log-probabilities.

usage: langchain_client.py URL MODEL
"""

import asyncio
import importlib.metadata
import sys

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI, OpenAI


async def later(model):
    return "".join([chunk.content async for chunk in model.astream("Who came across the garden?")])


def main():
    url, name = sys.argv[1:3]
    common = dict(base_url=f"{url}/v1", api_key="none", model=name, temperature=0, max_retries=0, timeout=120)
    chat = ChatOpenAI(max_tokens=24, **common)
    chain = ChatPromptTemplate.from_messages([("system", "Be brief."), ("user", "{question}")]) | chat | StrOutputParser()
    answer = chain.invoke({"question": "Who came across the garden?"})
    assert answer, "a chain answers"
    assert "".join(chain.stream({"question": "Who came across the garden?"})) == answer, "and streams the same"
    both = chain.batch([{"question": "Who came across the garden?"}, {"question": "Who was at the window?"}])
    assert both[0] == answer and both[1], both

    plain = chat.invoke("Who came across the garden?")
    assert plain.usage_metadata["output_tokens"] <= 24 and plain.response_metadata["finish_reason"] in ("length", "stop"), plain
    assert asyncio.run(later(chat)) == plain.content
    scored = chat.bind(logprobs=True, top_logprobs=2).invoke("Who came across the garden?")
    assert scored.response_metadata["logprobs"]["content"][0]["top_logprobs"], scored

    text = OpenAI(max_tokens=24, **common)
    written = text.invoke("Catherine was at the window, and saw")
    assert written and "".join(text.stream("Catherine was at the window, and saw")) == written, written
    print("langchain-openai", importlib.metadata.version("langchain-openai"))


main()
