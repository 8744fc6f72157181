// The page: follows /api/live, asks for history, draws. No library, no build step. Names come from processes of anybody: they are put
// into the page as text only (`node`), never as HTML.
"use strict";

const RANGES = [["5 min", 300], ["1 h", 3600], ["6 h", 21600], ["24 h", 86400], ["7 d", 604800]];
const LIVE_SECONDS = 300;
const AHEAD_SECONDS = 30; // of forecasts in the live view
const TOLD_APART = 12; // groups with a colour of their own
const KEYS = 8; // of them in a legend; the pointer tells all
const ROWS = 40; // groups in the table before "show all"
const LONGEST_NAME = 160;
const PALETTE = {
  light: ["#2f6fdb", "#e0762b", "#2a9d6e", "#c8437d", "#7a5bd0", "#b08a1e", "#1f9fb5", "#8d5a3b", "#d1495b", "#6b8e23", "#5c6b7a", "#a05eb5"],
  dark: ["#6ea3ff", "#ff9f5a", "#53cf9b", "#f07db0", "#a78bfa", "#dcb945", "#4fd0e4", "#c58f6c", "#ff7b8a", "#a4c95a", "#9fb0c3", "#d29be6"],
};

const $ = (id) => document.getElementById(id);

// --- state -------------------------------------------------------------------------------------------------------------------

const state = {
  frame: null, // the newest, kept up to date by changes
  groups: new Map(),
  pools: new Map(),
  range: 300, // seconds up to now; 0: `since` to `until`
  since: 0,
  until: 0,
  back: [], // views before zooming
  data: null, // answer of /api/series, in arrays
  focus: "", // group that is shown alone
  detail: null, // answer of /api/target for it
  sort: "cpu",
  all: false,
  offset: 0, // seconds by which the server's clock is ahead
  asked: 0, // number of the newest question for series
  cursor: null, // time under the pointer or keys
};

const now = () => Date.now() / 1000 + state.offset;
const live = () => state.range === LIVE_SECONDS;
const span = () => (state.range ? [now() - state.range, now()] : [state.since, state.until]);

// --- words -------------------------------------------------------------------------------------------------------------------

// Characters that change how others are shown, and those that show nothing.
const UNFIT = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

function clean(text) {
  const fit = String(text).replace(UNFIT, "\ufffd");
  return fit.length > LONGEST_NAME ? `${fit.slice(0, LONGEST_NAME)}…` : fit;
}

const called = (name) => (name ? clean(name.replace(/^program /, "")) : "all others");

function figure(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "?";
  if (value === 0) return "0";
  if (Math.abs(value) < 0.01) return "<0.01";
  return value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : value.toFixed(0);
}

const cores = (value) => `${figure(value)} ${value === 1 ? "core" : "cores"}`;

