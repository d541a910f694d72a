// The page at `/`: writes with the server's own endpoints, shows bursts by meta-context, draws single meta-contexts again.
// Loads nothing from elsewhere and keeps nothing when it closes.
"use strict";

const HUES = 6;
const LOAD_EVERY_MS = 1000;
const ALTERNATIVES = 5;
// UTF-16 units that may stand before the text of a token because tokens before it ended inside a character.
const LONGEST_CHARACTER = 2;
const NUMBERS = ["max_tokens", "n", "seed", "temperature", "top_k", "top_p", "min_p"];
const NAMES = { recgen: "RecGen", hiergen: "HierGen" };

const at = (id) => document.getElementById(id);
let metaTokens = 0;
let writing = null;
let conversation = [];
let chosen = null;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made[key] = value;
    else if (value !== undefined && value !== null) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

const percent = (logprob) => {
  const share = 100 * Math.exp(logprob);
  return share >= 0.095 ? share.toFixed(1) + " %" : share.toExponential(1) + " %";
};
const visible = (text) => text.replace(/ /g, "\u00b7").replace(/\n/g, "\u23ce").replace(/\t/g, "\u21e5") || "(no text)";
const say = (text) => { at("status").textContent = text; };
function fail(text) {
  at("failure").textContent = text;
  at("failure").hidden = !text;
}

// ---- the server

function call(path, body, signal) {
  const headers = {};
  if (at("key").value) headers.Authorization = "Bearer " + at("key").value;
  if (body) headers["Content-Type"] = "application/json";
  return fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
}

async function asked(path, body, signal) {
  const response = await call(path, body, signal);
  if (response.ok) return response;
  let told = response.statusText;
  try {
    const { error } = await response.json();
    told = error.message + (error.param ? ` (${error.param})` : "");
  } catch { /* no JSON: the status says it */ }
  throw Object.assign(new Error(`${response.status}: ${told}`), { status: response.status });
}

// Server-sent events of a response, until `[DONE]`. A stream that ends without it is broken.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error("the stream broke off before its end");
    waiting += value;
    const whole = waiting.split(/\r?\n\r?\n/);
    waiting = whole.pop();
    for (const event of whole) {
      const data = event.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\n");
      if (!data) continue;
      if (data === "[DONE]") return;
      const parsed = JSON.parse(data);
      if (parsed.error) throw new Error(parsed.error.message);
      yield parsed;
    }
  }
}

// ---- tokens

// Tokens of one part of an answer as {id, piece, logprob, top}, whichever endpoint it comes from. A token that ends inside a
// character has no piece; the token that completes the character has it.
function tokensOf(choice, text) {
  const ids = choice.token_ids || [];
  const given = choice.logprobs;
  let tokens;
  if (given && given.content) {
    tokens = given.content.map((one) => ({ name: one.token, logprob: one.logprob, top: (one.top_logprobs || []).map((top) => [top.token, top.logprob]) }));
  } else if (given && given.tokens) {
    tokens = given.tokens.map((name, place) => ({
      name, logprob: given.token_logprobs[place],
      top: Object.entries((given.top_logprobs || [])[place] || {}).sort((one, other) => other[1] - one[1]),
    }));
  } else {
    return ids.map((id, place) => ({ id, piece: place ? "" : text }));
  }
  let rest = text;
  tokens.forEach((token, place) => {
    token.id = ids[place];
    const found = token.name.includes("\ufffd") ? -1 : rest.indexOf(token.name);
    token.piece = found < 0 || found > LONGEST_CHARACTER ? "" : rest.slice(0, found + token.name.length);
    if (place === tokens.length - 1) token.piece = rest;
    rest = rest.slice(token.piece.length);
  });
  return tokens;
}

// ---- one sequence on the page

class Sequence {
  constructor(title, body) {
    this.body = body;
    this.prompt = [];
    this.tokens = [];
    this.bursts = 0;
    this.metas = [];
    this.started = performance.now();
    this.text = element("p", { class: "text", role: "group", "aria-label": title, "aria-busy": "true" });
    this.note = element("footer");
    this.article = element("article", { "aria-label": title }, element("h3", {}, title), this.text, this.note);
    this.text.onkeydown = (event) => this.move(event);
  }

