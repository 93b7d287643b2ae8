// Mouse, touch and keyboard on the map.
// A mouse hovers to decode, drags to pan and clicks to select. One finger drags z; two pinch to zoom.

const CLICK_RADIUS = 14; // a click selects a point within this distance, CSS pixels
const WIDE_SHARE = 0.8; // of the window's width
const DOUBLE_CLICK_MS = 600; // between the clicks of a double click, at most
const CLICK_SLACK = 5; // a pointer that moves less than this clicks, CSS pixels

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const ARROW_STEP = 10; // CSS pixels
const FINE_STEP = 2; // with Shift
const EDGE = 20; // z stays so far from the map's edge when the arrow keys move it, CSS pixels

const gesture = {
  pointers: new Map(), // position of each pointer that is down: id -> [x, y]
  moved: 0, // length of the pointers' path, CSS pixels, since the first went down
  pinched: false, // whether a second pointer has joined since then
  clicked: -Infinity, // when the last click was, in milliseconds
  told: null, // what was explained before it, or before the first of a double click
};

function position(event) {
  return [event.offsetX, event.offsetY];
}

/** Mark or select the point within `radius` CSS pixels of z. */
function pickPoint(z, radius) {
  const i = findNearest(z, radius);
  if (state.picking) markEnd(i === null ? z : shownPoints()[i]);
  else select(i);
}

function onPointerDown(event) {
  if (event.button !== 0) return;
  gesture.pinched = gesture.pointers.size > 0;
  if (!gesture.pinched) gesture.moved = 0;
  gesture.pointers.set(event.pointerId, position(event));
  $("map").setPointerCapture(event.pointerId);
  if (event.pointerType !== "mouse") moveTo(toLatent(position(event)));
}

function onPointerMove(event) {
  const { pointers } = gesture;
  const now = position(event);
  const isMouse = event.pointerType === "mouse";
  if (!pointers.has(event.pointerId)) {
    if (isMouse) moveTo(toLatent(now));
    return;
  }
  const before = pointers.get(event.pointerId);
  const dx = now[0] - before[0];
  const dy = now[1] - before[1];
  gesture.moved += Math.hypot(dx, dy);
  if (pointers.size === 2) {
    const otherId = [...pointers.keys()].find((id) => id !== event.pointerId);
    pinch(before, now, pointers.get(otherId));
  } else if (isMouse) {
    pan(dx, dy);
  } else if (!gesture.pinched) {
    moveTo(toLatent(now));
  }
  pointers.set(event.pointerId, now);
}

/** Pan and zoom for a pointer that moves while another rests. */
function pinch(before, now, other) {
  const distance = ([x, y]) => Math.max(1, Math.hypot(x - other[0], y - other[1]));
  pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
  zoom(distance(now) / distance(before), [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2]);
}

function onPointerUp(event) {
  const { pointers, moved, pinched } = gesture;
  const isClick = pointers.has(event.pointerId) && moved < CLICK_SLACK && !pinched;
  pointers.delete(event.pointerId);
  if (!isClick) return;
  if (event.timeStamp - gesture.clicked > DOUBLE_CLICK_MS) gesture.told = state.subject;
  gesture.clicked = event.timeStamp;
  pickPoint(toLatent(position(event)), CLICK_RADIUS);
}

/** Zoom in. Its two clicks on empty ground have taken away what was explained: bring it back. */
function onDoubleClick(event) {
  zoom(ZOOM_STEP ** 2, position(event));
  if (state.subject === null) update({ subject: gesture.told });
}

/** The wheel zooms, except where the map leaves no room beside it to scroll the page; there, it does so with Ctrl. */
function onWheel(event) {
  const isAlone = $("map").clientWidth > WIDE_SHARE * document.documentElement.clientWidth;
  if (isAlone && !event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  zoom(Math.exp(-event.deltaY / 400), position(event));
}

/** Pan so that z stays on the map. */
function followZ() {
  const [px, py] = toScreen(state.z);
  const [width, height] = state.size;
  const beyond = (p, side) => Math.min(0, p - EDGE) + Math.max(0, p - side + EDGE);
  pan(-beyond(px, width), -beyond(py, height));
}

function moveBy([dx, dy], pixels) {
  const step = pixels / pixelsPerUnit();
  moveTo([state.z[0] + step * dx, state.z[1] + step * dy]);
  followZ();
  announce(`z = ${formatPair(state.z)}`);
}

function onKeyDown(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { key } = event;
  if (key in ARROWS) moveBy(ARROWS[key], event.shiftKey ? FINE_STEP : ARROW_STEP);
  else if (key === "+" || key === "=") zoom(1.25, toScreen(state.z));
  else if (key === "-") zoom(0.8, toScreen(state.z));
  else if (key === "0") resetView();
  else if (key === "c") zoomToPosterior();
  else if (key === "Enter") pickPoint(state.z, Infinity);
  else if (key === "i") markEnd(state.z);
  else return;
  event.preventDefault();
}

function startInput() {
  const map = $("map");
  map.addEventListener("pointerdown", onPointerDown);
  map.addEventListener("pointermove", onPointerMove);
  map.addEventListener("pointerup", onPointerUp);
  map.addEventListener("lostpointercapture", (event) => gesture.pointers.delete(event.pointerId));
  map.addEventListener("wheel", onWheel, { passive: false });
  map.addEventListener("dblclick", onDoubleClick);
  map.addEventListener("keydown", onKeyDown);
}