function bytes(mib) {
  if (!mib) return "0";
  return mib >= 10240 ? `${(mib / 1024).toFixed(0)} GiB` : mib >= 1024 ? `${(mib / 1024).toFixed(1)} GiB` : `${mib.toFixed(mib < 10 ? 1 : 0)} MiB`;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const minute = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric", month: "short" });

const moment = (seconds) => (now() - seconds > 43200 ? `${day.format(seconds * 1000)} ` : "") + clock.format(seconds * 1000);

function ago(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} d`;
}

// --- making the page -----------------------------------------------------------------------------------------------------------

// An element. `properties` may have `class`, `data`, `aria`, listeners as `onclick`, and whatever else is a property of it.
function node(tag, properties, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name === "class") made.className = value;
    else if (name === "aria") for (const [key, said] of Object.entries(value)) made.setAttribute(`aria-${key}`, said);
    else if (name === "scope") made.setAttribute("scope", value);
    else made[name] = value;
  }
  for (const child of children) if (child !== null && child !== undefined) made.append(child);
  return made;
}

const word = (text) => node("bdi", { title: String(text).length > 60 ? clean(text) : "" }, clean(text));

function swatch(color) {
  const made = node("span", { class: "swatch" });
  made.style.background = color;
  return made;
}

function fill(target, ...children) {
  target.replaceChildren(...children.filter((child) => child !== null));
}

// --- colours -----------------------------------------------------------------------------------------------------------------

const colours = new Map(); // group -> place in the palette, kept so that a group keeps its colour

function dark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

const palette = () => PALETTE[dark() ? "dark" : "light"];

function assign(names) {
  const wanted = names.slice(0, TOLD_APART);
  for (const name of [...colours.keys()]) if (!wanted.includes(name) && colours.size >= TOLD_APART) colours.delete(name);
  const free = [...PALETTE.light.keys()].filter((place) => ![...colours.values()].includes(place));
  for (const name of wanted) if (!colours.has(name) && free.length) colours.set(name, free.shift());
}

const colour = (name) => (colours.has(name) ? palette()[colours.get(name)] : null);
const grey = (place) => (dark() ? ["#3a4552", "#465261"] : ["#c9d0d9", "#b8c1cc"])[place % 2];
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// --- charts ------------------------------------------------------------------------------------------------------------------

const MARGIN = { left: 58, right: 8, top: 12, bottom: 20 };

class Chart {
  // `picture()` returns {unit, top, stack, lines, band, steps, peaks, limit}, see `pictures`.
  constructor(title, picture, extra) {
    this.title = title;
    this.picture = picture;
    this.below = document.createElement("canvas");
    this.above = document.createElement("canvas");
    this.tip = node("div", { class: "tip", hidden: true });
    this.plot = node("div", { class: "plot", tabIndex: 0, role: "application", aria: { label: `Chart: ${title}` } }, this.below, this.above);
    this.caption = node("figcaption", null, node("b", null, title));
    this.element = node("figure", { class: extra || "" }, this.caption, this.plot, this.tip);
    this.drag = null;
    this.plot.addEventListener("pointermove", (event) => this.move(event));
    this.plot.addEventListener("pointerleave", () => this.leave());
    this.plot.addEventListener("pointerdown", (event) => this.press(event));
    this.plot.addEventListener("pointerup", (event) => this.release(event));
    this.plot.addEventListener("pointercancel", () => this.leave());
    this.plot.addEventListener("dblclick", back);
    this.plot.addEventListener("keydown", (event) => this.key(event));
    this.plot.addEventListener("focus", () => point(state.cursor ?? this.times().at(-1) ?? null, this));
    this.plot.addEventListener("blur", () => point(null, this));
  }

  times() {
    return state.data ? state.data.t : [];
  }

  size() {
    const scale = Math.min(devicePixelRatio || 1, 2);
    const width = this.plot.clientWidth;
    const height = this.plot.clientHeight;
    for (const canvas of [this.below, this.above]) {
      if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
        canvas.width = Math.round(width * scale);
        canvas.height = Math.round(height * scale);
      }
      canvas.getContext("2d").setTransform(scale, 0, 0, scale, 0, 0);
    }
    this.width = width;
    this.height = height;
    [this.since, this.until] = span();
    if (live()) this.until += AHEAD_SECONDS;
  }

  x(time) {
    return MARGIN.left + ((time - this.since) / (this.until - this.since)) * (this.width - MARGIN.left - MARGIN.right);
  }

  y(value) {
    return this.height - MARGIN.bottom - (value / this.most) * (this.height - MARGIN.top - MARGIN.bottom);
  }

  time(x) {
    return this.since + ((x - MARGIN.left) / (this.width - MARGIN.left - MARGIN.right)) * (this.until - this.since);
  }

  draw() {
    this.size();
    const paper = this.below.getContext("2d");
    paper.clearRect(0, 0, this.width, this.height);
    const shown = (this.shown = this.picture());
    if (!shown) return;
    const times = this.times();
    const gap = longest(times);
    this.most = nice(Math.max(shown.least || 0.01, highest(shown)));
    this.grid(paper, shown);
    paper.save();
    paper.beginPath();
    paper.rect(MARGIN.left, 0, this.width - MARGIN.left - MARGIN.right, this.height);
    paper.clip();
    this.stack(paper, times, shown.stack || [], gap);
    for (const band of shown.bands || []) this.band(paper, band, gap);
    for (const line of shown.lines || []) this.line(paper, line, gap);
    if (shown.marks) this.marks(paper);
    paper.restore();
    this.legend(shown);
    this.over();
  }

  grid(paper, shown) {
    paper.font = "11px system-ui, sans-serif";
    paper.fillStyle = style("--quiet");
    paper.strokeStyle = style("--line");
    paper.lineWidth = 1;
    paper.textBaseline = "middle";
    paper.textAlign = "right";
    for (let place = 0; place <= 4; place++) {
      const value = (this.most * place) / 4;
      const y = Math.round(this.y(value)) + 0.5;
      paper.beginPath();
      paper.moveTo(MARGIN.left, y);
      paper.lineTo(this.width - MARGIN.right, y);
      paper.stroke();
      if (place % 2 === 0) paper.fillText(shown.axis(value), MARGIN.left - 6, y);
    }
    paper.textBaseline = "alphabetic";
    paper.textAlign = "center";
    const step = stepOf((this.until - this.since) / Math.max(2, (this.width - MARGIN.left) / 90));
    const shift = new Date(this.since * 1000).getTimezoneOffset() * 60;
    for (let time = Math.ceil((this.since - shift) / step) * step + shift; time < this.until; time += step) {
      const x = this.x(time);
      if (x < MARGIN.left + 24 || x > this.width - 26) continue;
      const label = step >= 86400 ? day : step >= 60 ? minute : clock;
      paper.fillText(label.format(time * 1000), x, this.height - 5);
    }
    if (shown.limit && shown.limit <= this.most) {
      paper.setLineDash([4, 4]);
      paper.strokeStyle = style("--quiet");
      paper.beginPath();
      paper.moveTo(MARGIN.left, this.y(shown.limit));
      paper.lineTo(this.width - MARGIN.right, this.y(shown.limit));
      paper.stroke();
      paper.setLineDash([]);
    }
  }

  // Layers on each other, the first at the bottom. Those too thin to be seen are drawn as one.
  stack(paper, times, layers, gap) {
    if (!layers.length) return;
    const count = times.length;
    const below = new Float64Array(count);
    const above = new Float64Array(count);
    const least = this.most / (2 * this.height);
    let waiting = false;
    const paint = (fillStyle) => {
      paper.fillStyle = fillStyle;
      for (const [from, to] of runs(times, gap)) {
        paper.beginPath();
        paper.moveTo(this.x(times[from]), this.y(below[from]));
        for (let at = from; at < to; at++) paper.lineTo(this.x(times[at]), this.y(above[at]));
        for (let at = to - 1; at >= from; at--) paper.lineTo(this.x(times[at]), this.y(below[at]));
        paper.fill();
      }
      below.set(above);
      waiting = false;
    };
    let place = 0;
    for (const layer of layers) {
      let high = 0;
      for (let at = 0; at < count; at++) {
        above[at] += layer.values[at];
        if (above[at] - below[at] > high) high = above[at] - below[at];
      }
      waiting = true;
      if (layer.colour) paint(layer.colour);
      else if (high > least) paint(grey(place++));
    }
    if (waiting) paint(grey(place));
  }

  line(paper, line, gap) {
    const times = line.times || this.times();
    paper.strokeStyle = line.colour;
    paper.lineWidth = line.width || 1.5;
    paper.setLineDash(line.dash || []);
    for (const [from, to] of runs(times, gap)) {
      paper.beginPath();
      let down = false;
      for (let at = from; at < to; at++) {
        const value = line.values[at];
        if (value === null || value === undefined) {
          down = false;
          continue;
        }
        const x = this.x(times[at]);
        const y = this.y(value);
        if (!down) paper.moveTo(x, y);
        else {
          if (line.steps) paper.lineTo(x, this.y(line.values[at - 1]));
          paper.lineTo(x, y);
        }
        down = true;
      }
      paper.stroke();
    }
    paper.setLineDash([]);
  }

  band(paper, band, gap) {
    const { times, low, high } = band;
    paper.fillStyle = band.colour;
    paper.globalAlpha = 0.25;
    for (const [from, to] of runs(times, Math.max(gap, 20))) {
      paper.beginPath();
      for (let at = from; at < to; at++) paper.lineTo(this.x(times[at]), this.y(high[at] ?? 0));
      for (let at = to - 1; at >= from; at--) paper.lineTo(this.x(times[at]), this.y(low[at] ?? 0));
      paper.fill();
    }
    paper.globalAlpha = 1;
    this.line(paper, { times, values: low, colour: band.colour, dash: [3, 3] }, Math.max(gap, 20));
  }

  // Triangles are decisions, discs are reports of workers.
  marks(paper) {
    for (const mark of state.data.marks) {
      const x = this.x(mark.wall);
      paper.fillStyle = style(mark.incidents ? "--bad" : "--accent");
      paper.beginPath();
      if (mark.incidents) paper.arc(x, 6, 4, 0, 7);
      else {
        paper.moveTo(x - 4, 2);
        paper.lineTo(x + 4, 2);
        paper.lineTo(x, 9);
      }
      paper.fill();
    }
  }

  legend(shown) {
    const keys = [node("b", null, shown.title || this.title)];
    for (const key of shown.keys || []) {
      const parts = [swatch(key.colour), word(called(key.name))];
      keys.push(key.focus ? node("button", { type: "button", class: "key", onclick: () => focus(key.name) }, ...parts) : node("span", { class: "key" }, ...parts));
    }
    fill(this.caption, ...keys);
  }

  // What changes with the pointer: the line under it, the selection, and the figures.
  over() {
    const paper = this.above.getContext("2d");
    paper.clearRect(0, 0, this.width, this.height);
    if (this.drag && this.drag.moved) {
      paper.fillStyle = style("--accent");
      paper.globalAlpha = 0.15;
      paper.fillRect(Math.min(this.drag.from, this.drag.to), MARGIN.top, Math.abs(this.drag.to - this.drag.from), this.height - MARGIN.top - MARGIN.bottom);
      paper.globalAlpha = 1;
    }
    if (state.cursor === null) {
      this.tip.hidden = true;
      return;
    }
    const x = this.x(state.cursor);
    paper.strokeStyle = style("--ink");
    paper.globalAlpha = 0.6;
    paper.beginPath();
    paper.moveTo(x, MARGIN.top);
    paper.lineTo(x, this.height - MARGIN.bottom);
    paper.stroke();
    paper.globalAlpha = 1;
  }

  told() {
    const at = nearest(this.times(), state.cursor);
    if (at < 0 || !this.shown) return null;
    const rows = [];
    for (const line of this.shown.lines || []) if (line.name && !line.times) rows.push([line.name, line.values[at], line.colour]);
    const layers = (this.shown.stack || []).map((layer) => [called(layer.name), layer.values[at], layer.colour || grey(0)]);
    rows.push(...layers.sort((a, b) => b[1] - a[1]).filter((row) => row[1] > 0).slice(0, 6));
    const near = state.data.marks.filter((mark) => Math.abs(this.x(mark.wall) - this.x(state.cursor)) < 6);
    return { time: this.times()[at], rows, near: this.shown.marks ? near : [] };
  }

  tell(aloud) {
    const told = this.told();
    if (!told) return;
    const axis = this.shown.axis;
    const rows = told.rows.map(([name, value, color]) => node("div", null, swatch(color), word(name), node("b", null, value === null ? "?" : axis(value))));
    const marks = told.near.slice(0, 3).map((mark) => node("p", { class: mark.incidents ? "bad" : "" }, clean(`${mark.decisions + mark.incidents} decided: ${mark.what}`)));
    fill(this.tip, node("b", null, moment(told.time)), ...rows, ...marks);
    this.tip.hidden = false;
    const x = this.x(state.cursor);
    this.tip.style.left = x > this.width / 2 ? "" : `${x + 26}px`;
    this.tip.style.right = x > this.width / 2 ? `${this.width - x + 26}px` : "";
    if (aloud) say(`${moment(told.time)}. ${told.rows.slice(0, 4).map(([name, value]) => `${name} ${value === null ? "unknown" : axis(value)}`).join(", ")}${told.near.length ? `. ${told.near.length} decisions` : ""}`);
  }

  move(event) {
    const x = event.offsetX;
    if (this.drag) {
      this.drag.to = Math.max(MARGIN.left, Math.min(x, this.width - MARGIN.right));
      this.drag.moved = this.drag.moved || Math.abs(this.drag.to - this.drag.from) > 6;
    }
    const at = nearest(this.times(), this.time(x));
    point(at < 0 ? null : this.times()[at], this);
  }

  leave() {
    this.drag = null;
    point(null, this);
  }

  press(event) {
    if (event.button) return;
    this.drag = { from: event.offsetX, to: event.offsetX, moved: false };
    if (event.pointerType === "mouse") this.plot.setPointerCapture(event.pointerId);
  }

  release(event) {
    const drag = this.drag;
    this.drag = null;
    if (!drag) return;
    if (drag.moved) zoom(this.time(Math.min(drag.from, drag.to)), this.time(Math.max(drag.from, drag.to)));
    else this.open(this.time(event.offsetX));
  }

  // The second behind a place in the chart: that of the peak, if the place stands for more than a second.
  open(time) {
    const at = nearest(this.times(), time);
    if (at < 0) return;
    const peaks = this.shown && this.shown.peaks;
    openMoment(peaks ? peaks[at] : this.times()[at]);
  }

  key(event) {
    const times = this.times();
    if (!times.length || event.ctrlKey || event.altKey || event.metaKey) return;
    const at = state.cursor === null ? times.length - 1 : nearest(times, state.cursor);
    const steps = event.shiftKey ? 10 : 1;
    const to = { ArrowLeft: at - steps, ArrowRight: at + steps, Home: 0, End: times.length - 1, PageUp: at - 60, PageDown: at + 60 }[event.key];
    const reach = (this.until - this.since) / 4;
    if (to !== undefined) point(times[Math.max(0, Math.min(to, times.length - 1))], this, true);
    else if (event.key === "Enter" || event.key === " ") this.open(times[at]);
    else if (event.key === "+" || event.key === "=") zoom(times[at] - reach, times[at] + reach);
    else if (event.key === "-") zoom(this.since - reach, Math.min(this.until + reach, now()));
    else if (event.key === "Escape") back();
    else return;
    event.preventDefault();
  }
}

function highest(shown) {
  let most = shown.limit && shown.fit !== false ? shown.limit : 0;
  const sums = [];
  for (const layer of shown.stack || []) for (let at = 0; at < layer.values.length; at++) sums[at] = (sums[at] || 0) + layer.values[at];
  for (const value of sums) if (value > most) most = value;
  for (const line of shown.lines || []) for (const value of line.values) if (value > most) most = value;
  if (!shown.stack) for (const band of shown.bands || []) for (const value of band.high) if (value > most) most = value; // else cut off
  return most;
}

function nice(value) {
  const size = 10 ** Math.floor(Math.log10(value));
  return size * [1, 1.2, 1.6, 2, 2.4, 3.2, 4, 5, 6, 8, 10].find((step) => value <= size * step * 1.001);
}

const STEPS = [5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800];
const stepOf = (least) => STEPS.find((step) => step >= least) || 172800;

// How far two points may be apart and still be joined: a wider gap is a time without figures.
function longest(times) {
  if (times.length < 2) return Infinity;
  const apart = [];
  for (let at = 1; at < times.length; at++) apart.push(times[at] - times[at - 1]);
  apart.sort((a, b) => a - b);
  return 3.5 * Math.max(apart[apart.length >> 1], state.data ? state.data.width : 0, 0.5);
}

function runs(times, gap) {
  const found = [];
  let from = 0;
  for (let at = 1; at <= times.length; at++) {
    if (at === times.length || times[at] - times[at - 1] > gap) {
      found.push([from, at]);
      from = at;
    }
  }
  return times.length ? found : [];
}

function nearest(times, time) {
  if (!times.length || time === null) return -1;
  let low = 0;
  let high = times.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] < time) low = middle + 1;
    else high = middle;
  }
  return low > 0 && time - times[low - 1] < times[low] - time ? low - 1 : low;
}

// --- what the charts show ------------------------------------------------------------------------------------------------------

const thousandths = (value) => value / 1000;

function stacked(name, scale) {
  const layers = state.data.groups.map((group) => ({ name: group.name, values: group[name].map(scale), colour: group.name ? colour(group.name) : null }));
  return layers.sort((a, b) => (a.colour ? 0 : 1) - (b.colour ? 0 : 1));
}

const keysOf = (layers) => [
  ...layers.filter((layer) => layer.colour && layer.values.some((value) => value > 0)).slice(0, KEYS).map((layer) => ({ ...layer, focus: true })),
  ...(layers.some((layer) => !layer.colour) ? [{ name: "", colour: grey(0) }] : []),
];

// The forecast from now on: of one group, or the sum of all.
function ahead(pick) {
  const bands = [...state.groups.values()].filter((group) => !state.focus || group.name === state.focus).map(pick).filter(Boolean);
  if (!live() || !bands.length || !state.frame) return [];
  const times = bands[0].seconds.map((seconds) => state.frame.wall + seconds);
  const sum = (name) => times.map((_, at) => bands.reduce((total, band) => total + band[name][at], 0));
  return [{ times, low: sum("median"), high: sum("high"), colour: style("--ink") }];
}

// The forecasts that were made at the time, moved to the time that they were for.
function recorded(detail) {
  if (!detail || !detail.median || !detail.median.some((value) => value !== null)) return [];
  const shift = state.frame && state.data.width === 0 ? 3 * state.frame.own.interval : 0;
  const kept = detail.t.map((_, at) => at).filter((at) => detail.median[at] !== null);
  return [{ times: kept.map((at) => detail.t[at] + shift), low: kept.map((at) => detail.median[at]), high: kept.map((at) => detail.high[at]), colour: style("--ink") }];
}

const FORECAST_KEY = { name: "forecast of demand", colour: "currentcolor" };

function pictureOf(name, title, most, limit) {
  return () => {
    if (!state.data) return null;
    const peaks = state.data.width ? state.data[name === "wait" ? "worst" : "busiest"] : null;
    if (state.focus) {
      const group = state.data.groups.find((it) => it.name === state.focus);
      if (!group) return { axis: figure, lines: [], title, keys: [{ name: "nothing is known of it in this time", colour: grey(0) }], peaks };
      const color = colour(group.name) || style("--accent");
      const lines = [{ name: "mean", values: group[name].map(thousandths), colour: color, width: 2 }];
      const detail = state.detail;
      if (state.data.width && detail && detail[`${name}_most`]) lines.push({ name: "most in a second", times: detail.t, values: detail[`${name}_most`], colour: color, width: 1, dash: [2, 2] });
      const bands = name === "cpu" ? [...recorded(detail), ...ahead((it) => it.forecast)] : [];
      return { axis: figure, lines, bands, title, peaks, marks: name === "cpu", keys: [{ name: group.name, colour: color }, ...(bands.length ? [FORECAST_KEY] : [])] };
    }
    const stack = stacked(name, thousandths);
    const lines = state.data.width ? [{ name: "most in a second", values: state.data[most].map(thousandths), colour: style("--ink"), width: 1 }] : [];
    const bands = name === "cpu" ? ahead((it) => it.forecast) : [];
    return { axis: figure, stack, lines, bands, limit: limit ? state.data.cpus : 0, title, peaks, marks: name === "cpu", keys: [...keysOf(stack), ...(bands.length ? [FORECAST_KEY] : [])] };
  };
}

function memoryPicture() {
  if (!state.data) return null;
  const total = state.data.memory_total;
  if (state.focus) {
    const group = state.data.groups.find((it) => it.name === state.focus);
    return group ? { axis: bytes, lines: [{ name: "resident", values: group.memory, colour: colour(group.name) || style("--accent"), width: 2 }], keys: [{ name: group.name, colour: colour(group.name) || style("--accent") }] } : { axis: bytes };
  }
  const stack = stacked("memory", (value) => value);
  return { axis: bytes, stack, lines: [{ name: "machine, in use", values: state.data.memory, colour: style("--ink"), width: 1 }], limit: total, fit: false, keys: keysOf(stack) };
}

function poolPicture(name) {
  return () => {
    const pool = state.data && state.data.pools.find((it) => it.name === name);
    if (!pool) return null;
    const known = state.pools.get(name);
    const [blue, orange] = palette();
    const shift = state.frame && state.data.width === 0 ? 3 * state.frame.own.interval : 0;
    const kept = state.data.t.map((_, at) => at).filter((at) => pool.median[at] !== null);
    const bands = kept.length ? [{ times: kept.map((at) => state.data.t[at] + shift), low: kept.map((at) => pool.median[at]), high: kept.map((at) => pool.high[at]), colour: style("--ink") }] : [];
    if (live() && known && known.forecast && state.frame) bands.push({ times: known.forecast.seconds.map((it) => state.frame.wall + it), low: known.forecast.median, high: known.forecast.high, colour: style("--ink") });
    const lines = [
      { name: "workers", values: pool.size, colour: blue, width: 2, steps: true },
      { name: "load", values: pool.load, colour: orange, width: 1.5 },
      ...(state.data.width ? [{ name: "most load in a second", values: pool.load_most, colour: orange, width: 1, dash: [2, 2] }] : []),
    ];
    return { axis: figure, lines, bands, title: `Pool ${clean(name)}`, peaks: state.data.width ? state.data.busiest : null, keys: [{ name: "workers", colour: blue }, { name: "load, in workers that it keeps busy", colour: orange }, ...(bands.length ? [FORECAST_KEY] : [])] };
  };
}

const charts = [
  new Chart("CPU, cores", pictureOf("cpu", "CPU, cores", "busy_most", true)),
  new Chart("Waiting for a CPU, cores", pictureOf("wait", "Waiting for a CPU, cores", "wait_most", false)),
  new Chart("Memory", memoryPicture),
];
const poolCharts = new Map();

function drawCharts() {
  const wanted = state.data ? state.data.pools.map((pool) => pool.name) : [];
  for (const name of wanted) {
    if (!poolCharts.has(name)) {
      poolCharts.set(name, new Chart(`Pool ${clean(name)}`, poolPicture(name), "pool"));
      $("charts").append(poolCharts.get(name).element);
    }
  }
  for (const [name, chart] of poolCharts) {
    if (!wanted.includes(name)) {
      chart.element.remove();
      poolCharts.delete(name);
    }
  }
  const began = performance.now();
  for (const chart of [...charts, ...poolCharts.values()]) chart.draw();
  document.documentElement.dataset.drawn = String(Math.round(performance.now() - began));
}

function point(time, chart, aloud) {
  state.cursor = time;
  for (const each of [...charts, ...poolCharts.values()]) {
    each.over();
    if (each !== chart) each.tip.hidden = true;
  }
  if (time !== null) chart.tell(aloud);
}

function say(text) {
  $("spoken").textContent = text;
}

// --- history -----------------------------------------------------------------------------------------------------------------

async function ask(path, values) {
  const answer = await fetch(`${path}?${new URLSearchParams(values)}`, { credentials: "same-origin" });
  if (answer.status === 401) throw new Error("signed out: open the address that `nicety web` printed");
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error);
  return body;
}

async function loadSeries() {
  const number = ++state.asked;
  const [since, until] = span();
  try {
    const data = await ask("/api/series", { since, until });
    if (number !== state.asked) return;
    state.data = data;
    assign(data.groups.map((group) => group.name).filter(Boolean));
    trouble(data.trouble || (data.complete ? "" : "Older history is still being read; it appears by and by."));
    await loadDetail();
    drawCharts();
    document.documentElement.dataset.loaded = String(state.range || "zoom");
  } catch (error) {
    if (number === state.asked) trouble(String(error.message));
  }
}

async function loadDetail() {
  state.detail = null;
  if (!state.focus) return;
  const [since, until] = span();
  try {
    state.detail = await ask("/api/target", { kind: "group", name: state.focus, since, until });
  } catch {
    // nothing is known of it in this time, which the chart says
  }
}

// Adds the newest frame to the live view.
function append(frame) {
  const data = state.data;
  if (!live() || !data || data.width || !frame.measured || frame.wall <= (data.t.at(-1) || 0)) return;
  const count = data.t.length;
  data.t.push(frame.wall);
  const groups = new Map(data.groups.map((group) => [group.name, group]));
  for (const [name, group] of state.groups) {
    if (!groups.has(name) && (group.cpu + group.wait > 0.0005)) {
      const made = { name, cpu: new Array(count).fill(0), wait: new Array(count).fill(0), memory: new Array(count).fill(0) };
      data.groups.push(made);
      groups.set(name, made);
    }
  }
  for (const [name, group] of groups) {
    const it = state.groups.get(name);
    group.cpu.push(it ? Math.round(it.cpu * 1000) : 0);
    group.wait.push(it ? Math.round(it.wait * 1000) : 0);
    group.memory.push(it ? Math.round(it.memory / 1048576) : 0);
  }
  data.memory.push(Math.round((frame.machine.memory - frame.machine.available) / 1048576));
  data.cpus = frame.machine.cpus;
  for (const pool of data.pools) {
    const it = state.pools.get(pool.name);
    pool.size.push(it ? it.size : null);
    pool.load.push(it ? it.load : null);
    pool.median.push(it && it.forecast ? it.forecast.median[1] : null);
    pool.high.push(it && it.forecast ? it.forecast.high[1] : null);
  }
  const old = data.t.findIndex((time) => time >= frame.wall - LIVE_SECONDS - 5);
  if (old > 30) {
    for (const list of [data.t, data.memory]) list.splice(0, old);
    for (const group of data.groups) for (const name of ["cpu", "wait", "memory"]) group[name].splice(0, old);
    for (const pool of data.pools) for (const name of ["size", "load", "median", "high"]) pool[name].splice(0, old);
    data.marks = data.marks.filter((mark) => mark.wall >= data.t[0]);
  }
  const use = new Map(data.groups.map((group) => [group.name, group.cpu.reduce((a, b) => a + b, 0) + group.wait.reduce((a, b) => a + b, 0)]));
  assign([...use.keys()].filter(Boolean).sort((a, b) => use.get(b) - use.get(a)));
}

function show(range) {
  state.back = [];
  Object.assign(state, { range, data: null });
  location.replace(`#${range}`);
  viewChanged();
}