  // The meta-context of a token, from 0 behind the prompt's first; without log-probabilities the burst, as tokens have no text
  // of their own then.
  place(index) {
    if (!this.body.logprobs || !metaTokens) return this.bursts;
    const before = this.prompt.length % metaTokens;
    return Math.floor((before + index) / metaTokens);
  }

  add(tokens, text) {
    if (!tokens.length && text) tokens = [{ piece: text }];
    for (const token of tokens) {
      token.meta = this.place(this.tokens.length);
      this.tokens.push(token);
      const meta = this.metas[token.meta] || this.open(token.meta);
      meta.append(this.span(token, true));
    }
    this.bursts += 1;
    this.tell();
  }

  open(number) {
    const meta = element("span", {
      class: `meta m${number % HUES}`, "data-number": number + 1, role: "button", "aria-pressed": "false",
      tabindex: this.metas.some(Boolean) ? -1 : 0, onclick: () => choose(this, number),
    });
    this.metas[number] = meta;
    this.text.append(meta);
    return meta;
  }

  span(token, fresh) {
    const span = element("span", { class: fresh ? "token fresh" : "token" }, token.piece);
    if (token.logprob !== undefined) {
      span.onpointerenter = () => tip(span, token);
      span.onpointerleave = () => { at("tip").hidden = true; };
    }
    return span;
  }

  move(event) {
    const metas = this.metas.filter(Boolean);
    const here = metas.indexOf(document.activeElement);
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    if (here < 0) return;
    if (event.key === "Enter" || event.key === " ") {
      metas[here].click();
    } else if (event.key === "Home" || event.key === "End" || steps[event.key]) {
      const next = event.key === "Home" ? 0 : event.key === "End" ? metas.length - 1 : here + steps[event.key];
      if (!metas[next]) return;
      metas[here].tabIndex = -1;
      metas[next].tabIndex = 0;
      metas[next].focus();
    } else {
      return;
    }
    event.preventDefault();
  }

  // First token of a meta-context and the one behind its last.
  range(number) {
    const first = this.tokens.findIndex((token) => token.meta === number);
    const after = this.tokens.findIndex((token) => token.meta > number);
    return [first, after < 0 ? this.tokens.length : after];
  }

  replace(number, tokens) {
    const [first, after] = this.range(number);
    tokens.forEach((token) => { token.meta = number; });
    const old = this.tokens.splice(first, after - first, ...tokens);
    this.metas[number].replaceChildren(...tokens.map((token) => this.span(token, true)));
    return old;
  }

  // Forgets every token from the first of a meta-context on.
  cut(number) {
    const [first] = this.range(number);
    this.tokens.length = first;
    this.metas.splice(number).forEach((meta) => meta && meta.remove());
    if (!this.metas.some((meta) => meta && meta.tabIndex === 0) && this.metas.some(Boolean)) this.metas.find(Boolean).tabIndex = 0;
  }

  tell() {
    const seconds = (performance.now() - this.started) / 1000;
    this.first ??= seconds;
    const count = this.tokens.filter((token) => token.id !== undefined).length;
    const parts = [];
    if (count) parts.push(`${count} tokens`, `${(count / seconds).toFixed(0)} tokens/s`);
    parts.push(`first after ${(1000 * this.first).toFixed(0)} ms`, `${this.bursts} bursts`);
    const scored = this.tokens.filter((token) => Number.isFinite(token.logprob));
    if (scored.length) parts.push(`perplexity ${Math.exp(-scored.reduce((sum, token) => sum + token.logprob, 0) / scored.length).toFixed(1)}`);
    if (this.finish) parts.push(`ended by ${this.finish}`);
    this.note.textContent = parts.join(" \u00b7 ");
  }

  end(finish) {
    this.finish = finish || this.finish;
    this.text.setAttribute("aria-busy", "false");
    this.tell();
  }

  plain() { return this.tokens.map((token) => token.piece).join(""); }
}

function tip(span, token) {
  const box = at("tip");
  box.replaceChildren(alternatives(token));
  box.hidden = false;
  const place = span.getBoundingClientRect();
  const left = Math.min(place.left, innerWidth - box.offsetWidth - 10);
  const below = place.bottom + 8 + box.offsetHeight < innerHeight;
  box.style.left = `${Math.max(4, left)}px`;
  box.style.top = `${below ? place.bottom + 8 : place.top - 8 - box.offsetHeight}px`;
}

