"use strict";
// The page: a map of the latent space, and what follows from where one points at it.

const STEPS = 11; // digits of an interpolation, its ends included
const FRAME_MS = 120; // of the film
const TILE = 30; // pixels of the screen that a decoded digit of the backdrop takes
const NEAR = 14; // pixels within which a click means a point

const $ = (id) => document.getElementById(id);
const content = JSON.parse($("content").textContent);
const model = makeModel(content);
const points = pairs(unpacked(content.means));
const filmMeans = unpacked(content.film.means);
const film = content.film.epochs.map((_, i) =>
  pairs(filmMeans.subarray(2 * i * points.length, 2 * (i + 1) * points.length)));
const map = $("map");

/** What is shown; everything drawn follows from it. */
const state = {
  z: [0, 0],
  hidden: new Set(),
  selected: null, // the number of a test digit
  posterior: null, // its q(z|x)
  drawn: null, // q(z|x) of the user's digit
  ends: [], // of the line to interpolate along
  picking: false,
  frame: null, // the film's; null: the best epoch's means
  backdrop: true,
  view: home(),
};

function pairs(flat) {
  return Array.from({ length: flat.length / 2 }, (_, i) => [flat[2 * i], flat[2 * i + 1]]);
}

/** The view that holds nearly all of the prior: its centre, and half of the map's shorter side. */
function home() {
  const n = content.prior.length;
  const mean = [0, 1].map((d) => content.prior.reduce((sum, c) => sum + c[d], 0) / n);
  const spread = [0, 1].map((d) =>
    Math.sqrt(content.prior.reduce((sum, c) => sum + c[d + 2] ** 2 + (c[d] - mean[d]) ** 2, 0) / n));
  return { center: mean, half: 4 * Math.max(...spread) };
}

// Between z and the map's pixels.

function unit() {
  return Math.min(map.clientWidth, map.clientHeight) / 2 / state.view.half; // pixels a unit of z
}

function toScreen([x, y]) {
  const { center } = state.view;
  return [map.clientWidth / 2 + (x - center[0]) * unit(), map.clientHeight / 2 - (y - center[1]) * unit()];
}

function toLatent([px, py]) {
  const { center } = state.view;
  return [center[0] + (px - map.clientWidth / 2) / unit(), center[1] - (py - map.clientHeight / 2) / unit()];
}

function zoom(factor, around = [map.clientWidth / 2, map.clientHeight / 2]) {
  const fixed = toLatent(around);
  state.view.half = Math.min(100 * home().half, Math.max(home().half / 100, state.view.half / factor));
  const moved = toLatent(around);
  state.view.center = state.view.center.map((c, d) => c + fixed[d] - moved[d]);
  viewChanged();
}

function pan(dx, dy) {
  const { center } = state.view;
  state.view.center = [center[0] - dx / unit(), center[1] + dy / unit()];
  viewChanged();
}

// Drawing.

let colors, ink, soft, accent, card;

function readColors() {
  const style = getComputedStyle(document.documentElement);
  const value = (name) => style.getPropertyValue(name).trim();
  colors = Array.from({ length: 10 }, (_, i) => value(`--c${i}`));
  [ink, soft, accent, card] = ["--ink", "--soft", "--accent", "--card"].map(value);
}

/** A canvas's context, its bitmap fitted to its size on the screen. */
function fitted(canvas, width = canvas.clientWidth, height = canvas.clientHeight) {
  const ratio = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

/** An image of 784 pixels in [0, 1] as ImageData, dark on light as on paper. */
function toImageData(pixels) {
  const image = new ImageData(28, 28);
  image.data.fill(255);
  pixels.forEach((p, i) => image.data.fill(255 * (1 - p), 4 * i, 4 * i + 3));
  return image;
}

function showDigit(canvas, pixels) {
  canvas.getContext("2d").putImageData(toImageData(pixels), 0, 0);
}

let drawing = false;

/** Draw the map with the next frame of the screen. */
function redraw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    drawMap();
  });
}

