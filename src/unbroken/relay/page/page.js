// The status page of `unbroken relay`: what the relay's feed says, drawn.
//
// The feed (an event stream at ./feed) says `hello` with everything, then `live` with the running turns, `ended` with
// each turn that is over, `store` with what is wrong with the store of turns, and `kept` with what became of turns whose
// client had gone. Events change `relay`, below; `paint` draws it, a few times a second at most, however fast they come.
// Every string of the feed is hostile here: it becomes a text node or an attribute, never markup.

const LANES = 16; // lanes drawn; hundreds of live turns are counted, not drawn
const ROWS = 100;
const CUTS = 1000;

const relay = {
  version: "", upstreams: [], live: [], recent: [], cuts: [], advice: "", totals: {}, store_problem: "",
  shows: "", kept: {},
};
let heardAt = 0; // when the feed last described the live turns, on performance.now()'s clock
let silentSince = null; // when the feed went away, null while it is there

const $ = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children); // strings become text nodes
  return node;
}

function say(node, text) {
  if (node.textContent !== text) node.textContent = text; // untouched text is not announced or laid out again
}

// ---- words ----------------------------------------------------------------------------------------------------------

const seconds = (s) => (s < 9.95 ? `${s.toFixed(1)} s` : `${Math.round(s)} s`);
const words = (code) => String(code).replaceAll("_", " ");
const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;

const secondsOrNone = (s) => (s === null ? "–" : seconds(s));
const bytes = (n) => (n < 1000 ? `${n} B` : n < 1e6 ? `${(n / 1e3).toFixed(1)} kB` : `${(n / 1e6).toFixed(1)} MB`);

function clock(epoch) {
  const then = new Date(epoch * 1000);
  if (then.toDateString() === new Date().toDateString()) return then.toLocaleTimeString([], { hour12: false });
  return then.toLocaleString([], { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hour12: false });
}

// A failure after the answer had settled cost nothing, and a client that goes away loses nothing it wants.
const isLoss = (attempt) =>
  attempt.failure && attempt.failure !== "cancelled" && !["settled", "complete"].includes(attempt.phase);
const losses = (turn) => turn.attempts.filter(isLoss);
const isSaved = (turn) => turn.outcome === "answered" && turn.attempts.length > 1;
const outcomeOf = (turn) => (isSaved(turn) ? "saved" : words(turn.outcome));

const WHERE = {
  connect: "while connecting",
  headers: "before headers",
  prelude: "before any output",
  output: "after output",
};

/** What attempts that were lost in the same way lost: "2 × reset after 60–61 s of silence, before any output". */
function lossText(alike) {
  const [{ failure, phase, status }] = alike;
  const times = alike.length > 1 ? `${alike.length} × ` : "";
  const silent = alike.map((attempt) => attempt.silent).sort((a, b) => a - b);
  const [low, high] = [seconds(silent[0]), seconds(silent.at(-1))];
  const silence = low === high ? low : `${low.replace(" s", "")}–${high}`;
  const after = silent.at(-1) >= 1 ? ` after ${silence} of silence` : "";
  if (status >= 400) return `${times}${words(failure)} (${status})${after}`;
  return `${times}${words(failure)}${after}, ${WHERE[phase] ?? words(phase)}`;
}

function lossesText(turn) {
  const groups = new Map();
  for (const attempt of losses(turn)) {
    const key = `${attempt.failure} ${attempt.phase} ${attempt.status}`;
    groups.set(key, [...(groups.get(key) ?? []), attempt]);
  }
  return [...groups.values()].map(lossText).join("; ") + moveText(turn);
}

/** The path that a turn took after another one had failed: "; going by direct from then on". */
function moveText({ attempts }) {
  const path = attempts.at(-1)?.path;
  return path && path !== attempts[0].path ? `; going by ${path} from then on` : "";
}

/** Where the text was continued after a cut: "continued at character 1,240". */
function seamsText(turn) {
  const places = (turn.seams ?? []).map((character) => character.toLocaleString("en"));
  return places.length ? `continued at character ${places.join(", ")}` : "";
}

/** Where the stream was taken up after a cut: "resumed after event 41". */
function resumesText(turn) {
  const places = turn.resumes ?? [];
  return places.length ? `resumed after event ${places.join(", ")}` : "";
}

