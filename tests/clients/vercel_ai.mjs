// Vercel's `ai` with `@ai-sdk/openai-compatible`, unmodified: text, streams, a conversation, and an error.
//
// usage: NODE_HOME=FOLDER node vercel_ai.mjs URL MODEL, with both in FOLDER/node_modules
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";

const require = createRequire(path.resolve(process.env.NODE_HOME, "package.json"));
const { APICallError, generateText, streamText } = require("ai");
const { createOpenAICompatible } = require("@ai-sdk/openai-compatible");
const [url, name] = process.argv.slice(2);
const provider = createOpenAICompatible({ name: "photonc", baseURL: `${url}/v1`, includeUsage: true });
const model = provider(name);
const common = { system: "Be brief.", maxOutputTokens: 24, temperature: 0, maxRetries: 0 };
const messages = [
  { role: "user", content: "Who came across the garden?" },
  { role: "assistant", content: "Her brother." },
  { role: "user", content: "What had he in his hand?" },
];

const whole = await generateText({ model, messages, ...common });
assert.ok(whole.text);
assert.ok(whole.usage.outputTokens > 0 && whole.usage.outputTokens <= 24);
assert.ok(["length", "stop"].includes(whole.finishReason));

const stream = streamText({ model, messages, ...common });
let text = "";
let deltas = 0;
for await (const delta of stream.textStream) {
  text += delta;
  deltas += 1;
}
assert.equal(text, whole.text);
assert.deepEqual((await stream.usage).outputTokens, whole.usage.outputTokens);
assert.ok(deltas >= 1);

const completion = await generateText({ model: provider.completionModel(name), prompt: "Catherine was at the window, and saw", ...common });
assert.ok(completion.text);

await assert.rejects(generateText({ model, messages, ...common, temperature: -1 }), (error) => {
  assert.ok(APICallError.isInstance(error), String(error));
  assert.equal(error.statusCode, 400);
  assert.match(error.message, /temperature/);
  return true;
});
console.log("ai", require("ai/package.json").version, "@ai-sdk/openai-compatible", require("@ai-sdk/openai-compatible/package.json").version);