function drawMap() {
  const context = fitted(map);
  if (state.backdrop) drawBackdrop(context);
  drawPoints(context);
  drawContours(context);
  if (state.ends.length) drawLine(context);
  if (state.selected !== null) drawPosterior(context, state.posterior, colors[content.labels[state.selected]]);
  if (state.drawn) drawPosterior(context, state.drawn, accent);
  const [px, py] = toScreen(state.z);
  context.strokeStyle = ink;
  context.lineWidth = 1.5;
  context.beginPath();
  for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
    context.moveTo(px + 4 * dx, py + 4 * dy);
    context.lineTo(px + 11 * dx, py + 11 * dy);
  }
  context.stroke();
}

/** The prior's 1, 2 and 3 sigma, of each component. */
function drawContours(context) {
  const many = model.components.length > 1;
  context.font = "12px system-ui, sans-serif";
  context.fillStyle = ink;
  for (const { mu, sigma } of model.components) {
    for (const radius of many ? [1] : [1, 2, 3]) {
      ellipse(context, mu, sigma.map((s) => radius * s));
      [context.strokeStyle, context.lineWidth] = [soft, 1];
      context.stroke();
      if (many) continue;
      const [px, py] = toScreen([mu[0], mu[1] - radius * sigma[1]]);
      [context.strokeStyle, context.lineWidth] = [card, 3]; // a halo, so that the points do not hide the label
      context.strokeText(`${radius}\u03c3`, px - 8, py + 4);
      context.fillText(`${radius}\u03c3`, px - 8, py + 4);
    }
  }
}

function ellipse(context, center, radii) {
  const [px, py] = toScreen(center);
  context.beginPath();
  context.ellipse(px, py, radii[0] * unit(), radii[1] * unit(), 0, 0, 2 * Math.PI);
}

/** Where the points are: at the best epoch's means or at a frame of the film. */
function positions() {
  return state.frame === null ? points : film[state.frame];
}

function drawPoints(context) {
  const size = Math.max(3, Math.min(6, map.clientWidth / 170));
  positions().forEach((z, i) => {
    if (state.hidden.has(content.labels[i])) return;
    const [px, py] = toScreen(z);
    context.fillStyle = colors[content.labels[i]];
    context.fillRect(px - size / 2, py - size / 2, size, size);
  });
}

/** The mean and the ellipse of two sigma of a posterior q(z|x). */
function drawPosterior(context, { mu, sigma }, color) {
  const [px, py] = toScreen(mu);
  for (const [width, style] of [[5, card], [2.5, color]]) {
    context.strokeStyle = style;
    context.lineWidth = width;
    if (content.stochastic) {
      ellipse(context, mu, sigma.map((s) => 2 * s));
      context.stroke();
    }
    context.beginPath();
    context.moveTo(px - 6, py - 6); context.lineTo(px + 6, py + 6);
    context.moveTo(px + 6, py - 6); context.lineTo(px - 6, py + 6);
    context.stroke();
  }
}

function drawLine(context) {
  stroked(context, ink, 2, state.ends.map(toScreen));
  context.fillStyle = ink;
  for (const end of state.ends) {
    context.beginPath();
    context.arc(...toScreen(end), 5, 0, 2 * Math.PI);
    context.fill();
  }
}

// The backdrop: the decoder over the view, a few digits at a time so that nothing else waits for it.

const backdrop = { canvas: document.createElement("canvas"), corner: null, size: null, timer: 0, job: 0 };

function drawBackdrop(context) {
  if (!backdrop.corner) return;
  const [left, top] = toScreen(backdrop.corner);
  context.globalAlpha = 0.22;
  context.drawImage(backdrop.canvas, left, top, backdrop.size[0] * unit(), backdrop.size[1] * unit());
  context.globalAlpha = 1;
}