function zoom(since, until) {
  const least = 10;
  const middle = (since + until) / 2;
  if (until - since < least) [since, until] = [middle - least / 2, middle + least / 2];
  since = Math.max(since, now() - 8 * 86400 + 600, until - 8 * 86400 + 1);
  state.back.push([state.range, state.since, state.until]);
  Object.assign(state, { range: 0, since, until });
  location.replace(`#${since.toFixed(0)}-${until.toFixed(0)}`);
  viewChanged();
}

function back() {
  const before = state.back.pop();
  if (!before) return;
  [state.range, state.since, state.until] = before;
  location.replace(state.range ? `#${state.range}` : `#${state.since.toFixed(0)}-${state.until.toFixed(0)}`);
  viewChanged();
}

function viewChanged() {
  state.cursor = null;
  delete document.documentElement.dataset.loaded;
  for (const button of $("ranges").children) button.setAttribute("aria-pressed", String(Number(button.value) === state.range));
  drawCharts();
  loadSeries();
}

function focus(name) {
  state.focus = state.focus === name ? "" : name;
  $("focus").hidden = !state.focus;
  $("focus").firstElementChild.replaceChildren("Only ", word(called(state.focus)), " is shown.");
  loadDetail().then(drawCharts);
  drawTables();
}

// --- a moment ----------------------------------------------------------------------------------------------------------------

