// The part of the latent space on the map, and the conversion between z and the map's pixels.

const ZOOM_LIMIT = 100; // largest zoom factor, in and out, relative to the home view
const ZOOM_STEP = 1.5; // of the buttons
const OUTLIERS = 0.005; // the share of the points that may lie beyond each edge of the home view
const VIEW_MARGIN = 1.1;

/**
 * The view that holds nearly all of the points, and the prior's middle.
 * @returns center, the z in the middle of the map; half, half of the map's shorter side in units of z.
 */
const homeView = (() => {
  const n = content.prior.length;
  const low = [];
  const high = [];
  for (const d of [0, 1]) {
    const mean = content.prior.reduce((sum, c) => sum + c[d], 0) / n;
    const deviation = Math.sqrt(content.prior.reduce((sum, c) => sum + c[d + 2] ** 2 + (c[d] - mean) ** 2, 0) / n);
    const sorted = points.map((z) => z[d]).sort((a, b) => a - b);
    const outside = Math.floor(OUTLIERS * points.length);
    low.push(Math.min(mean - 2 * deviation, sorted[outside]));
    high.push(Math.max(mean + 2 * deviation, sorted[points.length - 1 - outside]));
  }
  const half = (VIEW_MARGIN * Math.max(high[0] - low[0], high[1] - low[1])) / 2;
  const view = { center: [0, 1].map((d) => (low[d] + high[d]) / 2), half };
  return () => view;
})();

/** The view at the start: close enough for the ellipse of q(z|x) to be seen, with some of its neighbours. */
function openingView({ mu, sigma }) {
  const { half } = homeView();
  return { center: mu, half: Math.min(half / 2, Math.max(half / 5, 12 * Math.max(...sigma))) };
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

/** Move the map's content by some pixels. */
function pan(dx, dy) {
  const { center, half } = state.view;
  update({ view: { center: [center[0] - dx / pixelsPerUnit(), center[1] + dy / pixelsPerUnit()], half } });
}

function resetView() {
  update({ view: homeView() });
}

function openView() {
  update({ view: openingView(state.subject.q) });
}

/** Call `react` when the screen's pixels per CSS pixel change: the window is zoomed, or moves to another screen. */
function watchRatio(react) {
  const query = matchMedia(`(resolution: ${window.devicePixelRatio}dppx)`);
  query.addEventListener("change", () => {
    react();
    watchRatio(react);
  }, { once: true });
}

function measureMap() {
  update({ size: [$("map").clientWidth, $("map").clientHeight] });
}

function startView() {
  measureMap();
  resetView();
  new ResizeObserver(measureMap).observe($("map"));
  watchRatio(measureMap);
  $("zoom-in").addEventListener("click", () => zoom(ZOOM_STEP));
  $("zoom-out").addEventListener("click", () => zoom(1 / ZOOM_STEP));
  $("reset").addEventListener("click", resetView);
}