function alternatives(token) {
  const rows = token.top.some(([name]) => name === token.name) ? token.top : [[token.name, token.logprob], ...token.top];
  return element("table", {}, element("tbody", {}, ...rows.map(([name, logprob]) => element("tr", {},
    element("td", {}, name === token.name ? element("strong", {}, element("code", {}, visible(name))) : element("code", {}, visible(name))),
    element("td", { class: "number" }, percent(logprob)),
    element("td", {}, bar(Math.exp(logprob)))))));
}

function bar(share) {
  const made = element("span", { class: "bar" });
  made.style.width = `${(70 * share).toFixed(0)}px`;
  return made;
}

// ---- the chosen meta-context

function choose(sequence, number) {
  document.querySelectorAll(".meta[aria-pressed=true]").forEach((meta) => meta.setAttribute("aria-pressed", "false"));
  chosen = sequence && sequence.metas[number] ? { sequence, number } : null;
  if (!chosen) return at("chosen").replaceChildren(element("p", { class: "help" }, "None is chosen."));
  sequence.metas[number].setAttribute("aria-pressed", "true");
  const [first, after] = sequence.range(number);
  const tokens = sequence.tokens.slice(first, after);
  const known = sequence.prompt.length && metaTokens && tokens.every((token) => token.id !== undefined && token.meta === number);
  const possible = known && sequence.body.logprobs;
  const scored = tokens.filter((token) => Number.isFinite(token.logprob));
  const mean = scored.reduce((sum, token) => sum + token.logprob, 0) / scored.length;
  const undo = sequence.metas[number].undo || [];
  at("chosen").replaceChildren(
    element("p", { class: "help" }, `Number ${number + 1} of ${sequence.metas.length}: tokens ${first + 1} to ${after}`
      + (scored.length ? `, mean log-probability ${mean.toFixed(2)}` : "")),
    element("div", { class: "buttons" },
      element("button", { type: "button", class: "again", id: "reroll", onclick: reroll, ...(possible ? {} : { disabled: "" }) }, "Re-roll this chunk"),
      element("button", { type: "button", id: "onwards", onclick: onwards, ...(possible ? {} : { disabled: "" }) }, "Write on from here"),
      element("button", { type: "button", id: "undo", onclick: takeBack, ...(undo.length ? {} : { disabled: "" }) }, "Undo")),
    element("p", { class: "help" }, possible
      ? sequence.protocol === "recgen"
        ? "Under RecGen no state reads the tokens: what follows stays as likely as it was."
        : "Under HierGen what follows was written after the old words; write on from here to renew it."
      : "Needs log-probabilities and token ids."),
    element("table", {},
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Token"), element("th", { scope: "col", class: "number" }, "p"),
        element("th", { scope: "col" }, "Most probable"))),
      element("tbody", {}, ...tokens.map((token) => element("tr", {}, element("td", {}, element("code", {}, visible(token.name ?? token.piece))),
        element("td", { class: "number" }, token.logprob === undefined ? "" : percent(token.logprob)),
        element("td", {}, element("code", {}, token.top && token.top.length ? visible(token.top[0][0]) : "")))))));
}

// What is asked to draw on behind the first `kept` new tokens of a sequence: they are forced, so nothing before them changes.
function continued(sequence, kept, count) {
  const { messages, n, stream_options, top_logprobs, max_completion_tokens, ...body } = sequence.body;
  const ids = sequence.tokens.slice(0, kept).map((token) => token.id);
  return { ...body, prompt: [...sequence.prompt, ...ids], prompt_length: sequence.prompt.length, max_tokens: count,
    logprobs: ALTERNATIVES, seed: Math.floor(Math.random() * 2 ** 31), stream: false };
}

async function reroll() {
  if (!chosen || writing) return;
  const { sequence, number } = chosen;
  const [first, after] = sequence.range(number);
  await busy(async (signal) => {
    const response = await asked("v1/completions", continued(sequence, first, after - first), signal);
    const choice = (await response.json()).choices[0];
    const meta = sequence.metas[number];
    (meta.undo ??= []).push(sequence.replace(number, tokensOf(choice, choice.text)));
    meta.classList.add("drawn-again");
    sequence.tell();
    choose(sequence, number);
    say(`Meta-context ${number + 1} was drawn again: ${choice.text}`);
  });
  at("reroll")?.focus();
}

