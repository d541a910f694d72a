// The page: facts, protocols, one graph at a time, predicted times, search over all graphs.
const MAX_HITS = 100;
// Parts of a graph that take less of its time are left out, as in the text.
const SHOWN_SHARE = 0.001;
const BOUNDS = { weights: "weights", kv_cache: "KV cache", arithmetic: "arithmetic", nothing: "-" };
let data, tree, current;

function showGraph(at) {
  if (current === at) return;
  current = at;
  const graph = data.graphs[at];
  document.querySelectorAll("#tabs button").forEach((tab, place) => tab.setAttribute("aria-current", String(place === at)));
  const inputs = graph.nodes.filter((node) => graph.words[node[OP]] === "input").map((node) => [node[NAME], graph.words[node[TYPE]]]);
  const outputs = graph.outputs.map(([name, node]) => [name, graph.words[graph.nodes[node][TYPE]]]);
  const ports = (title, list) => element("details", list.length < 7 ? { open: "" } : {}, element("summary", {}, `${list.length} ${title}`),
    element("ul", {}, ...list.map(([name, type]) => element("li", {}, element("code", {}, name + " : " + type)))));
  const header = ["Scope", "Parameters", "FLOPs", "Weights B", "KV cache B", "Activations B", "FLOPs/B"].map((name, at) => element("th", { scope: "col", class: at ? "num" : "" }, name));
  const body = element("tbody", {});
  const bound = Object.entries(graph.bindings).map(([symbol, value]) => `${symbol} = ${value}`).join(", ");
  document.getElementById("graph").replaceChildren(element("div", { class: "card" },
    element("h3", {}, graph.name, element("span", { class: "count" }, `${graph.fold.nodes} nodes, ${bound}`)),
    element("div", { class: "ports" }, ports("inputs", inputs), ports("outputs", outputs)),
    element("p", { class: "legend" }, ...[["weights", "weights"], ["cache", "KV cache"], ["activations", "activations"]].map(([kind, name]) =>
      element("span", {}, element("i", { style: `background:var(--${kind})` }), name))),
    element("div", { class: "scroll" }, element("table", { role: "treegrid", "aria-label": "Scopes of " + graph.name },
      element("thead", {}, element("tr", {}, ...header, element("th", { scope: "col" }, "Bytes"))), body))));
  tree = new Tree(graph, body);
}

function search(query) {
  const results = document.getElementById("results");
  const wanted = query.toLowerCase().split(/\s+/).filter(Boolean);
  results.hidden = !wanted.length;
  if (!wanted.length) return;
  const hits = [];
  let count = 0;
  data.graphs.forEach((graph, at) => graph.nodes.forEach((node, number) => {
    const text = `${graph.name} ${graph.words[node[SCOPE]]} ${graph.words[node[OP]]} ${graph.words[node[ATTRIBUTES]]} ${graph.words[node[TYPE]]} ${node[NAME] || ""}`.toLowerCase();
    if (!wanted.every((word) => text.includes(word))) return;
    count += 1;
    if (hits.length < MAX_HITS) hits.push([at, number, graph, node]);
  }));
  results.replaceChildren(element("strong", {}, count ? `${count} nodes` : "No node matches"),
    element("span", { class: "count" }, count > hits.length ? `the first ${hits.length} shown` : ""),
    element("ol", {}, ...hits.map(([at, number, graph, node]) => element("li", {}, element("button", { type: "button", class: "mono",
      onclick: () => { results.hidden = true; showGraph(at); tree.reveal(number); } },
      element("span", { class: "count" }, graph.name), `${graph.words[node[SCOPE]]} ${graph.words[node[OP]]} ${node[NAME] || ""} : ${graph.words[node[TYPE]]}`)))));
}

function time(seconds) {
  if (!seconds) return "0";
  return seconds >= 1 ? digits(seconds) + " s" : seconds >= 0.9995e-4 ? digits(seconds * 1e3) + " ms" : digits(seconds * 1e6) + " us";
}

