// The test images as points on the map, and the legend that hides classes.

const POINT_OPACITY = 0.8; // lets dense regions show how dense they are

let pointsCanvas = null; // the drawn points; null when they have to be drawn anew

/** Where the points are: the means after the best epoch, or those of the film's frame. */
function shownPoints() {
  return state.frame === null ? points : filmPoints[state.frame];
}

function isHidden(i) {
  return state.hidden.has(content.labels[i]);
}

/** The colour halfway between two, each "#rrggbb". */
function mixColors(a, b) {
  const other = toRgb(b);
  return `#${toRgb(a).map((part, i) => Math.round((part + other[i]) / 2).toString(16).padStart(2, "0")).join("")}`;
}

/** Small discs in the order of the test set, in which no class hides another. */
function paintPoints() {
  const radius = Math.max(1.8, Math.min(3, state.size[0] / 300));
  const canvas = makeCanvas(0, 0);
  const context = fitCanvas(canvas, ...state.size);
  context.globalAlpha = POINT_OPACITY;
  const edges = state.theme.classes.map((color) => mixColors(color, state.theme.ink)); // a pale dot needs one
  shownPoints().forEach((z, i) => {
    if (isHidden(i)) return;
    const place = toScreen(z);
    fillDot(context, place, radius + 0.4, edges[content.labels[i]]);
    fillDot(context, place, radius - 0.5, classColor(content.labels[i]));
  });
  return canvas;
}

/** They step back behind a term of the equation. */
function drawPoints(context) {
  pointsCanvas ??= paintPoints();
  context.globalAlpha = state.term ? 0.25 : 1;
  context.drawImage(pointsCanvas, 0, 0, ...state.size);
  context.globalAlpha = 1;
}

/** Index of the visible point nearest to z, or null if none is within `radius` CSS pixels. */
function findNearest(z, radius) {
  const [px, py] = toScreen(z);
  let nearest = null;
  let least = radius;
  shownPoints().forEach((point, i) => {
    if (isHidden(i)) return;
    const [x, y] = toScreen(point);
    const distance = Math.hypot(x - px, y - py);
    if (distance >= least) return;
    nearest = i;
    least = distance;
  });
  return nearest;
}

function toggleClass(label) {
  const hidden = new Set(state.hidden);
  if (!hidden.delete(label)) hidden.add(label);
  hideClasses(hidden);
}

function hideClasses(labels) {
  update({ hidden: new Set(labels) });
  for (const button of $("legend").children) {
    button.setAttribute("aria-pressed", !state.hidden.has(Number(button.dataset.label)));
  }
}

/** One button per class. */
function startPoints() {
  watch(["view", "size", "theme", "hidden", "frame"], () => (pointsCanvas = null));
  const labels = [...new Set(content.labels)].sort((a, b) => a - b);
  for (const label of labels) {
    const button = document.createElement("button");
    button.textContent = className(label);
    button.style.setProperty("--color", `var(--c${label})`);
    button.setAttribute("aria-label", `Class ${className(label)}`);
    button.setAttribute("aria-pressed", "true");
    button.dataset.label = label;
    button.addEventListener("click", () => toggleClass(label));
    $("legend").append(button);
  }
}
