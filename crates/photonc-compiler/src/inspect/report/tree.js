// The tree of scopes of one graph. A fold's rows are made when it opens and dropped when it closes.
const SCOPE = 0, OP = 1, ATTRIBUTES = 2, TYPE = 3, OPERANDS = 4, NAME = 5, PARAMETERS = 6, WORK = 7;
// Rows added at once; a scope with more offers the rest.
const PAGE_ROWS = 200;

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function short(value) {
  if (!value) return "-";
  for (const [scale, prefix] of [[1e15, " P"], [1e12, " T"], [1e9, " G"], [1e6, " M"], [1e3, " K"]])
    if (value >= scale * 0.9995) return digits(value / scale) + prefix;
  return Number.isInteger(value) ? String(value) : digits(value);
}
function digits(value) { return value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0); }

// FLOPs, weight, cache and activation bytes, intensity, and how the bytes divide.
function workCells(work, most) {
  const [flops, weights, cache, activations] = work;
  const bytes = weights + cache + activations;
  const mix = element("span", { class: "mix", title: "share of the graph's bytes: " + (most ? (100 * bytes / most).toFixed(1) : 0) + "%" });
  for (const [kind, part] of [["w", weights], ["c", cache], ["a", activations]])
    if (part && most) mix.append(element("i", { class: kind, style: `width:${100 * part / most}%` }));
  const cells = [flops, weights, cache, activations, bytes ? flops / bytes : 0].map((value) => element("td", { class: "num" }, short(value)));
  return [...cells, element("td", {}, mix)];
}

class Tree {
  constructor(graph, body) {
    this.graph = graph;
    this.body = body;
    this.open = new Map();
    const [, weights, cache, activations] = graph.fold.work;
    this.most = weights + cache + activations;
    const root = this.foldRow(graph.fold, 0, graph.name);
    body.append(root);
    this.expand(root);
  }

  foldRow(fold, depth, name) {
    const toggle = element("button", { type: "button", "aria-expanded": "false", class: "depth" + depth, "data-scope": fold.scope,
      style: `margin-left:${depth * 18}px`, onclick: () => this.toggle(row) }, name);
    const row = element("tr", { class: "fold", "aria-level": depth + 1 },
      element("td", {}, toggle, element("span", { class: "count" }, `${fold.nodes} nodes`)),
      element("td", { class: "num" }, short(fold.parameters)), ...workCells(fold.work, this.most));
    row.fold = fold; row.depth = depth; row.toggleButton = toggle;
    this.open.set(fold.scope, row);
    return row;
  }

  toggle(row) { row.toggleButton.getAttribute("aria-expanded") === "true" ? this.collapse(row) : this.expand(row); }

  expand(row) {
    if (row.toggleButton.getAttribute("aria-expanded") === "true") return;
    row.toggleButton.setAttribute("aria-expanded", "true");
    const rows = row.fold.children.map((child) => this.foldRow(child, row.depth + 1, child.name));
    row.after(...rows, ...this.nodeRows(row.fold, row.depth + 1, 0));
  }

  nodeRows(fold, depth, from) {
    const rows = fold.own.slice(from, from + PAGE_ROWS).map((number) => this.nodeRow(number, depth));
    const rest = fold.own.length - from - rows.length;
    if (rest > 0) {
      const more = element("tr", { class: "node" }, element("td", { colspan: 8, style: `padding-left:${18 + depth * 18}px` },
        element("button", { type: "button", onclick: () => { more.replaceWith(...this.nodeRows(fold, depth, from + PAGE_ROWS)); } }, `Show ${rest} more nodes`)));
      more.depth = depth;
      rows.push(more);
    }
    return rows;
  }

  nodeRow(number, depth) {
    const node = this.graph.nodes[number], words = this.graph.words;
    const cell = element("td", { style: `padding-left:${34 + depth * 18}px` },
      element("code", {}, element("span", { class: "id" }, "%" + number), words[node[OP]]));
    const code = cell.firstChild;
    if (words[node[ATTRIBUTES]]) code.append(element("span", { class: "attr" }, `{${words[node[ATTRIBUTES]]}}`));
    node[OPERANDS].forEach((operand, at) => code.append(at ? ", " : " ",
      element("a", { href: "#", title: this.graph.words[this.graph.nodes[operand][SCOPE]], onclick: (event) => { event.preventDefault(); this.reveal(operand); } }, "%" + operand)));
    code.append(element("span", { class: "type" }, " : " + words[node[TYPE]]));
    if (node[NAME]) code.append(" ", element("span", { class: "name" }, node[NAME]));
    const row = element("tr", { class: "node", "aria-level": depth + 1, "data-node": number }, cell,
      element("td", { class: "num" }, short(node[PARAMETERS])), ...workCells(node.slice(WORK), this.most));
    row.depth = depth;
    return row;
  }

  collapse(row) {
    row.toggleButton.setAttribute("aria-expanded", "false");
    let next;
    while ((next = row.nextElementSibling) && next.depth > row.depth) {
      if (next.fold) this.open.delete(next.fold.scope);
      next.remove();
    }
  }

  // Opens the way to a node, shows it and marks it.
  reveal(number) {
    const scope = this.graph.words[this.graph.nodes[number][SCOPE]];
    let path = "";
    this.expand(this.open.get(""));
    for (const part of scope.split(".").filter(Boolean)) {
      path = path ? path + "." + part : part;
      this.expand(this.open.get(path));
    }
    let row = this.body.querySelector(`[data-node="${number}"]`);
    while (!row) {
      const more = [...this.body.querySelectorAll("tr.node > td[colspan] > button")].pop();
      if (!more) return;
      more.click();
      row = this.body.querySelector(`[data-node="${number}"]`);
    }
    this.body.querySelectorAll(".target").forEach((marked) => marked.classList.remove("target"));
    row.classList.add("target");
    row.scrollIntoView({ block: "center" });
  }
}
