"use strict";
// Shows /quality.json and asks for it again every few seconds. Every number on the page stands in that document;
// texts go in as text, never as HTML.
const EVERY_MS = 5000;
const WINDOWS = [["hour", "Hour"], ["day", "Day"], ["week", "Week"], ["since_release", "Since release"]];
const FIGURES = [
  ["alarm_rate", "Alarm rate"], ["review_load", "Review load"], ["recall", "Recall"], ["precision", "Precision"],
  ["fraud_rate", "Fraud rate, labelled"], ["cost_saved", "Cost saved"],
  ["control.recall", "Recall, control sample"], ["control.precision", "Precision, control sample"],
  ["control.fraud_rate", "Fraud rate, control sample"],
];
const DRIFT_ROWS = 8;
const OVER_TIME = ["recall", "precision", "alarm_rate"];
const get = (id) => document.getElementById(id);
const charts = {};
let chosen = "since_release";
let last = null;

function make(tag, text, attributes = {}) {
  const node = document.createElement(tag);
  if (text !== undefined && text !== null) node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}
const at = (object, path) => path.split(".").reduce((found, key) => (found ? found[key] : undefined), object);
const count = (n) => n.toLocaleString("en");
function number(x) {
  if (x === null || x === undefined) return "–";
  const size = Math.abs(x);
  return size !== 0 && size < 0.1 ? x.toPrecision(3) : x.toFixed(size < 10 ? 3 : 1);
}
function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  for (const [unit, name] of [[86400, "d"], [3600, "h"], [60, "min"]])
    if (seconds >= unit) return `${(seconds / unit).toFixed(1)} ${name}`;
  return `${seconds.toFixed(0)} s`;
}
const moment = (ms) => (ms ? new Date(ms).toLocaleString() : "–");

function cell(figure, path, who) {
  const node = make("td", number(figure.value), {"data-figure": path, "data-who": who});
  for (const bound of ["value", "low", "high", "n"]) node.dataset[bound] = figure[bound] === null ? "" : figure[bound];
  if (figure.value !== null)
    node.append(make("small", `${number(figure.low)} to ${number(figure.high)}`));
  node.append(make("small", `${count(figure.n)} counted`));
  return node;
}
function fill(id, head, rows) {
  const table = get(id);
  const heading = make("tr");
  heading.append(...head.map((one) => (one instanceof Node ? one : make("th", one))));
  table.tHead.replaceChildren(heading);
  table.tBodies[0].replaceChildren(...rows.map((cells) => {
    const row = make("tr");
    row.append(...cells.map((one) => (one instanceof Node ? one : make("td", one))));
    return row;
  }));
}