/** Decode the backdrop anew, in the dark theme light on dark. */
function renderBackdrop() {
  const job = ++backdrop.job;
  const [columns, rows] = [map.clientWidth, map.clientHeight].map((side) => Math.max(1, Math.ceil(side / TILE)));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [28 * columns, 28 * rows];
  const context = canvas.getContext("2d");
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const corner = toLatent([0, 0]), step = TILE / unit();
  let tile = 0;
  (function some() {
    if (job !== backdrop.job) return;
    const until = performance.now() + 8;
    for (; tile < columns * rows && performance.now() < until; tile++) {
      const [column, row] = [tile % columns, Math.floor(tile / columns)];
      const pixels = model.decode([corner[0] + (column + 0.5) * step, corner[1] - (row + 0.5) * step]);
      context.putImageData(toImageData(dark ? pixels.map((p) => 1 - p) : pixels), 28 * column, 28 * row);
    }
    if (tile < columns * rows) return void setTimeout(some);
    Object.assign(backdrop, { canvas, corner, size: [columns * step, rows * step] });
    redraw();
  })();
}

function viewChanged() {
  redraw();
  clearTimeout(backdrop.timer);
  if (state.backdrop) backdrop.timer = setTimeout(renderBackdrop, 150);
}

// What one points at.

let decoding = false;

/** Decode at z with the next frame of the screen. */
function setZ(z) {
  state.z = z;
  redraw();
  if (decoding) return;
  decoding = true;
  requestAnimationFrame(() => {
    decoding = false;
    showDigit($("decoded"), model.decode(state.z));
    $("z").textContent = state.z.map((value) => value.toFixed(2)).join(", ");
    const density = model.priorDensity(state.z);
    $("density").textContent = density < 0.001 ? density.toExponential(1) : density.toFixed(4);
  });
}

let sheet = null; // the context of the test digits' picture, once it is there

/** The pixels in [0, 1] of a test digit. */
function pixelsOf(i) {
  const columns = sheet.canvas.width / 28;
  const { data } = sheet.getImageData(28 * (i % columns), 28 * Math.floor(i / columns), 28, 28);
  return Float32Array.from({ length: 784 }, (_, k) => data[4 * k] / 255);
}

/** The number of the visible point nearest to z, if there is one within so many pixels. */
function nearest(z, within) {
  const [px, py] = toScreen(z);
  let [best, least] = [null, within];
  positions().forEach((point, i) => {
    if (state.hidden.has(content.labels[i])) return;
    const [x, y] = toScreen(point);
    const distance = Math.hypot(x - px, y - py);
    if (distance < least) [best, least] = [i, distance];
  });
  return best;
}

/** What -log p(x|mu) and the KL of q(z|x) are for an image, as the rows of a list. */
function terms(x, posterior) {
  const bce = model.bce(x, posterior.mu);
  const rows = [["BCE at \u03bc", bce]];
  if (content.stochastic) {
    const kld = model.kld(posterior);
    const weight = content.divergenceWeight;
    rows.push(["KLD", kld], [`BCE at \u03bc + ${weight === 1 ? "" : `${weight} \u00d7 `}KLD`, bce + weight * kld]);
  }
  return rows.map(([name, value]) => [name, `${value.toFixed(2)} nats`]);
}

function fillList(list, rows) {
  list.replaceChildren(...rows.flatMap(([name, value]) => {
    const [term, description] = [document.createElement("dt"), document.createElement("dd")];
    [term.textContent, description.textContent] = [name, value];
    return [term, description];
  }));
}

function pair(values) {
  return values.map((value) => value.toFixed(2)).join(", ");
}

/** Tell a test digit's story, which is the best epoch's; null ends it. */
function select(i) {
  state.selected = i;
  $("told").hidden = i === null;
  $("no-story").hidden = i !== null;
  if (i !== null) {
    showBest();
    const x = pixelsOf(i), posterior = state.posterior = model.encode(x);
    showDigit($("input"), x);
    showDigit($("reconstruction"), model.decode(posterior.mu));
    const rows = [["class", content.labels[i]], ["\u03bc", pair(posterior.mu)]];
    if (content.stochastic) rows.push(["\u03c3", pair(posterior.sigma)]);
    fillList($("figures"), [...rows, ...terms(x, posterior)]);
    say(`A ${content.labels[i]} at ${pair(posterior.mu)}`);
  }
  redraw();
}

