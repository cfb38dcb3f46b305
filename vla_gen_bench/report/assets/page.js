// The list of episodes: filtered, sorted and drawn on demand from the JSON in #data (see report/episodes.py).
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const PAGE = 100;
const FAILURE = 1, LOST = 2, SUCCESS = 3, ERROR = 4;
const OUTCOMES = { [SUCCESS]: ["success", "success"], [LOST]: ["lost", "lost again"], [FAILURE]: ["failure", "failure"], [ERROR]: ["error", "errored"] };
const form = document.getElementById("filters");
const list = document.getElementById("list");
const state = { sort: "", down: false, shown: PAGE, items: [] };

const items = [];
data.outcomes.forEach((column, policy) => {
  for (let e = 0; e < data.episodes.length; e++) {
    const outcome = column[3 * e];
    if (!outcome) continue; // this policy did not do the episode
    const [scenario, seed, index, instruction, target, receptacle, table] = data.episodes[e];
    items.push({
      policy, e, outcome, scenario, seed, index,
      step: column[3 * e + 1], stage: column[3 * e + 2],
      words: [instruction, target, receptacle, table].map(word => data.words[word]),
    });
  }
});

const COLUMNS = [
  ["scenario", "Scenario", item => item.scenario, item => data.scenarios[item.scenario][1]],
  ["episode", "Seed/index", item => item.seed * 1e6 + item.index, item => item.seed + "/" + item.index],
  ["policy", "Policy", item => item.policy, item => data.policies[item.policy]],
  ["outcome", "Outcome", item => item.outcome, null],
  ["step", "First success, step", item => item.step < 0 ? Infinity : item.step, item => item.step < 0 ? "" : String(item.step)],
  ["stage", "What happened", item => item.stage < 0 ? "" : data.stages[item.stage], item => item.stage < 0 ? "" : data.stages[item.stage].replaceAll("_", " ")],
  ["instruction", "Instruction", item => item.words[0], item => item.words[0]],
  ["target", "Target", item => item.words[1], item => item.words[1].replaceAll("_", " ")],
  ["receptacle", "Receptacle", item => item.words[2], item => item.words[2].replaceAll("_", " ")],
  ["table", "Table", item => item.words[3], item => item.words[3].replaceAll("_", " ")],
].filter(([name]) => (name !== "stage" || data.stages.length) && (name !== "policy" || data.policies.length > 1));

const solved = outcome => data.metric === "success_once" ? outcome === LOST || outcome === SUCCESS : outcome === SUCCESS;
const baselineSolved = item => solved(data.outcomes[data.baseline][3 * item.e]);
const FILTERS = {
  "": ["all", () => true],
  success: ["success", item => solved(item.outcome)],
  failure: ["failure", item => !solved(item.outcome) && item.outcome !== ERROR],
  lost: ["placed, then lost", item => item.outcome === LOST],
  error: ["errored", item => item.outcome === ERROR],
};
if (data.baseline !== null) {
  const done = item => item.policy !== data.baseline && [FAILURE, LOST, SUCCESS].includes(data.outcomes[data.baseline][3 * item.e]) && item.outcome !== ERROR;
  FILTERS.won = ["solved, not by " + data.policies[data.baseline], item => done(item) && solved(item.outcome) && !baselineSolved(item)];
  FILTERS.missed = ["solved only by " + data.policies[data.baseline], item => done(item) && !solved(item.outcome) && baselineSolved(item)];
}

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function fill(select, options) {
  for (const [value, text] of options) {
    const option = element("option", text);
    option.value = value;
    select.append(option);
  }
}

function chosen() {
  const { policy, scenario, outcome, stage, text } = form.elements;
  const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
  const passes = FILTERS[outcome.value][1];
  const kept = items.filter(item =>
    (policy.value === "" || item.policy === +policy.value) &&
    (scenario.value === "" || item.scenario === +scenario.value) &&
    (stage.value === "" || item.stage === +stage.value) && passes(item) &&
    words.every(word => item.words.some(has => has.toLowerCase().replaceAll("_", " ").includes(word))));
  const column = COLUMNS.find(([name]) => name === state.sort);
  if (column) {
    const value = column[2], sign = state.down ? -1 : 1;
    kept.sort((a, b) => { const x = value(a), y = value(b); return x < y ? -sign : x > y ? sign : 0; });
  }
  return kept;
}

