// The part of the latent space on the map, and the conversion between z and the map's pixels.

const ZOOM_LIMIT = 100; // largest zoom factor, in and out, relative to the home view
const ZOOM_STEP = 1.5; // of the buttons

/**
 * The view that holds nearly all of the prior: four standard deviations around its mean.
 * @returns center, the z in the middle of the map; half, half of the map's shorter side in units of z.
 */
function homeView() {
  const n = content.prior.length;
  const mean = [0, 1].map((d) => content.prior.reduce((sum, c) => sum + c[d], 0) / n);
  const deviation = [0, 1].map((d) =>
    Math.sqrt(content.prior.reduce((sum, c) => sum + c[d + 2] ** 2 + (c[d] - mean[d]) ** 2, 0) / n));
  return { center: mean, half: 4 * Math.max(...deviation) };
}

function pixelsPerUnit() {
  return Math.min(...state.size) / 2 / state.view.half;
}

function toScreen([x, y]) {
  const { center } = state.view;
  const [width, height] = state.size;
  return [width / 2 + (x - center[0]) * pixelsPerUnit(), height / 2 - (y - center[1]) * pixelsPerUnit()];
}

function toLatent([px, py]) {
  const { center } = state.view;
  const [width, height] = state.size;
  return [center[0] + (px - width / 2) / pixelsPerUnit(), center[1] - (py - height / 2) / pixelsPerUnit()];
}

/** The nearest `half` within the limits of the zoom. */
function clampHalf(half) {
  const home = homeView().half;
  return Math.min(ZOOM_LIMIT * home, Math.max(home / ZOOM_LIMIT, half));
}

/** Zoom in by `factor`. The z at `fixed`, in pixels of the map, stays where it is. */
function zoom(factor, fixed = state.size.map((side) => side / 2)) {
  const before = toLatent(fixed);
  const half = clampHalf(state.view.half / factor);
  const scale = half / state.view.half;
  const center = state.view.center.map((c, d) => before[d] + scale * (c - before[d]));
  update({ view: { center, half } });
}

/** Show all between two corners. */
function showRegion(low, high) {
  const half = clampHalf(Math.max(high[0] - low[0], high[1] - low[1]) / 2);
  update({ view: { center: [0, 1].map((d) => (low[d] + high[d]) / 2), half } });
}

/** Move the map's content by some pixels. */
function pan(dx, dy) {
  const { center, half } = state.view;
  update({ view: { center: [center[0] - dx / pixelsPerUnit(), center[1] + dy / pixelsPerUnit()], half } });
}

function resetView() {
  update({ view: homeView() });
}

function measureMap() {
  update({ size: [$("map").clientWidth, $("map").clientHeight] });
}

function startView() {
  measureMap();
  resetView();
  new ResizeObserver(measureMap).observe($("map"));
  $("zoom-in").addEventListener("click", () => zoom(ZOOM_STEP));
  $("zoom-out").addEventListener("click", () => zoom(1 / ZOOM_STEP));
  $("reset").addEventListener("click", resetView);
}
