// The `openai` package for Node, unmodified: completions, chats, streams, a stream that is aborted, and errors.
//
// usage: NODE_HOME=FOLDER node openai_node.mjs URL MODEL, with FOLDER/node_modules/openai
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const require = createRequire(path.resolve(process.env.NODE_HOME, "package.json"));
const { OpenAI } = require("openai");
const [url, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0, timeout: 120_000 });
const prompt = "Catherine was at the window, and saw her brother come across the garden";
const messages = [{ role: "user", content: "Who came across the garden?" }];

const models = [];
for await (const one of client.models.list()) models.push(one.id);
assert.deepEqual(models, [model]);

const whole = await client.completions.create({ model, prompt, max_tokens: 40, seed: 7, temperature: 0.8 });
assert.equal(whole.usage.completion_tokens, 40);
let text = "";
let usage;
const stream = await client.completions.create({
  model, prompt, max_tokens: 40, seed: 7, temperature: 0.8, stream: true, stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  text += chunk.choices[0]?.text ?? "";
  usage = chunk.usage ?? usage;
}
assert.equal(text, whole.choices[0].text);
assert.deepEqual(usage, whole.usage);

const chat = await client.chat.completions.create({ model, messages, max_completion_tokens: 24, temperature: 0, logprobs: true, top_logprobs: 2 });
assert.equal(chat.choices[0].message.role, "assistant");
assert.equal(chat.choices[0].logprobs.content.length, chat.usage.completion_tokens);
const said = client.chat.completions.stream({ model, messages, max_completion_tokens: 24, temperature: 0 });
let deltas = "";
said.on("content", (delta) => { deltas += delta; });
assert.equal(await said.finalContent(), chat.choices[0].message.content);
assert.equal(deltas, chat.choices[0].message.content);

const long = await client.completions.create({ model, prompt, max_tokens: 1000, stream: true });
for await (const _ of long) break;
assert.ok(long.controller.signal.aborted);

await assert.rejects(client.completions.create({ model, prompt, max_tokens: 4, suffix: "end" }), (error) =>
  error instanceof OpenAI.BadRequestError && error.param === "suffix");
await assert.rejects(client.completions.create({ model: "another", prompt }), (error) =>
  error instanceof OpenAI.NotFoundError && error.param === "model");
console.log("openai for Node", JSON.parse(readFileSync(path.resolve(process.env.NODE_HOME, "node_modules/openai/package.json"))).version);
