"use strict";
// The explorer: re-scores logged log-probabilities under another beta and length penalty. Nothing is trained here.
// The trainer's numbers arrive as JSON in a data block; every text is set with textContent and never parsed as HTML.
(function () {
  const block = document.getElementById("explorer-data");
  const root = document.getElementById("explorer");
  document.documentElement.dataset.ready = "yes";
  if (!block || !root) return;
  const data = JSON.parse(block.textContent);
  const byId = (name) => document.getElementById(name);
  const beta = byId("beta"), alpha = byId("alpha"), axis = byId("axis"), level = byId("level"), list = byId("list");
  const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);
  const sigmoid = (value) => 1 / (1 + Math.exp(-value));
  const margin = (pair) => Number(beta.value) * (pair.c - pair.r) - Number(alpha.value) * pair.g;

  const loss = (pair) => Math.log1p(Math.exp(-margin(pair)));

  function option(select, words) {
    const made = document.createElement("option");
    made.value = made.textContent = words;
    select.append(made);
  }
  function levels() {
    level.replaceChildren();
    option(level, "all");
    const found = new Set(data.pairs.map((pair) => pair.s[axis.value]));
    [...found].sort().forEach((words) => option(level, words));
  }
  function cell(row, words, kind) {
    const made = document.createElement("td");
    made.textContent = words;
    made.className = kind;
    row.append(made);
  }
  function bar(row, value, most, kind) {
    const space = "http://www.w3.org/2000/svg";
    const made = document.createElement("td"), picture = document.createElementNS(space, "svg");
    picture.setAttribute("viewBox", "0 0 100 10");
    const part = document.createElementNS(space, "rect"), wide = (48 * Math.abs(value)) / most;
    part.setAttribute("x", value < 0 ? 50 - wide : 50);
    part.setAttribute("y", 2);
    part.setAttribute("width", wide);
    part.setAttribute("height", 6);
    part.setAttribute("class", kind);
    picture.append(part);
    made.append(picture);
    made.className = "bar";
    row.append(made);
  }
  let shown = null;
  function show(pair) {
    shown = pair.id;
    byId("text-said").textContent =
      "margin " + signed(margin(pair)) + " · σ " + sigmoid(margin(pair)).toFixed(2) + " · loss " + loss(pair).toFixed(3);
    byId("text-prompt").textContent = pair.p;
    byId("text-chosen").textContent = pair.ct;
    byId("text-rejected").textContent = pair.rt;
    byId("text-id").textContent = pair.id;
  }
  function rate(pairs) {
    if (!pairs.length) return "n/a";
    const right = pairs.map((pair) => (Math.abs(margin(pair)) < 1e-6 ? 0.5 : margin(pair) > 0 ? 1 : 0));
    return Math.round((100 * right.reduce((a, b) => a + b, 0)) / pairs.length) + " % of " + pairs.length;
  }
  function draw() {
    byId("beta-value").textContent = Number(beta.value).toPrecision(2);
    byId("alpha-value").textContent = Number(alpha.value).toFixed(3);
    const inside = data.pairs.filter((pair) => level.value === "all" || pair.s[axis.value] === level.value);
    const mean = inside.map(loss).reduce((a, b) => a + b, 0) / inside.length;
    byId("said").textContent =
      "accuracy " + rate(inside) + " · chosen shorter: " + rate(inside.filter((pair) => pair.g < 0)) +
      " · chosen longer: " + rate(inside.filter((pair) => pair.g > 0)) + " · mean sigmoid loss " + mean.toFixed(4);
    const most = Math.max(1e-9, ...inside.map((pair) => Math.max(Math.abs(pair.c), Math.abs(pair.r))));
    const ordered = inside.slice().sort((a, b) => margin(a) - margin(b) || (a.id < b.id ? -1 : 1));
    list.replaceChildren();
    ordered.slice(0, 40).forEach((pair) => {
      const row = document.createElement("tr");
      cell(row, signed(margin(pair)), "n");
      cell(row, sigmoid(margin(pair)).toFixed(2), "n");
      bar(row, pair.c, most, "up");
      bar(row, pair.r, most, "down");
      cell(row, pair.s[axis.value] || "", "words");
      row.tabIndex = 0;
      row.addEventListener("click", () => show(pair));
      row.addEventListener("focus", () => show(pair));
      list.append(row);
    });
    if (ordered.length) show(ordered.find((pair) => pair.id === shown) || ordered[0]);
  }
  data.axes.forEach((words) => option(axis, words));
  beta.value = data.beta;
  levels();
  draw();
  beta.addEventListener("input", draw);
  alpha.addEventListener("input", draw);
  level.addEventListener("change", draw);
  axis.addEventListener("change", () => { levels(); draw(); });
})();
