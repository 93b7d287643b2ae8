// The film: the test images' means, epoch by epoch.

const FRAME_MS = 120;

let filmTimer = null; // set while the film plays
let continues = false; // whether Play resumes at the current frame instead of the first

/** The epoch whose means are on the map. */
function shownEpoch() {
  return state.frame === null ? content.best : content.film.epochs[state.frame];
}

function isBestShown() {
  return shownEpoch() === content.best;
}

function showFrame(frame) {
  update({ frame });
  const epoch = shownEpoch();
  $("epoch-number").textContent = `epoch ${epoch}${epoch === content.best ? ", best" : ""}`;
  $("film-title").textContent = headline(epoch, `${isBestShown() ? "best " : ""}epoch ${epoch}`);
  $("epoch").setAttribute("aria-valuetext", `epoch ${epoch}`);
  if (frame !== null) $("epoch").value = frame;
}

function playFilm() {
  const last = filmPoints.length - 1;
  if (!continues || state.frame === last) showFrame(0);
  continues = true;
  $("play").textContent = "Pause";
  filmTimer = setInterval(() => {
    if (state.frame < last) showFrame(state.frame + 1);
    else pauseFilm();
  }, FRAME_MS);
}

/** While another epoch's points are on the map, a line says why nothing else is. */
function describeEpoch() {
  $("epoch-note").hidden = isBestShown();
  $("map-key").hidden = !isBestShown();
  $("shown-epoch").textContent = shownEpoch();
}

function pauseFilm() {
  clearInterval(filmTimer);
  filmTimer = null;
  $("play").textContent = "Play";
}

/** Show the best epoch, even if the film has no frame of it. */
function showBestEpoch() {
  const best = content.film.epochs.indexOf(content.best);
  pauseFilm();
  continues = false;
  showFrame(best < 0 ? null : best);
}

function startFilm() {
  $("epoch").max = Math.max(0, filmPoints.length - 1);
  $("epoch").disabled = filmPoints.length < 2;
  $("play").disabled = filmPoints.length < 2;
  $("epoch").addEventListener("input", () => {
    pauseFilm();
    continues = true;
    showFrame(Number($("epoch").value));
  });
  $("play").addEventListener("click", () => {
    if (filmTimer === null) playFilm();
    else pauseFilm();
  });
  // The image x is explained with the best epoch's weights, so the points have to be of that epoch too.
  watch(["subject", "epsilon", "draws", "term", "tour"], () => {
    if (state.subject !== null && !isBestShown()) showBestEpoch();
  });
  watch(["frame"], describeEpoch);
  $("to-best").addEventListener("click", () => {
    showBestEpoch();
    $("epoch").focus();
  });
  showBestEpoch();
}