// ---- lanes ----------------------------------------------------------------------------------------------------------
// A lane's axis counts from the turn's own start, not by the wall clock: an idle timer then stands as a column of cuts
// at the same second in every lane, and what is drawn stays where it is while only the running end moves.

const AXES = [
  [1, 0.2], [2, 0.5], [5, 1], [10, 2], [20, 5], [30, 5], [60, 10], [90, 15], [120, 20], [180, 30], [240, 60],
  [300, 60], [600, 120], [900, 180], [1200, 300], [1800, 300], [3600, 600],
]; // [where the axis ends, how far its ticks are apart]

function axisFor(longest) {
  const hours = Math.ceil(longest / 3600) * 3600;
  return AXES.find(([end]) => longest <= end) ?? [hours, hours / 6];
}

/** Draw the ticks into `axis`, and tell the lanes in `scope` where their grid lines are. */
function paintAxis(axis, scope, [end, step]) {
  if (axis.dataset.end === String(end)) return;
  axis.dataset.end = end;
  scope.style.setProperty("--tick", `${(100 * step) / end}%`);
  const ticks = Array.from({ length: Math.round(end / step) + 1 }, (_, i) => {
    const tick = make("span", {}, i * step === end ? `${end} s` : String(Number((i * step).toFixed(1))));
    tick.style.left = `${(100 * i * step) / end}%`;
    return tick;
  });
  axis.replaceChildren(...ticks);
}

/** The parts of a turn's lane; `ahead` is how long a live turn has gone on since the feed described it. */
function partsOf(turn, ahead = 0) {
  const parts = [];
  turn.attempts.forEach((attempt, index) => {
    const next = turn.attempts[index + 1];
    const last = turn.outcome === null && !next;
    const length = attempt.elapsed + (last && !attempt.failure ? ahead : 0);
    const part = (kind, from, to, least = 0) => {
      if (to - from > least) parts.push({ kind, from: attempt.after + from, to: attempt.after + to, attempt });
    };
    if (attempt.phase === "connect") {
      part("connect", 0, length);
    } else {
      const headers = attempt.headers_after ?? length;
      const output = attempt.output_after ?? length;
      part("headers", 0, headers);
      part("silence", headers, output);
      part("output", output, length);
    }
    if (isLoss(attempt)) part("cut", length, length, -1);
    if (next) part("wait", length, next.after - attempt.after, 0.05);
    else if (last && attempt.failure) part("wait", length, turn.elapsed + ahead - attempt.after);
  });
  return parts;
}

const LABELLED = new Set(["silence", "output"]);
const KINDS = { connect: "connecting", headers: "headers", silence: "silence", output: "output", wait: "waiting" };

function partText({ kind, from, to, attempt }) {
  return kind === "cut" ? lossText([attempt]) : `${KINDS[kind]} ${seconds(to - from)}`;
}

function paintLane(lane, parts, end, labelled) {
  while (lane.childElementCount > parts.length) lane.lastChild.remove();
  parts.forEach((part, index) => {
    const node = lane.children[index] ?? lane.appendChild(document.createElement("span"));
    const text = partText(part);
    if (node.className !== part.kind) node.className = part.kind;
    say(node, labelled && LABELLED.has(part.kind) ? text : ""); // the style sheet hides a label that does not fit
    node.title = `attempt ${part.attempt.number}: ${text}`;
    node.style.left = part.kind === "cut" ? `max(6px, ${(100 * part.from) / end}%)` : `${(100 * part.from) / end}%`;
    node.style.width = part.kind === "cut" ? "" : `${(100 * (part.to - part.from)) / end}%`;
  });
}

const keyOf = (turn) => `${turn.id} ${turn.started}`;

/** Make the entries in `parent` those of `turns`, in order. Entries that are there already stay, and keep the focus. */
function arrange(parent, entries, turns, create) {
  const wanted = new Map(turns.map((turn) => [keyOf(turn), turn]));
  for (const [key, entry] of entries) {
    if (!wanted.has(key)) {
      entry.node.remove();
      entries.delete(key);
    }
  }
  let place = parent.querySelector(":scope > .entry");
  for (const [key, turn] of wanted) {
    if (!entries.has(key)) entries.set(key, create(turn));
    const entry = entries.get(key);
    entry.turn = turn;
    if (entry.node === place) place = place.nextElementSibling;
    else parent.insertBefore(entry.node, place);
  }
}