let opener = null;

async function openMoment(time) {
  const panel = $("moment");
  opener = document.activeElement;
  panel.hidden = false;
  fill(panel, node("p", null, `reading ${moment(time)}`));
  drawCharts();
  try {
    fill(panel, ...momentParts(await ask("/api/moment", { at: time })));
  } catch (error) {
    fill(panel, closer(), node("p", { class: "warn" }, String(error.message)));
  }
  panel.focus({ preventScroll: matchMedia("(min-width: 1100px)").matches });
}

const closer = () => node("button", { type: "button", class: "close", onclick: closeMoment }, "Close");

function closeMoment() {
  $("moment").hidden = true;
  if (opener && opener.focus) opener.focus({ preventScroll: true });
  drawCharts();
}

function bars(rows, most) {
  return node("table", null, ...rows.map(([name, value, note]) => {
    const bar = node("span", { class: "bar" });
    bar.style.width = `${Math.round((60 * value) / Math.max(most, 1e-9))}px`;
    return node("tr", null, node("td", null, word(called(name)), note ? node("span", { class: "quiet" }, ` ${note}`) : null), node("td", { class: "figure" }, bar, figure(value)));
  }));
}

function momentParts(it) {
  const by = (name, list) => [...list].sort((a, b) => b[name] - a[name]).filter((one) => one[name] > 0.005).slice(0, 8);
  const users = by("cpu", it.groups);
  const waiters = by("wait", it.groups);
  const parts = [
    closer(),
    node("h2", { id: "when" }, moment(it.wall)),
    node("p", null, `${cores(it.busy)} of ${it.cpus} in use. `, story(users, waiters)),
    node("h3", null, "Who used the CPUs, cores"),
    users.length ? bars(users.map((one) => [one.name, one.cpu, one.class]), users[0].cpu) : node("p", { class: "quiet" }, "Nobody, to speak of."),
    node("h3", null, "Who waited for a CPU, cores"),
    waiters.length ? bars(waiters.map((one) => [one.name, one.wait, one.class]), waiters[0].wait) : node("p", { class: "quiet" }, "Nobody, to speak of."),
  ];
  parts.push(node("h3", null, "Who delayed whom"), ...delays(it.delays));
  parts.push(node("h3", null, "What was decided and done, the nearest first"), decided(it.decisions));
  parts.push(node("h3", null, "Processes"));
  if (it.untold) parts.push(node("p", { class: "quiet" }, clean(it.untold)));
  else {
    const rows = it.processes.slice(0, 20).map((one) => node("tr", null, node("td", { class: "figure" }, String(one.pid)), node("td", null, word(one.name), node("span", { class: "quiet" }, " ", word(called(one.group)))), node("td", { class: "figure" }, figure(one.cpu)), node("td", { class: "figure" }, figure(one.wait)), node("td", { class: "figure" }, bytes(one.memory / 1048576))));
    parts.push(node("div", { class: "wide" }, node("table", null, head(["pid", "process", "cores", "waits", "memory"], [0, 2, 3, 4]), ...rows)));
  }
  return parts;
}

