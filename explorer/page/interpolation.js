// Interpolation: decoded images along the line between two points of the latent space.

const STRIP_STEPS = 11; // images along the line, both ends included
const STRIP_SCALE = 3; // bitmap pixels per pixel of an image

function setPicking(picking) {
  update({ picking, ends: picking ? [] : state.ends });
  $("interpolate").textContent = picking ? "Click two points on the map" : "Interpolate between two points";
}

/** Mark z as an end of the line. The second end shows the strip; a third starts a new line. */
function markEnd(z) {
  update({ ends: state.ends.length === 2 ? [z] : [...state.ends, z] });
  if (state.ends.length < 2) return;
  setPicking(false);
  showStrip(...state.ends);
}

function showStrip(from, to) {
  const strip = $("strip");
  const side = 28 * STRIP_SCALE;
  strip.width = STRIP_STEPS * side;
  strip.height = side;
  const context = strip.getContext("2d");
  context.imageSmoothingEnabled = false;
  const image = makeCanvas(28, 28);
  for (let i = 0; i < STRIP_STEPS; i++) {
    const t = i / (STRIP_STEPS - 1);
    showImage(image, model.decode(from.map((value, d) => value + t * (to[d] - value))));
    context.drawImage(image, i * side, 0, side, side);
  }
  $("save").href = strip.toDataURL("image/png");
  $("strip-card").hidden = false;
  $("strip-card").scrollIntoView({ block: "nearest" });
  announce(`Interpolation from ${formatPair(from)} to ${formatPair(to)}`);
}

function drawLine(context) {
  const ends = state.ends.map(toScreen);
  strokePath(context, ends, state.theme.ink, 2);
  for (const end of ends) fillDot(context, end, 5, state.theme.ink);
}

function startInterpolation() {
  $("interpolate").addEventListener("click", () => setPicking(!state.picking));
}