function say(text) {
  $("spoken").textContent = text;
}

/** Mark z as an end of the line; with two the strip is shown, with a third a new line begins. */
function mark(z) {
  state.ends = state.ends.length === 2 ? [z] : [...state.ends, z];
  if (state.ends.length === 2) {
    setPicking(false);
    drawStrip();
  }
  redraw();
}

function setPicking(on) {
  state.picking = on;
  if (on) state.ends = [];
  $("interpolate").textContent = on ? "Now click two points" : "Pick two points to interpolate";
  redraw();
}

function drawStrip() {
  $("strip-card").hidden = false;
  const strip = $("strip"), scale = 3;
  [strip.width, strip.height] = [28 * STEPS * scale, 28 * scale];
  const context = strip.getContext("2d"), digit = document.createElement("canvas");
  digit.width = digit.height = 28;
  context.imageSmoothingEnabled = false;
  const [a, b] = state.ends;
  for (let i = 0; i < STEPS; i++) {
    const t = i / (STEPS - 1);
    showDigit(digit, model.decode(a.map((value, d) => value + t * (b[d] - value))));
    context.drawImage(digit, 28 * scale * i, 0, 28 * scale, 28 * scale);
  }
  $("save").href = strip.toDataURL("image/png");
  say(`Interpolated from ${pair(a)} to ${pair(b)}`);
}

/** Pick what is within so many pixels of z, as an end of a line or for its story. */
function onClick(z, within = NEAR) {
  const i = nearest(z, within);
  if (state.picking) mark(i === null ? z : positions()[i]);
  else if (sheet) select(i);
}

// Pointers on the map: a mouse hovers, drags to pan and clicks; a finger drags z, two pinch.

function listenToMap() {
  const down = new Map(); // the pointers that are down: where they are
  let [moved, pinched] = [0, false];
  const at = (event) => [event.offsetX, event.offsetY];

  map.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    if (!down.size) [moved, pinched] = [0, false];
    if (down.size) pinched = true;
    down.set(event.pointerId, at(event));
    map.setPointerCapture(event.pointerId);
    if (event.pointerType !== "mouse") setZ(toLatent(at(event)));
  });
  map.addEventListener("pointermove", (event) => {
    const before = down.get(event.pointerId), now = at(event);
    if (!before) return void (event.pointerType === "mouse" && setZ(toLatent(now)));
    moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
    if (down.size === 2) {
      const [other] = [...down].filter(([id]) => id !== event.pointerId).map(([, where]) => where);
      const apart = (where) => Math.hypot(where[0] - other[0], where[1] - other[1]);
      pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
      zoom(apart(now) / Math.max(1, apart(before)), [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2]);
    } else if (event.pointerType === "mouse") {
      pan(now[0] - before[0], now[1] - before[1]);
    } else if (!pinched) {
      setZ(toLatent(now));
    }
    down.set(event.pointerId, now);
  });
  map.addEventListener("pointerup", (event) => {
    if (down.size === 1 && down.has(event.pointerId) && moved < 5 && !pinched) onClick(toLatent(at(event)));
    down.delete(event.pointerId);
  });
  map.addEventListener("lostpointercapture", (event) => down.delete(event.pointerId)); // however the pointer went
  map.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), at(event));
  }, { passive: false });

  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  map.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = arrows[event.key];
    if (arrow) {
      const step = (event.shiftKey ? 2 : 10) / unit();
      setZ(state.z.map((value, d) => value + step * arrow[d]));
      say(`z ${pair(state.z)}`);
    } else if (event.key === "+" || event.key === "=") zoom(1.25, toScreen(state.z));
    else if (event.key === "-") zoom(0.8, toScreen(state.z));
    else if (event.key === "0") resetView();
    else if (event.key === "Enter") onClick(state.z, Infinity);
    else if (event.key === "i") mark(state.z);
    else return;
    event.preventDefault();
  });
}