function story(users, waiters) {
  const part = [];
  if (users.length) part.push(word(called(users[0].name)), ` used most (${figure(users[0].cpu)}). `);
  if (waiters.length) part.push(word(called(waiters[0].name)), ` waited most (${figure(waiters[0].wait)}).`);
  const made = node("span");
  made.append(...part);
  return made;
}

function delays(found) {
  if (!found) return [node("p", { class: "quiet" }, "Not known of this time.")];
  if (!found.length) return [node("p", { class: "quiet" }, "Nobody waited long.")];
  return found.slice(0, 8).map((one) => node("p", null, word(called(one.name)), ` waited ${figure(one.wait)}, for `, ...blamed(one)));
}

function blamed(delay) {
  const parts = delay.by.filter((pair) => pair[1] > 0.005).slice(0, 4).map(([name, value]) => [word(called(name)), ` ${figure(value)}`]);
  for (const [name, text] of [["others", "further groups"], ["own", "its own threads"], ["unseen", "what cannot be seen"], ["steal", "the hypervisor"]]) if (delay[name] > 0.005) parts.push([`${text} ${figure(delay[name])}`]);
  return parts.flatMap((part, at) => (at ? [", ", ...part] : part));
}

function decided(list) {
  if (!list.length) return node("p", { class: "quiet" }, "Nothing.");
  return node("ul", null, ...list.map((one) => {
    const helped = one.helped ? node("p", { class: one.helped.startsWith("helped") ? "good" : one.helped.startsWith("hurt") ? "bad" : "quiet" }, clean(one.helped)) : null;
    const item = node("li", null, node("b", null, moment(one.wall), " "), word(one.what), node("p", null, clean2(one.why)), node("p", { class: "quiet" }, clean(one.came)), helped);
    item.append(whyButton(one.id, item));
    return item;
  }));
}

