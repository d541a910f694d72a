// How a protocol generates: the two parts of a split with what crosses between them, or the path that forbids it.
const SVG = "http://www.w3.org/2000/svg";

function drawn(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function splitDrawing(plan, certificate) {
  const svg = drawn("svg", { viewBox: "0 0 640 262", role: "img" });
  svg.append(drawn("title", {}, `${plan.coarse} runs ahead step by step; ${plan.expand} covers all steps at once`));
  const marks = drawn("defs", {});
  for (const kind of ["coarse", "expand"]) {
    const mark = drawn("marker", { id: "tip-" + kind, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto-start-reverse" });
    mark.append(drawn("path", { d: "M0 0L8 4L0 8Z", style: `fill:var(--${kind})` }));
    marks.append(mark);
  }
  svg.append(marks);
  const names = ["step 1", "step 2", "step 3", "step k"], boxes = [92, 226, 360, 524];
  svg.append(drawn("text", { x: 0, y: 20, class: "strong" }, plan.coarse), drawn("text", { x: 0, y: 36, class: "soft" }, "in sequence"));
  svg.append(drawn("text", { x: 92, y: 20, class: "soft" }, `state ${certificate.state} and its caches pass from step to step; no sample is read`));
  boxes.forEach((x, at) => {
    svg.append(drawn("rect", { x, y: 34, width: 92, height: 50, rx: 8, class: "coarse" }));
    svg.append(drawn("text", { x: x + 46, y: 64, "text-anchor": "middle" }, names[at]));
    if (at < 3) svg.append(drawn("path", { d: `M${x + 92} 59H${boxes[at + 1] - 2}`, class: "state", "marker-end": "url(#tip-coarse)", "stroke-dasharray": at === 2 ? "3 4" : "none" }));
    svg.append(drawn("path", { d: `M${x + 46} 84V152`, class: "cut", "marker-end": "url(#tip-expand)" }));
  });
  const cut = certificate.cut.map((value) => value.name).join(", ") || "nothing";
  svg.append(drawn("text", { x: 0, y: 116, class: "strong" }, "the cut"));
  svg.append(drawn("text", { x: 146, y: 116, class: "soft" }, cut));
  svg.append(drawn("text", { x: 0, y: 172, class: "strong" }, plan.expand), drawn("text", { x: 0, y: 188, class: "soft" }, "at once"));
  svg.append(drawn("rect", { x: 92, y: 154, width: 524, height: 50, rx: 8, class: "expand" }));
  svg.append(drawn("text", { x: 354, y: 176, "text-anchor": "middle" }, "k meta-contexts as one wide batch"));
  const shifts = certificate.shifts.length ? `shifted along the meta axis: ${certificate.shifts.join(", ")}` : "nothing carried between meta-contexts";
  svg.append(drawn("text", { x: 354, y: 194, "text-anchor": "middle", class: "soft" }, shifts));
  svg.append(drawn("path", { d: "M354 204V236", class: "cut", "marker-end": "url(#tip-expand)" }));
  svg.append(drawn("text", { x: 354, y: 254, "text-anchor": "middle" }, `token ids, drawn by ${certificate.samples} sample operations`));
  return svg;
}

function proof(certificate, times) {
  const list = element("dl", { class: "proof" });
  const fact = (name, ...value) => list.append(element("dt", {}, name), element("dd", {}, ...value));
  fact("coarse part", `${certificate.coarse_nodes} nodes, ${certificate.tainted_coarse_nodes} of them reached by a sample`);
  fact("expansion", `${certificate.expand_nodes} nodes, all ${certificate.samples} samples among them, no recurrence`);
  fact("cut", ...certificate.cut.map((value) => element("div", {}, element("code", {}, `${value.name} : ${value.type}`))));
  certificate.recurrences.forEach((recurrence) => fact("recurrence", element("details", {},
    element("summary", {}, `${recurrence.nodes} nodes through ${recurrence.delays.length} delays`),
    element("code", {}, recurrence.delays.join(", ")))));
  fact("shifts", certificate.shifts.join(", ") || "none");
  times.forEach(([graph, floor, bound]) => fact(graph + " floor", `${floor} a run, bound by ${bound}`));
  return list;
}

// The path from a sample to the state, a button for each run of nodes in one stack.
function declinedPath(declined) {
  const groups = [];
  for (const node of declined.path) {
    const place = node.scope.split(".").slice(0, 2).join(".") || "(top)";
    if (groups.length && groups[groups.length - 1].place === place) groups[groups.length - 1].nodes.push(node);
    else groups.push({ place, nodes: [node] });
  }
  const steps = element("div", { class: "steps mono", hidden: "" });
  const show = (group) => { steps.hidden = false; steps.replaceChildren(...group.nodes.map((node) => element("div", {}, `${node.scope}  (${node.op})`))); };
  const path = element("ol", { class: "path" }, ...groups.map((group, at) => element("li", {},
    element("button", { type: "button", class: at === 0 || at === groups.length - 1 ? "end" : "", onclick: () => show(group) },
      group.place, element("span", { class: "count" }, group.nodes.length > 1 ? `${group.nodes.length} nodes` : group.nodes[0].op)))));
  return [path, steps];
}

function planCard(protocol, plan, times) {
  const split = plan.kind === "distributed";
  const card = element("article", { class: "card plan" }, element("h3", {}, protocol,
    element("span", { class: "badge " + (split ? "yes" : "no") }, split ? "split, proved" : "not split")));
  if (split) {
    const certificate = plan.certificate;
    card.append(element("p", { class: "why" }, `The recurrence around ${certificate.state} reads no sample, so it runs ahead of the sampling. Certificate of the split:`),
      element("div", { class: "split" }, splitDrawing(plan, certificate), proof(certificate, [plan.coarse, plan.expand].map(times))));
  } else {
    const then = plan.reencode ? `${plan.decode}, then ${plan.reencode}` : plan.decode;
    card.append(element("p", { class: "why" }, `One meta-context at a time: ${then}. Declined: ${plan.declined.reason.replaceAll("`", "")}.`
      + (plan.declined.path.length ? " The shortest way from a sample to the state:" : "")), ...declinedPath(plan.declined));
  }
  return card;
}
