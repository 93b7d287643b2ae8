// Where the page starts.

function describeRun() {
  const name = `best epoch ${content.best} of ${content.losses.length}`;
  $("about").textContent = `${headline(content.best, name)}. ` +
    `${points.length} test images shown, weights stored as float16.`;
}

/** The map's layers, from the bottom up. */
const LAYERS = [drawBackdrop, drawTerm, drawPoints, drawPrior, drawLine, drawSubject, drawBest, drawSamples, drawCrosshair];

function start() {
  startTheme();
  startView();
  startLattice();
  startBackdrop();
  startPoints();
  startFilm();
  startLosses();
  startDecoded();
  startSelection();
  startPosterior();
  startGap();
  startEquation();
  startEpsilon();
  startLayers();
  startTour();
  startWelcome();
  startLink();
  startPad();
  startInterpolation();
  startInput();
  startMap(LAYERS);
  describeRun();
  loadImages();
}

start();

/** For tests and the console: the model's functions on plain arrays, and the state. */
window.explorer = { ...model, pixelsOf, toScreen, points, state, select, homeView, resetView };