const clean2 = (text) => String(text).replace(UNFIT, "\ufffd").slice(0, 1000);

function whyButton(id, place) {
  return node("button", {
    type: "button",
    aria: { label: `Why, all figures of decision ${clean(id)}` },
    onclick: async (event) => {
      event.target.disabled = true;
      try {
        place.append(node("pre", null, String((await ask("/api/why", { id })).text).replace(/[^\n\x20-\x7e\u00a0-\u1fff\u2010-\u2027\u2030-\u205e\u2070-\ud7ff]/g, "\ufffd")));
      } catch (error) {
        place.append(node("p", { class: "warn" }, String(error.message)));
      }
    },
  }, "Why");
}

// --- tables ------------------------------------------------------------------------------------------------------------------

function head(names, figures, less) {
  return node("thead", null, node("tr", null, ...names.map((name, at) => node("th", { scope: "col", class: [figures.includes(at) ? "figure" : "", (less || []).includes(at) ? "less" : ""].join(" ").trim() }, name))));
}

const SORTS = { name: "group", class: "class", cpu: "cores", wait: "waits", memory: "memory" };

function drawTables() {
  const frame = state.frame;
  if (!frame) return;
  drawGroups();
  const none = (text, columns) => node("tbody", null, node("tr", null, node("td", { colSpan: columns, class: "quiet" }, text)));
  $("pool-part").hidden = !state.pools.size;
  const pools = [...state.pools.values()].map((pool) => node("tr", null,
    node("td", null, word(pool.name), node("span", { class: "quiet" }, ` ${clean(pool.kind)}`)),
    node("td", { class: "figure" }, pool.size === pool.wanted ? String(pool.size) : `${pool.size} → ${pool.wanted}`),
    node("td", { class: "figure less" }, `${pool.minimum} to ${pool.maximum}`),
    node("td", { class: "figure" }, figure(pool.load)),
    node("td", { class: "figure" }, figure(pool.queued)),
    node("td", { class: "figure less" }, pool.forecast ? `${figure(pool.forecast.median.at(-1))} to ${figure(pool.forecast.high.at(-1))}` : "?"),
    node("td", { class: "less" }, clean(pool.objective || "the usual target")),
    node("td", { class: pool.trouble ? "warn" : "" }, clean(pool.trouble || pool.rules))));
  fill($("pool-table"), head(["pool", "workers", "limits", "load", "queued", "load in 30 s", "objective", "rules"], [1, 2, 3, 4, 5], [2, 5, 6]), node("tbody", null, ...pools));
  const incidents = frame.incidents.map((it) => node("tr", null, node("td", null, moment(it.wall)), node("td", { class: "bad" }, clean(it.kind)), node("td", null, word(it.pool)), node("td", { class: "less" }, it.pids.slice(0, 8).join(", ")), node("td", null, clean2(it.text)), node("td", null, atButton(it.wall))));
  fill($("incident-table"), head(["since", "kind", "pool", "pids", "what is wrong", ""], [], [3]), incidents.length ? node("tbody", null, ...incidents) : none("No worker misbehaves.", 6));
  const decisions = frame.decisions.slice(0, 20).map((it) => node("tr", null,
    node("td", null, moment(it.wall)),
    node("td", null, word(it.target), it.times > 1 ? ` (${it.times})` : "", `: ${clean(it.what)}`),
    node("td", { class: it.effect === "helped" ? "good" : it.effect === "hurt" ? "bad" : "" }, clean([it.status || "no outcome yet", it.effect].filter(Boolean).join(", "))),
    node("td", { class: "less" }, clean2(it.text)),
    node("td", null, atButton(it.wall))));
  fill($("decision-table"), head(["time", "what", "what came of it", "why", ""], [], [3]), decisions.length ? node("tbody", null, ...decisions) : none("Nothing was decided in the last minutes.", 5));
  $("note-part").hidden = !frame.notes.length;
  fill($("note-list"), ...frame.notes.map((text) => node("li", null, clean2(text))));
}