// ---- live turns -----------------------------------------------------------------------------------------------------

const lanes = new Map();

function makeLane(turn) {
  const lane = make("div", { class: "lane", role: "img" });
  const [phase, attempt, elapsed] = ["phase", "attempt", "elapsed"].map((name) => make("span", { class: name }));
  const who = make("div", { class: "who" }, make("code", {}, turn.id),
    make("span", { class: "upstream" }, turn.upstream), make("span", { class: "dialect" }, turn.dialect));
  const node = make("li", { class: "row entry" }, who, lane, make("div", { class: "state" }, phase, elapsed, attempt));
  return { node, lane, phase, attempt, elapsed };
}

function paintLive() {
  const ahead = ((silentSince ?? performance.now()) - heardAt) / 1000; // stands still while the feed is away
  const { live } = relay;
  // A person came to see those that have lost something, then those that may: they have no output yet.
  const rank = (turn) => (losses(turn).length ? 2 : turn.first_output === null ? 1 : 0);
  const drawn = [...live].sort((a, b) => rank(b) - rank(a) || a.started - b.started).slice(0, LANES);
  drawn.sort((a, b) => a.started - b.started);
  arrange($("lanes"), lanes, drawn, makeLane);
  const axis = axisFor(Math.max(10, ...drawn.map((turn) => turn.elapsed + ahead)));
  paintAxis($("live-scale"), $("live"), axis);
  for (const entry of lanes.values()) paintLiveTurn(entry, ahead, axis[0]);

  const seen = live.length + relay.recent.length + (relay.totals.turns ?? 0) > 0;
  const connecting = document.body.dataset.feed === "connecting";
  say($("running"), live.length ? String(live.length) : "");
  const first = "shown are those that were cut, then those without output, then the oldest";
  say($("more"), live.length > LANES ? `and ${live.length - LANES} more: ${first}` : "");
  $("live-head").hidden = !live.length;
  $("legend").hidden = !seen;
  $("no-feed").hidden = !connecting;
  $("no-live").hidden = connecting || live.length > 0 || !seen;
  $("no-turns").hidden = connecting || seen;
  document.title = live.length ? `${live.length} running · Unbroken relay` : "Unbroken relay";
}

function paintLiveTurn({ turn, lane, phase, attempt, elapsed }, ahead, end) {
  const parts = partsOf(turn, ahead);
  const last = turn.attempts.at(-1);
  const cut = losses(turn).at(-1);
  const silent = last ? last.silent + ahead : 0;
  const now = parts.findLast((part) => part.kind !== "cut");
  paintLane(lane, parts, end, true);
  say(phase, now ? partText(now) : "starting");
  phase.dataset.kind = now?.kind ?? "";
  say(elapsed, seconds(turn.elapsed + ahead));
  const after = cut ? ` after ${words(cut.failure)}` : "";
  say(attempt, turn.suspicion || (last?.failure ? words(last.failure) : `attempt ${last?.number ?? 1}${after}`));
  attempt.title = turn.suspicion;
  const story = parts.map(partText).join(", ");
  const unheard = silent >= 2 && !last.failure ? `no byte for ${seconds(silent)}` : "";
  const quiet = turn.suspicion || unheard ? `, ${turn.suspicion || unheard}` : "";
  lane.setAttribute("aria-label", `${plural(turn.attempts.length, "attempt")}: ${story}${quiet}`);
}

/** How to point a program at the relay, for the upstreams that it has. */
function howTo() {
  const at = location.origin;
  const known = {
    openai: `OPENAI_BASE_URL=${at}/openai/v1 your-program`,
    anthropic: `ANTHROPIC_BASE_URL=${at}/anthropic your-program`,
  };
  const others = relay.upstreams.filter((name) => !known[name]);
  const rest = [`# in place of a provider’s own address, where NAME is ${others.join(", ")}`, `${at}/NAME/…`];
  return [...relay.upstreams.map((name) => known[name]).filter(Boolean), ...(others.length ? rest : [])].join("\n");
}

// ---- the last hundred -----------------------------------------------------------------------------------------------