function outcomeCell(item) {
  const [className, text] = OUTCOMES[item.outcome];
  const cell = element("td");
  cell.append(element("span", text, className));
  const key = item.policy + ":" + item.e;
  if (data.errors[key]) cell.append(" ", element("small", data.errors[key]));
  if (data.videos[key]) {
    const button = element("button", "Video", "screen-only");
    button.type = "button";
    button.setAttribute("aria-expanded", "false");
    button.addEventListener("click", () => toggleVideo(button, key));
    cell.append(" ", button);
  }
  return cell;
}

function toggleVideo(button, key) {
  const row = button.closest("tr"), open = button.getAttribute("aria-expanded") === "true";
  button.setAttribute("aria-expanded", String(!open));
  if (open) return row.nextElementSibling.remove();
  const video = element("video"), line = element("tr"), cell = element("td");
  video.controls = video.loop = video.muted = video.autoplay = true;
  video.src = "data:video/mp4;base64," + data.videos[key];
  cell.colSpan = COLUMNS.length;
  cell.append(video);
  line.append(cell);
  row.after(line);
}

function line(item) {
  const row = element("tr");
  COLUMNS.forEach(([name, head, , text], place) => {
    const cell = name === "outcome" ? outcomeCell(item) : element(place ? "td" : "th", text(item), name === "instruction" ? "words" : "");
    if (place) cell.dataset.column = head; else cell.scope = "row";
    row.append(cell);
  });
  return row;
}

function draw() {
  state.items = chosen();
  const shown = state.items.slice(0, state.shown), done = state.items.filter(item => item.outcome !== ERROR);
  list.tBodies[0].replaceChildren(...shown.map(line));
  const wins = done.filter(item => solved(item.outcome)).length;
  document.getElementById("count").textContent =
    `${state.items.length} episodes, ${wins} of ${done.length} solved` +
    (done.length < state.items.length ? `, ${state.items.length - done.length} errored` : "") +
    (shown.length < state.items.length ? `; the first ${shown.length} are shown` : "");
  document.getElementById("more").hidden = shown.length === state.items.length;
}

function redraw() { state.shown = PAGE; draw(); }

function sortBy(name) {
  state.down = state.sort === name && !state.down;
  state.sort = name;
  for (const head of list.tHead.rows[0].cells) {
    if (head.dataset.column === name) head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
  redraw();
}

function build() {
  const every = [["", "all"]];
  fill(form.elements.policy, every.concat(data.policies.map((label, place) => [place, label])));
  fill(form.elements.scenario, every.concat(data.scenarios.map(([, label], place) => [place, label])));
  fill(form.elements.outcome, Object.entries(FILTERS).map(([value, [text]]) => [value, text]));
  fill(form.elements.stage, every.concat(data.stages.map((stage, place) => [place, stage.replaceAll("_", " ")])));
  form.querySelector(".stage").hidden = !data.stages.length;
  const head = element("tr");
  for (const [name, title] of COLUMNS) {
    const cell = element("th"), button = element("button", title);
    cell.scope = "col";
    cell.dataset.column = name;
    button.type = "button";
    button.addEventListener("click", () => sortBy(name));
    cell.append(button);
    head.append(cell);
  }
  list.tHead.append(head);
  form.addEventListener("input", redraw);
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(redraw));
  document.getElementById("more").addEventListener("click", () => { state.shown += 4 * PAGE; draw(); });
  for (const link of document.querySelectorAll("a[data-scenario]")) {
    link.addEventListener("click", () => {
      form.reset();
      form.elements.scenario.value = data.scenarios.findIndex(([id]) => id === link.dataset.scenario);
    });
  }
  draw();
}

build();