function resetView() {
  state.view = home();
  viewChanged();
}

// The user's own digit.

function listenToPad() {
  const pad = $("pad"), context = pad.getContext("2d", { willReadFrequently: true });
  let pointer = null, last = null, waiting = false;

  function clear() {
    context.fillStyle = "#fff";
    context.fillRect(0, 0, pad.width, pad.height);
    Object.assign(context, { lineWidth: 17, lineCap: "round", lineJoin: "round", strokeStyle: "#000" });
    for (const id of ["centred", "redrawn"]) showDigit($(id), new Float32Array(784));
    state.drawn = null;
    $("drawn").textContent = "It is encoded as you draw, and lies where the cross is.";
    redraw();
  }

  function encode() {
    waiting = false;
    const { data } = context.getImageData(0, 0, pad.width, pad.height);
    const x = centred(Float32Array.from({ length: data.length / 4 }, (_, k) => 1 - data[4 * k] / 255), pad.width);
    if (!x) return;
    state.drawn = model.encode(x);
    showDigit($("centred"), x);
    showDigit($("redrawn"), model.decode(state.drawn.mu));
    const figures = terms(x, state.drawn).map(([name, value]) => `${name} ${value}`).join(", ");
    $("drawn").textContent = `\u03bc ${pair(state.drawn.mu)}; ${figures}`;
    redraw();
  }

  function stroke(event) {
    const scale = pad.width / pad.clientWidth;
    const now = [event.offsetX * scale, event.offsetY * scale];
    context.beginPath();
    context.moveTo(...(last ?? now));
    context.lineTo(...now);
    context.stroke();
    last = now;
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(encode);
  }

  pad.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || pointer !== null) return;
    pad.setPointerCapture(event.pointerId);
    [pointer, last] = [event.pointerId, null];
    stroke(event);
  });
  pad.addEventListener("pointermove", (event) => event.pointerId === pointer && stroke(event));
  pad.addEventListener("lostpointercapture", (event) => {
    if (event.pointerId === pointer) pointer = null;
  });
  $("clear").addEventListener("click", clear);
  clear();
}

// The film.

/** The test set's losses over the epochs, each on a scale of its own: the film's epoch dotted, the best one dashed. */
function drawLosses() {
  const canvas = $("losses"), context = fitted(canvas);
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const epoch = shownEpoch(), n = content.losses.length, pane = height / 3;
  const x = (number) => 70 + ((width - 80) * (number - 1)) / Math.max(1, n - 1);
  context.setLineDash([3, 3]);
  stroked(context, soft, 1, [[x(content.best), 0], [x(content.best), height]]);
  context.setLineDash([]);
  ["BCE", content.divergence, "total"].forEach((name, i) => {
    const values = content.losses.map((row) => row[i]);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const y = (value) => pane * i + 7 + ((pane - 14) * (high - value)) / (high - low || 1);
    stroked(context, accent, 1.6, values.map((value, k) => [x(k + 1), y(value)]));
    context.beginPath();
    context.arc(x(epoch), y(values[epoch - 1]), 4, 0, 2 * Math.PI);
    context.fillStyle = ink;
    context.fill();
    context.font = "13px system-ui, sans-serif";
    context.fillText(values[epoch - 1].toFixed(i === 1 && !content.stochastic ? 4 : 2), 0, pane * (i + 0.5) + 14);
    context.fillStyle = soft;
    context.fillText(name, 0, pane * (i + 0.5) - 2);
  });
}

function stroked(context, color, width, path) {
  [context.strokeStyle, context.lineWidth] = [color, width];
  context.beginPath();
  for (const [x, y] of path) context.lineTo(x, y);
  context.stroke();
}