function costCard(cost) {
  const cells = (part, name, total) => element("tr", total ? { class: "total" } : {}, element("td", {}, element("code", {}, name)),
    ...[short(part.work.matmul_flops + part.work.other_flops), short(part.work.weight_bytes), short(part.work.cache_bytes), time(part.floor_s)].map((text) => element("td", { class: "num" }, text)),
    element("td", {}, BOUNDS[part.bound]), element("td", { class: "num" }, time(part.unfused_s)));
  const heads = (names) => element("thead", {}, element("tr", {}, ...names.map((name) => element("th", { scope: "col", class: /^(One run|Bound|Protocol|Runs)/.test(name) ? "" : "num" }, name))));
  const graphs = element("tbody", {}, ...cost.graphs.flatMap((graph) => [cells(graph.total, graph.graph, true), ...graph.parts.filter((part) => part.unfused_s >= SHOWN_SHARE * graph.total.unfused_s).map((part) => cells(part, "\u00a0\u00a0" + part.scope, false))]));
  const generation = element("tbody", {}, ...cost.generation.map((one) => element("tr", {}, element("td", {}, one.protocol),
    element("td", {}, one.runs.map(([graph, times]) => `${times} x ${graph}`).join(" + ")),
    ...[String(one.tokens), short(one.floor_tokens_per_s), short(one.unfused_tokens_per_s)].map((text) => element("td", { class: "num" }, text)))));
  return element("div", { class: "card" }, element("h3", {}, cost.gpu.title),
    element("p", { class: "note" }, `Read ${short(cost.gpu.read_bytes_per_s)}B/s, bf16 ${short(cost.gpu.bf16_flops)}FLOP/s, f32 ${short(cost.gpu.f32_flops)}FLOP/s (${cost.gpu.source}). `
      + "The floor moves weights and caches alone at full speed; unfused runs each node as a kernel of its own. Bounds, not simulations."),
    element("div", { class: "scroll" }, element("table", {}, heads(["Protocol", "Runs", "Tokens", "Tokens/s at the floor", "Tokens/s unfused"]), generation)),
    element("details", {}, element("summary", {}, "Graphs and their stacks"),
      element("div", { class: "scroll" }, element("table", {}, heads(["One run of", "FLOPs", "Weights B", "KV cache B", "Floor", "Bound by", "Unfused"]), graphs))));
}

// Least time of one run of a graph and what it waits for.
function floor(name) {
  const found = data.cost.graphs.find((graph) => graph.graph === name);
  return found ? [name, `${time(found.total.floor_s)} (${data.cost.gpu.name})`, BOUNDS[found.total.bound]] : [name, "unknown", "-"];
}

function theme(name) { document.documentElement.dataset.theme = name; }

function start() {
  data = JSON.parse(document.getElementById("data").textContent);
  theme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.getElementById("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  document.getElementById("title").append(data.title, element("small", {}, "photonc inspect"));
  document.getElementById("facts").append(...Object.entries(data.facts).map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
  document.getElementById("setting").textContent = data.setting;
  document.getElementById("plans").append(...Object.entries(data.plans).map(([protocol, plan]) => planCard(protocol, plan, floor)));
  document.getElementById("tabs").append(...data.graphs.map((graph, at) => element("button", { type: "button", onclick: () => showGraph(at) }, graph.name, element("span", {}, String(graph.fold.nodes)))));
  document.getElementById("cost").append(costCard(data.cost));
  const input = document.getElementById("search");
  let waiting;
  input.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(() => search(input.value), 80); });
  addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== input) { event.preventDefault(); input.focus(); }
    if (event.key === "Escape") { input.value = ""; search(""); }
  });
  if (data.graphs.length) showGraph(Math.max(0, data.graphs.findIndex((graph) => graph.name === "coarse")));
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}