function takeBack() {
  const { sequence, number } = chosen;
  const meta = sequence.metas[number];
  sequence.replace(number, meta.undo.pop());
  meta.classList.toggle("drawn-again", meta.undo.length > 0);
  sequence.tell();
  choose(sequence, number);
  say(`Meta-context ${number + 1} is as it was before.`);
  (meta.undo.length ? at("undo") : at("reroll")).focus();
}

async function onwards() {
  if (!chosen || writing) return;
  const { sequence, number } = chosen;
  const [first] = sequence.range(number);
  const total = sequence.body.max_tokens ?? sequence.body.max_completion_tokens ?? first + metaTokens;
  const body = { ...continued(sequence, first, Math.max(1, total - first)), stream: true };
  sequence.cut(number);
  choose(null);
  delete sequence.first;
  sequence.finish = undefined;
  sequence.started = performance.now();
  await busy((signal) => follow("v1/completions", body, [sequence], signal));
}

// ---- requests

function settings() {
  const body = { model: at("model").value, stream: true, return_token_ids: true };
  for (const name of NUMBERS) {
    const field = at(name);
    if (!field.checkValidity()) throw new Error(`${field.parentElement.firstChild.textContent.trim()}: ${field.validationMessage}`);
    if (field.value !== "") body[name] = Number(field.value);
  }
  if (at("stop_text").value) body.stop = [at("stop_text").value];
  return body;
}

const mode = () => document.querySelector("input[name=mode]:checked").value;

function compose(protocol) {
  const body = settings();
  if (protocol) body.protocol = protocol;
  if (mode() === "chat") {
    const system = at("system").value;
    body.messages = [...(system ? [{ role: "system", content: system }] : []), ...conversation];
    body.max_completion_tokens = body.max_tokens;
    delete body.max_tokens;
    if (at("logprobs").checked) Object.assign(body, { logprobs: true, top_logprobs: ALTERNATIVES });
    return ["v1/chat/completions", body];
  }
  body.prompt = at("prompt").value;
  if (at("logprobs").checked) body.logprobs = ALTERNATIVES;
  return ["v1/completions", body];
}

// Sends a request and gives what comes back to its sequences, by index.
async function follow(path, body, sequences, signal) {
  const response = await asked(path, body, signal);
  for await (const event of events(response)) {
    for (const choice of event.choices) {
      const sequence = sequences[choice.index];
      const prompt = choice.prompt_token_ids || event.prompt_token_ids;
      if (prompt && !sequence.prompt.length) sequences.forEach((one) => { one.prompt = prompt; });
      const text = choice.delta ? choice.delta.content || "" : choice.text || "";
      const tokens = tokensOf(choice, text);
      if (tokens.length || text) sequence.add(tokens, text);
      if (choice.finish_reason) sequence.end(choice.finish_reason);
    }
  }
}

function sequencesOf(body, protocol, about) {
  return Array.from({ length: body.n || 1 }, (_, sample) => {
    const title = [about, protocol && NAMES[protocol], (body.n || 1) > 1 ? `sample ${sample + 1}` : ""].filter(Boolean).join(", ");
    const sequence = new Sequence(title || "Completion", body);
    sequence.protocol = protocol || at("protocol").value || firstProtocol;
    at("panes").append(sequence.article);
    return sequence;
  });
}
let firstProtocol = "recgen";

async function write() {
  if (writing) return;
  const chat = mode() === "chat";
  const compare = mode() === "compare";
  const said = at("prompt").value;
  at("panes").classList.toggle("talk", chat);
  if (chat) {
    if (!said) return;
    conversation.push({ role: "user", content: said });
    at("panes").append(element("article", { class: "user", "aria-label": "You" }, element("h3", {}, "You"), element("p", { class: "text" }, said)));
  } else {
    at("panes").replaceChildren();
  }
  choose(null);
  let sequences = [];
  const ended = await busy(async (signal) => {
    const protocols = compare ? ["recgen", "hiergen"] : [at("protocol").value];
    const asks = protocols.map((protocol) => [...compose(protocol), protocol]);
    if (chat) asks.forEach(([, body]) => { body.n = 1; });
    const runs = asks.map(([path, body, protocol]) => [path, body, sequencesOf(body, protocol, chat ? "Model" : "")]);
    sequences = runs.flatMap(([, , made]) => made);
    await Promise.all(runs.map(([path, body, made]) => follow(path, body, made, signal)));
  });
  sequences.forEach((sequence) => sequence.end(sequence.finish || (ended ? "" : "stop of the reader")));
  if (chat) {
    const text = sequences.length ? sequences[0].plain() : "";
    if (text) {
      conversation.push({ role: "assistant", content: text });
      at("prompt").value = "";
    } else {
      conversation.pop();
    }
  }
}