const atButton = (time) => node("button", { type: "button", aria: { label: `Show ${moment(time)}` }, onclick: () => openMoment(time) }, "Show");

function drawGroups() {
  const wanted = $("filter").value.toLowerCase();
  const found = [...state.groups.values()].filter((group) => group.name.toLowerCase().includes(wanted));
  const key = state.sort;
  found.sort((a, b) => (key === "name" || key === "class" ? String(a[key]).localeCompare(String(b[key])) : b[key] - a[key]) || a.name.localeCompare(b.name));
  const shown = state.all ? found : found.slice(0, ROWS);
  const cpus = state.frame.machine.cpus;
  const table = $("group-table");
  const active = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.key : undefined;
  const headers = Object.entries(SORTS).map(([name, said]) => {
    const button = node("button", { type: "button", onclick: () => { state.sort = name; drawGroups(); } }, said, state.sort === name ? " ↓" : "");
    button.dataset.key = `sort ${name}`;
    return node("th", { scope: "col", class: ["cpu", "wait", "memory"].includes(name) ? "figure" : "", aria: { sort: state.sort === name ? (name === "name" || name === "class" ? "ascending" : "descending") : "none" } }, button);
  });
  const rest = ["in 30 s", "delayed by", "our change"].map((said, at) => node("th", { scope: "col", class: at === 0 ? "figure less" : "less" }, said));
  const rows = shown.map((group) => {
    const bar = node("span", { class: "bar less" });
    bar.style.width = `${Math.min(80, Math.round((80 * group.cpu) / cpus))}px`;
    const sure = group.certainty === null || group.given ? "" : ` ${Math.round(group.certainty * 100)} %`;
    const name = node("button", { type: "button", class: "name", aria: { pressed: String(state.focus === group.name) }, onclick: () => focus(group.name) }, ...(colour(group.name) ? [swatch(colour(group.name)), " "] : []), word(called(group.name)));
    name.dataset.key = `group ${group.name}`;
    return node("tr", null,
      node("td", null, name),
      node("td", null, group.class, node("span", { class: "quiet less" }, sure)),
      node("td", { class: "figure" }, bar, figure(group.cpu)),
      node("td", { class: `figure${group.wait > 0.1 ? " warn" : ""}` }, figure(group.wait)),
      node("td", { class: "figure" }, bytes(group.memory / 1048576)),
      node("td", { class: "figure less" }, group.forecast ? `${figure(group.forecast.median.at(-1))} to ${figure(group.forecast.high.at(-1))}` : ""),
      node("td", { class: "less" }, ...(group.delay ? blamed(group.delay) : [])),
      node("td", { class: "less" }, ...group.changes.slice(0, 2).flatMap((it, at) => [at ? ", " : "", clean(`${it.control} ${it.original} → ${it.now}`)])));
  });
  fill(table, node("caption", { class: "unseen" }, "Groups of processes, now"), node("thead", null, node("tr", null, ...headers, ...rest)), node("tbody", null, ...rows));
  if (active) for (const each of table.querySelectorAll("button")) if (each.dataset.key === active) each.focus({ preventScroll: true });
  const more = $("more");
  more.hidden = found.length <= ROWS;
  more.textContent = state.all ? `Show the first ${ROWS}` : `Show all ${found.length}`;
}

// --- live --------------------------------------------------------------------------------------------------------------------

function trouble(text) {
  $("trouble").hidden = !text;
  $("trouble").textContent = text ? clean2(text) : "";
}