const entries = new Map();
const filter = $("filter");
let current = null; // the entry that takes the focus
let opened = null; // the entry whose details are shown

function makeEntry(turn) {
  const lost = [lossesText(turn), seamsText(turn), resumesText(turn), turn.background].filter(Boolean).join("; ");
  const outcome = outcomeOf(turn);
  const lane = make("div", { class: "lane", "aria-hidden": "true" });
  const cell = (name, content) => make("td", { role: "gridcell", class: name }, content);
  const long = (name, text) => make("td", { role: "gridcell", class: name, title: text }, text || "–"); // may not fit
  const over = turn.started + turn.elapsed;
  const time = make("time", { datetime: new Date(over * 1000).toISOString() }, clock(over));
  const button = make("button", { type: "button", "aria-expanded": "false", tabindex: "-1" }, time);
  const mood = isSaved(turn) ? "saved" : ["answered", "kept", "left", "stopped"].includes(turn.outcome) ? "fine" : "bad";
  const row = make("tr", { role: "row", class: "turn", "data-mood": mood },
    cell("time", button), long("upstream", turn.upstream), long("dialect", turn.dialect), cell("outcome", outcome),
    cell("attempts", String(turn.attempts.length)), long("lost", lost),
    cell("first", secondsOrNone(turn.first_output)), cell("elapsed", seconds(turn.elapsed)),
    cell("bytes", bytes(turn.bytes_out)), cell("path", lane));
  const node = make("tbody", { role: "rowgroup", class: "entry" }, row);
  const failures = turn.attempts.map((attempt) => `${attempt.failure ?? ""} ${attempt.detail}`);
  const text = [turn.id, turn.upstream, turn.dialect, outcome, turn.outcome, lost, ...failures].join(" ").toLowerCase();
  return { node, turn, button, lane, text };
}

const visible = () =>
  relay.recent.map((turn) => entries.get(keyOf(turn))).filter((entry) => entry && !entry.node.hidden);

function paintEnded() {
  const focused = $("turns").contains(document.activeElement);
  arrange($("turns"), entries, relay.recent, makeEntry);
  const terms = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const entry of entries.values()) entry.node.hidden = !terms.every((term) => entry.text.includes(term));
  const shown = visible();
  const axis = axisFor(Math.max(1, ...shown.map((entry) => entry.turn.elapsed)));
  paintAxis($("ended-scale"), $("turns"), axis);
  for (const entry of shown) {
    if (entry.end === axis[0]) continue; // a finished turn changes only when the axis does
    entry.end = axis[0];
    paintLane(entry.lane, partsOf(entry.turn), axis[0]);
  }
  if (opened && !shown.includes(opened)) close();
  if (!focused && !opened) setCurrent(shown[0]); // nobody is there yet: keys start at the newest
  else if (!shown.includes(current)) setCurrent(shown.at(-1), focused); // it fell off the end
  const total = relay.recent.length;
  say($("shown"), terms.length ? `${shown.length} of ${total}` : total ? String(total) : "");
  $("turns").hidden = !shown.length;
  $("no-ended").hidden = total > 0;
  $("no-match").hidden = !total || shown.length > 0;
}

function setCurrent(entry, focus) {
  current?.button.setAttribute("tabindex", "-1");
  current = entry ?? null;
  current?.button.setAttribute("tabindex", "0");
  if (focus) current?.button.focus();
}

function move(step) {
  const shown = visible();
  const at = shown.indexOf(current);
  const started = $("turns").contains(document.activeElement);
  setCurrent(shown[started ? Math.min(shown.length - 1, Math.max(0, at + step)) : Math.max(0, at)], true);
}

function close() {
  opened?.button.setAttribute("aria-expanded", "false");
  opened?.details.remove();
  opened = null;
}

function toggle(entry) {
  const again = entry === opened;
  close();
  if (again) return;
  opened = entry;
  entry.details = makeDetails(entry.turn);
  entry.node.append(entry.details);
  entry.button.setAttribute("aria-expanded", "true");
  for (const part of [entry.details, entry.button]) part.scrollIntoView({ block: "nearest" }); // the row above all
}

/** How many PINGs were answered, and how often they are sent since: "5 of 5 answered; every 1.0 s from then on". */
function pings({ route, lowered_ping }) {
  const counted = route.pings_sent ? `${route.pings_answered} of ${route.pings_sent} answered` : "none";
  return lowered_ping === null ? counted : `${counted}; every ${seconds(lowered_ping)} from then on`;
}