function shownEpoch() {
  return state.frame === null ? content.best : content.film.epochs[state.frame];
}

function setFrame(frame) {
  state.frame = frame;
  const epoch = shownEpoch();
  $("epoch-number").textContent = `epoch ${epoch}${epoch === content.best ? ", best" : ""}`;
  if (frame !== null) $("epoch").value = frame;
  $("epoch").setAttribute("aria-valuetext", `epoch ${epoch}`);
  drawLosses();
  redraw();
}

let [timer, begun] = [0, false]; // begun: whether the slider is where the film was left

function play(on) {
  clearInterval(timer);
  $("play").textContent = on ? "Pause" : "Play";
  if (!on) return;
  const last = film.length - 1;
  if (!begun || state.frame === last) setFrame(0);
  begun = true;
  timer = setInterval(() => (state.frame < last ? setFrame(state.frame + 1) : play(false)), FRAME_MS);
}

function showBest() {
  const best = content.film.epochs.indexOf(content.best);
  play(false);
  begun = false;
  setFrame(best < 0 ? null : best);
}

function listenToFilm() {
  $("epoch").max = Math.max(0, film.length - 1);
  $("epoch").disabled = $("play").disabled = film.length < 2;
  $("epoch").addEventListener("input", () => {
    play(false);
    begun = true;
    setFrame(Number($("epoch").value));
  });
  $("play").addEventListener("click", () => play($("play").textContent === "Play"));
  showBest();
}

// Everything else, and the start.

function buildLegend() {
  for (const digit of [...new Set(content.labels)].sort()) {
    const button = document.createElement("button");
    button.textContent = digit;
    button.style.setProperty("--color", `var(--c${digit})`);
    button.setAttribute("aria-pressed", "true");
    button.setAttribute("aria-label", `Class ${digit}`);
    button.addEventListener("click", () => {
      if (!state.hidden.delete(digit)) state.hidden.add(digit);
      button.setAttribute("aria-pressed", !state.hidden.has(digit));
      redraw();
    });
    $("legend").append(button);
  }
}

function describe() {
  const [bce, divergence, total] = content.losses[content.best - 1];
  const weight = content.divergenceWeight === 1 ? "" : `${content.divergenceWeight} \u00d7 `;
  const decimals = content.stochastic ? 2 : 4;
  $("about").textContent =
    `${content.dataset}, best epoch ${content.best} of ${content.losses.length}: BCE ${bce.toFixed(2)} + ` +
    `${weight}${content.divergence} ${divergence.toFixed(decimals)} = ${total.toFixed(2)} ` +
    `${content.stochastic ? "nats " : ""}per test image. ` +
    `${points.length} test digits; weights rounded to float16.`;
}

function start() {
  readColors();
  describe();
  buildLegend();
  listenToMap();
  listenToPad();
  listenToFilm();
  $("zoom-in").addEventListener("click", () => zoom(1.5));
  $("zoom-out").addEventListener("click", () => zoom(1 / 1.5));
  $("reset").addEventListener("click", resetView);
  $("backdrop").addEventListener("change", () => {
    state.backdrop = $("backdrop").checked;
    viewChanged();
  });
  $("interpolate").addEventListener("click", () => setPicking(!state.picking));
  setZ(state.view.center);
  new ResizeObserver(() => {
    viewChanged();
    drawLosses();
  }).observe(map);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readColors();
    drawLosses();
    viewChanged();
  });
  const sprite = new Image();
  sprite.addEventListener("load", () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [sprite.width, sprite.height];
    sheet = canvas.getContext("2d", { willReadFrequently: true });
    sheet.drawImage(sprite, 0, 0);
    document.documentElement.dataset.ready = "";
  });
  sprite.src = content.sprite;
}

start();

/** For the console: the model's functions on plain arrays, a test digit's pixels, and what is shown. */
window.explorer = { ...model, pixelsOf, toScreen, points, state };