function status(text, kind) {
  const pill = $("state");
  if (pill.textContent !== text) pill.textContent = text;
  pill.dataset.kind = kind;
}

function showFrame() {
  const { own, machine, wall } = state.frame;
  state.offset = wall - Date.now() / 1000;
  $("machine").replaceChildren(word(machine.name));
  document.title = `nicety ${clean(machine.name)}`;
  $("mode").textContent = own.paused ? "paused" : own.mode === "act" ? `acting on ${clean(own.acting_on.join(", "))}` : "observing";
  $("mode").dataset.kind = own.paused ? "warn" : own.mode === "act" ? "good" : "";
  status("live", "good");
  const waits = [...state.groups.values()].reduce((sum, group) => sum + group.wait, 0);
  const used = machine.memory - machine.available;
  const tiles = [
    ["CPU in use", figure(machine.busy), ` of ${machine.cpus} cores`],
    ["Waiting for a CPU", figure(waits), " cores"],
    ["Memory in use", bytes(used / 1048576), ` of ${bytes(machine.memory / 1048576)}`],
    ...(machine.pressure ? [["Stalled on CPU, memory, disk", machine.pressure.map((value) => `${Math.round(100 * value)}`).join(", "), " % of the time"]] : []),
    ...(machine.steal > 0.01 || machine.unseen > 0.05 ? [["Hypervisor, unseen", `${figure(machine.steal)}, ${figure(machine.unseen)}`, " cores"]] : []),
    ["Incidents", String(state.frame.incidents.length), " open"],
  ];
  fill($("tiles"), ...tiles.map(([name, value, unit]) => node("div", null, node("dt", null, name), node("dd", null, value, node("small", null, unit)))));
  $("own").textContent = `nicety ${clean(own.version)}, session ${clean(own.session)}, running for ${ago(own.running)}, ${own.ticks} ticks, ${own.missed} missed; it used ${(100 * own.cpu / Math.max(own.running, 1)).toFixed(1)} % of a CPU so far and ${bytes(own.memory / 1048576)}. ${clean(own.scope)}`;
}

const later = { frame: 0 };

// Draws at most once a frame of the screen, and not at all while nobody sees it.
function redraw() {
  if (later.frame) return;
  later.frame = requestAnimationFrame(() => {
    later.frame = 0;
    showFrame();
    drawTables();
    if (state.cursor === null && live()) drawCharts();
    document.documentElement.dataset.seq = String(state.frame.seq);
  });
}

let source = null;
let patience = 1000;

function connect() {
  source = new EventSource("/api/live");
  source.addEventListener("frame", (event) => {
    const again = state.frame !== null;
    state.frame = JSON.parse(event.data);
    state.groups = new Map(state.frame.groups.map((group) => [group.name, group]));
    state.pools = new Map(state.frame.pools.map((pool) => [pool.name, pool]));
    patience = 1000;
    showFrame();
    if (again || !state.data) loadSeries();
    redraw();
  });
  source.addEventListener("change", (event) => {
    if (!state.frame) return;
    const { groups, groups_gone: groupsGone, pools, pools_gone: poolsGone, ...rest } = JSON.parse(event.data);
    Object.assign(state.frame, rest);
    for (const group of groups) state.groups.set(group.name, group);
    for (const name of groupsGone) state.groups.delete(name);
    for (const pool of pools) state.pools.set(pool.name, pool);
    for (const name of poolsGone) state.pools.delete(name);
    append(state.frame);
    redraw();
  });
  source.addEventListener("quiet", (event) => {
    status(clean2(JSON.parse(event.data).why), "warn");
    if (!state.data) loadSeries();
  });
  source.addEventListener("error", async () => {
    status("connecting again", "warn");
    if (source.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
    let answer = null;
    try {
      answer = await fetch("/", { method: "HEAD", credentials: "same-origin" });
    } catch {
      // the server is not there yet
    }
    if (answer && answer.status === 401) status("signed out: open the address that `nicety web` printed", "bad");
    setTimeout(connect, patience);
    patience = Math.min(2 * patience, 30000);
  });
}

// --- start -------------------------------------------------------------------------------------------------------------------

const THEMES = { "": "Theme: system", light: "Theme: light", dark: "Theme: dark" };

function useTheme(name) {
  if (name) document.documentElement.dataset.theme = name;
  else delete document.documentElement.dataset.theme;
  $("theme").textContent = THEMES[name];
  try {
    localStorage.setItem("nicety-theme", name);
  } catch {
    // not kept
  }
  drawCharts();
}

function start() {
  for (const [said, seconds] of RANGES) $("ranges").append(node("button", { type: "button", value: String(seconds), onclick: () => show(seconds) }, said));
  $("charts").append(...charts.map((chart) => chart.element));
  const zoomed = /^#(\d{9,11})-(\d{9,11})$/.exec(location.hash);
  const ranged = RANGES.find(([, seconds]) => location.hash === `#${seconds}`);
  if (zoomed) {
    Object.assign(state, { range: 0, since: Number(zoomed[1]), until: Number(zoomed[2]) });
    state.back.push([300, 0, 0]);
  } else if (ranged) state.range = ranged[1];
  let theme = "";
  try {
    theme = localStorage.getItem("nicety-theme") || "";
  } catch {
    // none is kept
  }
  useTheme(theme in THEMES ? theme : "");
  $("theme").addEventListener("click", () => {
    const names = Object.keys(THEMES);
    useTheme(names[(names.indexOf(document.documentElement.dataset.theme || "") + 1) % names.length]);
    drawTables();
  });
  $("focus").lastElementChild.addEventListener("click", () => focus(state.focus));
  $("filter").addEventListener("input", () => state.frame && drawGroups());
  $("more").addEventListener("click", () => { state.all = !state.all; drawGroups(); });
  $("moment").addEventListener("keydown", (event) => { if (event.key === "Escape") closeMoment(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { drawCharts(); drawTables(); });
  new ResizeObserver(() => drawCharts()).observe($("charts"));
  setInterval(() => {
    const wait = state.range > LIVE_SECONDS && state.data ? Math.max(state.data.width, 10) : 0;
    if (wait && !document.hidden && now() - state.data.until > wait / 2 && state.cursor === null) loadSeries();
  }, 5000);
  viewChanged();
  connect();
}

start();