// Runs work that the stop button ends; true when it came to its own end.
async function busy(work) {
  const abort = new AbortController();
  writing = abort;
  at("stop").disabled = false;
  at("go").disabled = true;
  fail("");
  say("Writing.");
  try {
    await work(abort.signal);
    if (at("status").textContent === "Writing.") say("Finished. " + summary());
    return true;
  } catch (error) {
    if (abort.signal.aborted) {
      say("Stopped. " + summary());
    } else {
      say("Failed.");
      fail(error.message);
      abort.abort();
    }
    return false;
  } finally {
    writing = null;
    at("stop").disabled = true;
    at("go").disabled = false;
  }
}

function summary() {
  const notes = [...document.querySelectorAll("#panes:not(.talk) footer, #panes.talk article:last-of-type footer")];
  return notes.length === 1 ? notes[0].textContent : `${notes.length} texts.`;
}

// ---- the server's load

// Sums of the samples of a Prometheus text, by name without labels.
function metricsOf(text) {
  const sums = {};
  for (const line of text.split("\n")) {
    const found = /^([A-Za-z_:][\w:]*)(?:\{.*\})? ([-+\w.]+)/.exec(line);
    if (found) sums[found[1]] = (sums[found[1]] || 0) + Number(found[2]);
  }
  return sums;
}

let before = null;
async function load() {
  if (document.hidden) return;
  try {
    const health = await call("health");
    const state = await health.clone().json().catch(() => ({}));
    at("state").textContent = health.ok ? "ready" : state.status || state.error?.message || "not ready";
    const metrics = metricsOf(await (await asked("metrics")).text());
    const now = { tokens: metrics["vllm:generation_tokens_total"], at: performance.now() };
    if (before) at("rate").textContent = ((1000 * (now.tokens - before.tokens)) / (now.at - before.at)).toFixed(0);
    before = now;
    at("running").textContent = metrics["vllm:num_requests_running"] ?? "-";
    at("waiting").textContent = metrics["vllm:num_requests_waiting"] ?? "-";
    const queries = metrics["vllm:prefix_cache_queries_total"];
    at("hits").parentElement.hidden = queries === undefined;
    at("hits").textContent = queries ? `${Math.round((100 * metrics["vllm:prefix_cache_hits_total"]) / queries)} %` : "-";
    if (health.ok && !at("model").options.length) await models();
  } catch (error) {
    at("state").textContent = error.status === 401 ? "needs an API key" : "unreachable";
    before = null;
  }
}

let known = [];
async function models() {
  known = (await (await asked("v1/models")).json()).data;
  at("model").replaceChildren(...known.map((model) => element("option", {}, model.id)));
  picked();
}

function picked() {
  const model = known.find((one) => one.id === at("model").value) || {};
  metaTokens = model.meta_tokens || 0;
  const protocols = model.protocols || Object.keys(NAMES);
  firstProtocol = protocols[0];
  document.querySelector("input[name=mode][value=chat]").disabled = model.chat === false;
  document.querySelector("input[name=mode][value=compare]").disabled = protocols.length < 2;
  for (const option of at("protocol").options) option.disabled = Boolean(option.value) && !protocols.includes(option.value);
}

// ---- start

function shape() {
  const chat = mode() === "chat";
  at("system-label").hidden = !chat;
  at("prompt-name").textContent = chat ? "Message" : "Prompt";
  at("protocol-label").hidden = mode() === "compare";
}

function clear() {
  conversation = [];
  at("panes").replaceChildren();
  choose(null);
  fail("");
  say("Nothing written yet.");
  at("prompt").focus();
}

at("write").onsubmit = (event) => { event.preventDefault(); write(); };
at("stop").onclick = () => writing?.abort();
at("clear").onclick = () => { writing?.abort(); clear(); };
at("model").onchange = picked;
document.querySelectorAll("input[name=mode]").forEach((input) => { input.onchange = () => { writing?.abort(); clear(); shape(); input.focus(); }; });
document.onkeydown = (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); write(); }
  if (event.key === "Escape" && writing) writing.abort();
};
shape();
load();
setInterval(load, LOAD_EVERY_MS);