/** What is known of an attempt, column by column. */
const COLUMNS = {
  Attempt: (a) => String(a.number),
  "Sent after": (a) => seconds(a.after),
  Reached: (a) => a.phase,
  Failure: (a) => (a.failure ? words(a.failure) : "–"),
  Status: (a) => String(a.status ?? "–"),
  Path: (a) => a.path || "–",
  HTTP: (a) => a.http_version.replace("HTTP/", "") || "–",
  PING: pings,
  Headers: (a) => secondsOrNone(a.headers_after),
  "1st output": (a) => secondsOrNone(a.output_after),
  Silent: (a) => seconds(a.silent),
  Elapsed: (a) => seconds(a.elapsed),
  Billed: (a) => (a.billed === "unknown" ? "perhaps" : a.billed),
  Detail: (a) => a.detail || "–",
};

function makeDetails(turn) {
  const started = new Date(turn.started * 1000).toLocaleString([], { hour12: false });
  const facts = {
    Turn: turn.id, Started: started, Upstream: turn.upstream, Dialect: turn.dialect || "–", Outcome: outcomeOf(turn),
    Streamed: turn.streaming ? "yes" : "no", Bytes: String(turn.bytes_out), "Heartbeats sent": String(turn.heartbeats),
  };
  const list = make("dl", { class: "facts" }, ...Object.entries(facts).map(([name, value]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  const lane = make("div", { class: "lane", "aria-hidden": "true" });
  const axis = make("div", { class: "axis", "aria-hidden": "true" });
  const big = make("div", { class: "big" }, axis, lane);
  const scale = axisFor(turn.elapsed);
  paintAxis(axis, big, scale);
  paintLane(lane, partsOf(turn), scale[0], true);
  const columns = Object.entries(COLUMNS);
  const row = (cells) => make("tr", { role: "row" }, ...cells);
  const head = columns.map(([name]) => make("th", { role: "columnheader", scope: "col" }, name));
  const rows = turn.attempts.map((attempt) => row(columns.map(([name, of]) =>
    make("td", { role: "cell", "data-name": name }, of(attempt)))));
  const table = make("table", { class: "attempt-list", role: "table", "aria-label": "Attempts" },
    make("thead", { role: "rowgroup" }, row(head)), make("tbody", { role: "rowgroup" }, ...rows));
  const region = make("div", { role: "region", id: "details", "aria-label": `Turn ${turn.id}` }, list, big, table);
  return make("tr", { role: "row", class: "details" }, make("td", { role: "gridcell", colspan: "100" }, region));
}

// ---- the histogram --------------------------------------------------------------------------------------------------
// One bin for each timer that boxes on the way are known to keep, about a sixth apart: the bins grow with the silence,
// so that a spike is as narrow at 600 s as at 5 s, and a timer's cuts fall into one bin instead of on an edge.

const TIMERS = [
  0.5, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50,
  60, 75, 100, 120, 150, 180, 240, 300, 350, 450, 600, 900, 1200,
];
const EDGES = TIMERS.slice(1).map((timer, index) => Math.sqrt(timer * TIMERS[index]));
const LABELS = new Set([1, 5, 10, 30, 60, 120, 300, 600]);

const bars = TIMERS.map((timer, index) => {
  const [count, pinged, plain] = ["n", "pinged", "plain"].map((name) => make("span", { class: name }));
  const node = make("div", { class: "bar" }, count, pinged, plain);
  if (LABELS.has(timer)) node.append(make("span", { class: "tick" }, String(timer)));
  const [low, high] = [EDGES[index - 1] ?? 0, EDGES[index]];
  const range = high ? `${low.toFixed(1)} to ${high.toFixed(1)} s` : `${low.toFixed(1)} s or more`;
  return { node, count, pinged, plain, range };
});
$("histogram").append(...bars.map((bar) => bar.node));

function spikeText(bin, total) {
  const silent = bin.map((cut) => cut.silent).sort((a, b) => a - b);
  const [low, high] = [silent[0].toFixed(1), silent.at(-1).toFixed(1)];
  return `${bin.length} of ${plural(total, "cut")} after ${low === high ? low : `${low} to ${high}`} s of silence`;
}

// The feed tells a turn's cuts when it ends; those of running turns are counted here until then, by the relay's rule.
const CUT_BY_OTHERS = [
  "reset", "closed", "truncated", "unfinished", "broken_framing", "stream_reset", "tls_failed",
];
const GATEWAY_TIMEOUTS = [504, 524];
const isSilentCut = ({ failure, phase, silent, status }) =>
  silent >= 1 && (failure === "gateway_gave_up"
    ? GATEWAY_TIMEOUTS.includes(status)
    : CUT_BY_OTHERS.includes(failure) && ["headers", "prelude"].includes(phase));
const asCut = ({ silent, route }) => ({ silent, pinged: route.kept_busy });

function paintHistogram() {
  const cuts = [...relay.cuts, ...relay.live.flatMap((turn) => turn.attempts.filter(isSilentCut).map(asCut))];
  const bins = TIMERS.map(() => []);
  for (const cut of cuts) {
    const bin = EDGES.findIndex((edge) => cut.silent < edge);
    bins.at(bin).push(cut); // -1, past every edge, is the last bin
  }
  const most = Math.max(1, ...bins.map((bin) => bin.length));
  const tallest = cuts.length ? bins.findIndex((bin) => bin.length === most) : -1;
  bins.forEach((bin, index) => {
    const { node, count, pinged, plain, range } = bars[index];
    const kept = bin.filter((cut) => cut.pinged).length;
    for (const [part, n] of [[pinged, kept], [plain, bin.length - kept]]) {
      part.style.height = `${(100 * n) / most}%`;
      part.dataset.n = n;
    }
    node.classList.toggle("tallest", index === tallest);
    say(count, bin.length ? String(bin.length) : "");
    node.title = `${range}: ${plural(bin.length, "cut")}${kept ? `, ${kept} although PING was answered` : ""}`;
  });

  const total = cuts.length;
  const kept = cuts.filter((cut) => cut.pinged).length;
  say($("cut-count"), total ? String(total) : "");
  $("no-cuts").hidden = total > 0;
  const ping = `${kept ? `${kept} in all` : "none"} although PING was answered${kept ? " (hatched)" : ""}`;
  say($("spike"), total ? `${spikeText(bins[tallest], total)}; ${ping}.` : "");
  say($("advice"), relay.advice);
  const each = bins.map((bin, index) => bin.length && `${bars[index].range}: ${bin.length}`).filter(Boolean);
  $("histogram").setAttribute("aria-label", `Histogram of the silence before a cut. ${each.join("; ") || "Empty."}`);
}

// ---- painting -------------------------------------------------------------------------------------------------------

const calm = matchMedia("(prefers-reduced-motion: reduce)");
let painted = -Infinity;
let due = false;

/** Paint soon: at most four times a second, once a second for those who want less motion, never in a hidden tab. */
function draw() {
  if (due) return;
  due = true;
  const pace = calm.matches ? 1000 : 250;
  setTimeout(() => requestAnimationFrame(paint), Math.max(0, painted + pace - performance.now()));
}

function paint() {
  due = false;
  painted = performance.now();
  paintHeader();
  paintLive();
  paintHistogram();
  paintEnded();
  tellNews();
  if (relay.live.length && silentSince === null) draw(); // running lanes grow between two words of the feed
}

/** What became of turns whose client had gone: "Turns whose client had gone: 2 kept (about 1,200 tokens), ...". */
function keptText(kept) {
  const parts = ["kept", "collected", "dropped"].filter((event) => kept[event]).map((event) =>
    `${kept[event].turns.toLocaleString("en")} ${event} (about ${kept[event].tokens.toLocaleString("en")} tokens)`);
  return parts.length ? `Turns whose client had gone: ${parts.join(", ")}.` : "";
}

function paintHeader() {
  say($("version"), relay.version);
  say($("upstreams"), relay.upstreams.length ? `to ${relay.upstreams.join(", ")}` : "");
  say($("shows"), relay.shows ? `Shown: ${relay.shows}.` : "");
  say($("kept"), keptText(relay.kept));
  say($("store"), relay.store_problem ? `Turns cannot be collected: the store fails, ${relay.store_problem}.` : "");
  say($("how"), howTo());
  for (const name of ["turns", "answered", "saved", "cut", "running", "passed"]) {
    const value = name === "running" ? relay.live.length : (relay.totals[name] ?? 0);
    say($(`total-${name}`), value.toLocaleString());
    $(`total-${name}`).classList.toggle("none", !value);
  }
}

// ---- news for screen readers ----------------------------------------------------------------------------------------

let told = new Map(); // losses that have been told, by turn
let news = [];

function notice(turn) {
  const lost = losses(turn);
  if (lost.length > (told.get(turn.id) ?? 0)) {
    const then = turn.outcome === null ? "sending again" : outcomeOf(turn);
    news.push(`Turn ${turn.id} to ${turn.upstream}: ${lossText([lost.at(-1)])}; ${then}.`);
  }
  told.set(turn.id, lost.length);
}

function tellNews() {
  if (!news.length) return;
  say($("news"), news.length > 3 ? `${news.length} turns were cut. The last: ${news.at(-1)}` : news.join(" "));
  news = [];
}

// ---- the feed -------------------------------------------------------------------------------------------------------

const handlers = {
  hello(data) {
    Object.assign(relay, { kept: {}, shows: "" }, data);
    told = new Map(data.live.map((turn) => [turn.id, losses(turn).length]));
    heardAt = performance.now();
    silentSince = null;
    document.body.dataset.feed = "live";
    say($("feed"), "live");
    draw();
  },
  live(data) {
    relay.live = data.live;
    heardAt = performance.now();
    data.live.forEach(notice);
    draw();
  },
  kept({ kept }) {
    relay.kept = kept;
    draw();
  },
  store({ store_problem }) {
    relay.store_problem = store_problem;
    draw();
  },
  ended({ turn, cuts, advice, totals }) {
    relay.live = relay.live.filter(({ id }) => id !== turn.id);
    relay.recent = [turn, ...relay.recent.filter(({ id }) => id !== turn.id)].slice(0, ROWS);
    relay.cuts = [...relay.cuts, ...cuts].slice(-CUTS);
    Object.assign(relay, { advice, totals });
    notice(turn);
    told.delete(turn.id);
    draw();
  },
};

function listen() {
  const feed = new EventSource("feed");
  for (const [name, handle] of Object.entries(handlers)) {
    feed.addEventListener(name, (event) => handle(JSON.parse(event.data)));
  }
  feed.addEventListener("error", () => {
    if (document.body.dataset.feed === "live") {
      silentSince = performance.now();
      document.body.dataset.feed = "reconnecting";
      say($("feed"), `reconnecting; shown is what was at ${clock(Date.now() / 1000)}`);
    }
    // The browser tries again by itself after a lost connection, but not after an answer that is no feed.
    if (feed.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
    draw();
  });
}

// ---- keys and pointer -----------------------------------------------------------------------------------------------

const showKeys = () => $("keys").showModal();
$("help").addEventListener("click", showKeys);
$("keys-close").addEventListener("click", () => $("keys").close());

$("turns").addEventListener("click", (event) => {
  const row = event.target.closest("tr.turn");
  if (!row || (event.detail && !getSelection().isCollapsed)) return; // text is being selected, not a row clicked
  setCurrent([...entries.values()].find((entry) => entry.node === row.parentNode), true);
  toggle(current);
});

filter.addEventListener("input", paintEnded);
filter.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && filter.value) {
    filter.value = "";
    paintEnded();
  } else if (["Escape", "Enter", "ArrowDown"].includes(event.key)) {
    setCurrent(current, true);
  } else {
    return;
  }
  event.preventDefault();
});

const KEYS = {
  "/": () => filter.focus(),
  "?": showKeys,
  j: () => move(1),
  k: () => move(-1),
  Escape() {
    if (opened) setCurrent(opened, true);
    close();
  },
};
const KEYS_IN_TABLE = { // elsewhere these scroll the page
  ArrowDown: KEYS.j,
  ArrowUp: KEYS.k,
  Home: () => move(-ROWS),
  End: () => move(ROWS),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open || event.target === filter) return;
  const inTable = $("turns").contains(event.target);
  const act = KEYS[event.key] ?? (inTable && KEYS_IN_TABLE[event.key]);
  if (!act) return;
  event.preventDefault();
  act();
});

listen();