function showState(state, sentence) {
  const node = get("state");
  node.dataset.state = state;
  node.textContent = sentence;
}
function showAdvice(found) {
  get("advice").textContent = found.sentence;
  get("advice").className = found.advised ? "advised" : "";
  get("reasons").replaceChildren(...found.reasons.map((reason) => make("li", reason)));
}
function current(document) {
  return ["champion", "challenger"].map((role) => document.releases.find((r) => r.role === role && r.is_current))
    .filter(Boolean);
}
function showWindows() {
  get("windows").replaceChildren(...WINDOWS.map(([key, name]) => {
    const button = make("button", name, {type: "button", "aria-pressed": String(key === chosen)});
    button.addEventListener("click", () => { chosen = key; show(last); });
    return button;
  }));
}
function showFigures(found) {
  showWindows();
  const head = ["", ...found.map((one) => make("th", `${one.role} ${one.release}`, {class: one.role}))];
  const rows = FIGURES.map(([path, name]) =>
    [name, ...found.map((one) => cell(at(one.windows[chosen], path), path, one.role))]);
  const plain = [["decisions", "Decisions"], ["alarms", "Alarms"], ["reviews", "Reviews"], ["declines", "Declines"]].map(
    ([key, name]) => [name, ...found.map((one) => make("td", count(one.windows[chosen][key]), {"data-count": key, "data-who": one.role}))]);
  const promised = ["recall", "precision", "alarm_rate"].map((key) =>
    [`Promised ${key.replace("_", " ")}`, ...found.map((one) => number(one.expected[key]))]);
  fill("figures", head, [...plain, ...rows, ...promised]);
  get("basis").textContent = found.map((one) => {
    const labels = one.windows[chosen].labels;
    const parts = Object.entries(labels.by_origin).map(([origin, n]) => `${origin} ${count(n.frauds)} frauds, ${count(n.genuine)} genuine`);
    return `${one.role} ${one.release} rests on ${count(labels.frauds + labels.genuine)} labels: ${parts.join("; ")}.`;
  }).join(" ");
}
function showLabels(found) {
  const first = found[0];
  if (!first) return;
  const delay = first.windows[chosen].label_delay_s;
  get("delay").textContent = delay.median.value === null ? "No label has come in this window." :
    `Half of the labels came within ${duration(delay.median.value)} (${duration(delay.median.low)} to ${duration(delay.median.high)}), nine of ten within ${duration(delay.p90.value)}.`;
  fill("labels", ["Origin", "Frauds", "Genuine"], Object.entries(first.windows[chosen].labels.by_origin)
    .map(([origin, n]) => [origin, count(n.frauds), count(n.genuine)]));
  fill("bands", ["Amount", "Decisions", "Frauds", "Fraud rate", "By amount"], first.windows[chosen].amount_bands.map((band) =>
    [band.to === null ? `over ${band.from}` : `${band.from} to ${band.to}`, count(band.decisions), count(band.frauds),
      cell(band.fraud_rate, `band.${band.from}`, first.role), number(band.fraud_amount_share)]));
}
function showShadow(shadow) {
  get("shadow-box").hidden = !shadow;
  if (!shadow) return;
  const found = shadow.windows[chosen] || shadow.windows.since_release;
  get("shadow-text").textContent = `Release ${shadow.challenger} decided ${count(found.compared)} transactions that release ${shadow.champion} decided too; ` +
    `${count(found.only_champion_alarms)} alarms were raised by the champion alone, ${count(found.only_challenger_alarms)} by the challenger alone. Below, rows are the champion's decisions, columns the challenger's.`;
  const kinds = ["approve", "review", "decline"];
  fill("agreement", ["", ...kinds], kinds.map((a) =>
    [a, ...kinds.map((b) => make("td", count(found.agreement[`${a}/${b}`]), {"data-pair": `${a}/${b}`}))]));
  fill("differences", ["Challenger − champion", "Difference"], Object.entries(found.differences).map(([name, figure]) =>
    [name.replace("_", " "), cell(figure, `difference.${name}`, "pair")]));
}
function showDrift(found) {
  const drifted = found.filter((one) => one.is_drifted);
  get("drift-text").textContent = !found.length ? "Nothing is known yet: too few transactions, or the release carries no reference." :
    (drifted.length ? `${drifted.length} of ${found.length} series drift: ${drifted.map((one) => `${one.series} (${one.role})`).join(", ")}.` :
    `None of ${found.length} series drifts.`) + " The mark in the middle of a bar is its bound.";
  const roles = ["champion", "challenger"].filter((role) => found.some((one) => one.role === role));
  get("drift").replaceChildren(...roles.map((role) => driftOf(role, found.filter((one) => one.role === role))));
}
// The clock counts up for ever: it is never drift, and stands last.
const ratio = (one) => (one.series === "Time" ? -1 : one.divergence / one.threshold);
function driftOf(role, found) {
  const rows = [...found].sort((a, b) => ratio(b) - ratio(a)).map(driftRow);
  const shown = Math.max(DRIFT_ROWS, found.filter((one) => one.is_drifted).length);
  const part = make("div");
  part.append(make("h3", `${role} ${found[0].release}`, {class: role}), ...rows.slice(0, shown));
  const more = make("details");
  more.append(make("summary", `${rows.length - shown} more`), ...rows.slice(shown));
  if (rows.length > shown) part.append(more);
  return part;
}
function driftRow(one) {
  const row = make("div", null, {class: `drift-row${one.is_drifted ? " drifted" : ""}`, "data-series": one.series, "data-who": one.role,
    "data-divergence": one.divergence,
    title: `divergence ${number(one.divergence)}, bound ${number(one.threshold)}, ${count(one.rows)} transactions`});
  const bar = make("div", null, {class: "bar"});
  const level = make("i");
  level.style.width = `${Math.max(0, Math.min(100, 50 * ratio(one)))}%`;
  bar.append(level);
  row.append(make("span", one.series === "Time" ? "Time (clock)" : one.series), bar, make("span", number(one.divergence)));
  return row;
}
function showAlarms(alarms) {
  const items = alarms.slice(0, 12).map((one) => make("li",
    `${moment(one.since_ms)}${one.until_ms ? ` to ${moment(one.until_ms)}` : ", holds"}: ${one.sentence}`, {class: one.until_ms ? "over" : "active"}));
  get("alarms").replaceChildren(...(items.length ? items : [make("li", "None so far.")]));
}

