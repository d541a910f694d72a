"""The `openai` package for Python, unmodified: completions, chats, streams, models, and errors as its own exceptions.

usage: openai_client.py URL MODEL
"""

import sys

import openai

PROMPT = "Catherine was at the window, and saw her brother come across the garden"
SAID = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who came across the garden?"}]


def completions(client, model):
    asked = dict(model=model, prompt=PROMPT, max_tokens=40, temperature=0.8, seed=7, extra_body={"top_k": 40, "return_token_ids": True})
    whole = client.completions.create(**asked)
    choice = whole.choices[0]
    assert choice.finish_reason == "length" and choice.text, whole
    assert whole.usage.completion_tokens == 40 and whole.usage.total_tokens == whole.usage.prompt_tokens + 40, whole.usage
    chunks = list(client.completions.create(stream=True, stream_options={"include_usage": True}, **asked))
    text = "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
    assert text == choice.text, (text, choice.text)
    assert chunks[-1].usage == whole.usage, chunks[-1]
    ids = choice.model_extra["token_ids"]
    streamed = [id for chunk in chunks for one in chunk.choices for id in one.model_extra["token_ids"]]
    assert ids == streamed and len(ids) == 40, (ids, streamed)

    # A generation that was cut off goes on as if it had not been.
    prompt = choice.model_extra["prompt_token_ids"]
    asked["extra_body"]["prompt_length"] = len(prompt)
    for kept in (1, 20, 39):
        rest = client.completions.create(**{**asked, "prompt": prompt + ids[:kept], "max_tokens": 40 - kept})
        assert rest.choices[0].model_extra["token_ids"] == ids[kept:], (kept, rest.choices[0], ids)
    del asked["extra_body"]["prompt_length"]

    # Several prompts with several samples each, by index.
    several = client.completions.create(**{**asked, "prompt": [PROMPT, "In the beginning"], "n": 2})
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3], several
    assert several.choices[0].text == choice.text and len({choice.text for choice in several.choices}) == 4, several

    # Text up to a stop string and without it.
    word = choice.text.split()[2]
    stopped = client.completions.create(**asked, stop=[word]).choices[0]
    assert stopped.finish_reason == "stop" and word not in stopped.text and choice.text.startswith(stopped.text), stopped

    scored = client.completions.create(**{**asked, "max_tokens": 4}, echo=True, logprobs=3).choices[0]
    assert scored.text.startswith(PROMPT), scored
    told = scored.logprobs
    assert "".join(told.tokens) == scored.text and len(told.tokens) == len(prompt) + 4, told
    assert all(logprob is None or logprob <= 0 for logprob in told.token_logprobs), told
    assert told.text_offset[-1] == len(scored.text) - len(told.tokens[-1]), told


def chats(client, model):
    asked = dict(model=model, messages=SAID, max_completion_tokens=32, temperature=0, logprobs=True, top_logprobs=2)
    whole = client.chat.completions.create(**asked)
    choice = whole.choices[0]
    assert choice.message.role == "assistant" and choice.message.content, whole
    assert [one.token for one in choice.logprobs.content] and len(choice.logprobs.content) == whole.usage.completion_tokens, choice
    # Greedy: what was drawn is the most probable.
    assert all(one.logprob == one.top_logprobs[0].logprob for one in choice.logprobs.content), choice
    text, reasons = "", set()
    for chunk in client.chat.completions.create(stream=True, **asked):
        for one in chunk.choices:
            text += one.delta.content or ""
            reasons.add(one.finish_reason)
    assert text == choice.message.content, (text, choice)
    assert reasons == {None, choice.finish_reason}, reasons
    tools = [{"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {}}}}]
    with_tools = client.chat.completions.create(model=model, messages=SAID, tools=tools, max_tokens=8)
    assert with_tools.usage.prompt_tokens > 0, with_tools


def refuses(client, url, model):
    def fails(kind, param, **asked):
        try:
            client.completions.create(**{"model": model, "prompt": PROMPT, "max_tokens": 4, **asked})
        except kind as error:
            assert error.param == param, (error.param, param, error)
            assert error.body["message"] and error.type, error.body
        else:
            raise AssertionError(f"{asked} is not refused")

    fails(openai.BadRequestError, "suffix", suffix="end")
    fails(openai.BadRequestError, "temperature", temperature=-1)
    fails(openai.BadRequestError, "max_tokens", max_tokens=10**7)
    fails(openai.BadRequestError, "no_such_parameter", extra_body={"no_such_parameter": 1})
    fails(openai.NotFoundError, "model", model="another")
    fails(openai.UnprocessableEntityError, "max_tokens", max_tokens="many")
    try:
        list(client.completions.create(model=model, prompt=PROMPT, max_tokens=4, stream=True, logit_bias={"-5": 1}))
    except openai.BadRequestError as error:
        assert error.param == "logit_bias", error.body
    else:
        raise AssertionError("a stream that cannot be is refused before it begins")


def stops(client, model):
    # A client that goes away in the middle of a stream ends its request; the next one is answered.
    stream = client.completions.create(model=model, prompt=PROMPT, max_tokens=1000, stream=True)
    next(iter(stream))
    stream.close()
    assert client.completions.create(model=model, prompt=PROMPT, max_tokens=2).usage.completion_tokens == 2


def responses(client, model):
    answer = client.responses.create(model=model, input="Who came across the garden?", max_output_tokens=16)
    assert answer.output_text and answer.usage.output_tokens, answer


def main():
    url, model = sys.argv[1:3]
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120)
    assert [one.id for one in client.models.list()] == [model]
    assert client.models.retrieve(model).id == model
    completions(client, model)
    chats(client, model)
    refuses(client, url, model)
    stops(client, model)
    responses(client, model)
    print("openai", openai.__version__)


main()
