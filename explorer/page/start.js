// Where the page starts.

function describeRun() {
  const [bce, divergence, total] = content.losses[content.best - 1];
  const loss = `BCE ${bce.toFixed(2)} + ${weightPrefix()}${content.divergence} ` +
    `${formatDivergence(divergence)} = ${total.toFixed(2)}`;
  const units = content.stochastic ? "nats per test image" : "per test image";
  $("about").textContent = `${content.dataset}, best epoch ${content.best} of ${content.losses.length}: ` +
    `${loss} ${units}. ${points.length} test images shown. Weights stored as float16.`;
}

/** The map's layers, from the bottom up. */
const LAYERS = [drawBackdrop, drawPoints, drawPrior, drawLine, drawSelection, drawDrawing, drawCrosshair];

function start() {
  startTheme();
  startView();
  startBackdrop();
  startLegend();
  startFilm();
  startLosses();
  startDecoded();
  startPad();
  startInterpolation();
  startInput();
  startMap(LAYERS);
  describeRun();
  loadImages();
}

start();

/** For tests and the console: the model's functions on plain arrays, and the state. */
window.explorer = { ...model, pixelsOf, toScreen, points, state };