function showChart(name, series) {
  const times = [...new Set(series.flatMap((one) => one.points.map((p) => p.from_ms / 1000)))].sort((a, b) => a - b);
  const node = get(`chart-${name}`);
  if (!times.length) { node.textContent = "Nothing to show yet."; return; }
  const style = getComputedStyle(document.documentElement);
  const data = [times], lines = [{label: "time"}], bands = [];
  for (const one of series) {
    const by = new Map(one.points.map((p) => [p.from_ms / 1000, p[name]]));
    const colour = style.getPropertyValue(one.role === "champion" ? "--champion" : "--challenger").trim();
    for (const bound of ["value", "high", "low"]) {
      data.push(times.map((t) => (by.get(t) ? by.get(t)[bound] : null)));
      lines.push({label: `${one.role} ${one.release}${bound === "value" ? "" : ` ${bound}`}`, stroke: bound === "value" ? colour : "transparent",
        width: bound === "value" ? 2 : 0, points: {show: bound === "value" && times.length < 60, size: 5}, spanGaps: bound === "value",
        value: (_, v) => number(v)});
    }
    bands.push({series: [data.length - 2, data.length - 1], fill: `${colour}33`});
  }
  const ink = style.getPropertyValue("--soft").trim(), grid = style.getPropertyValue("--line").trim();
  const axis = {stroke: ink, grid: {stroke: grid, width: 1}, ticks: {stroke: grid}};
  const range = name === "alarm_rate" ? (u, low, high) => [0, Math.max(high * 1.1, 1e-6)] : [0, 1.02];
  const options = {width: Math.max(240, node.clientWidth), height: 220, series: lines, bands, legend: {show: false},
    scales: {y: {range}}, axes: [axis, {...axis, size: 62, values: (_, ticks) => ticks.map(number)}]};
  if (charts[name]) charts[name].destroy();
  node.replaceChildren();
  charts[name] = new uPlot(options, data, node);
}

function show(found) {
  last = found;
  showState(found.state, found.sentence);
  get("main").hidden = !found.releases || !found.releases.length;
  if (get("main").hidden) return;
  const two = current(found);
  showAdvice(found.retraining);
  showFigures(two);
  showShadow(found.shadow);
  showDrift(found.drift);
  showLabels(two);
  showAlarms(found.alarms);
  for (const name of OVER_TIME) showChart(name, found.series);
  const behind = Object.entries(found.lag_records).map(([name, n]) => `${name} ${count(n)}`).join(", ");
  get("footer").textContent = `Newest transaction ${moment(found.as_of_ms)}; worked out ${moment(found.generated_at_ms)}; still to read: ${behind}; labels waiting for their transaction: ${count(found.counts.labels_waiting)}.`;
  // Wide tables scroll in themselves; the page never does. A test looks here.
  document.body.dataset.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
}

async function refresh() {
  try {
    const answer = await fetch("quality.json", {cache: "no-store"});
    if (!answer.ok) throw new Error(`it answered ${answer.status}`);
    show(await answer.json());
  } catch (error) {
    showState("unreachable", `The monitor cannot be reached (${error.message}): what is shown is as of ${last ? moment(last.generated_at_ms) : "never"}.`);
  }
  setTimeout(refresh, EVERY_MS);
}
window.addEventListener("resize", () => last && last.series && OVER_TIME.forEach((name) => showChart(name, last.series)));
refresh();
