// The map of the latent space: layers that draw themselves, and shapes that several of them use.

let mapLayers = []; // functions of the map's 2D context, from the bottom up

const redrawMap = oncePerFrame(() => {
  if (!isMapShown()) return;
  const context = fitCanvas($("map"), ...state.size);
  for (const draw of mapLayers) draw(context);
});

/** Whether the map has a size: it has none in a hidden frame. */
function isMapShown() {
  return Math.min(...state.size) > 0;
}

/** Draw these layers now, and again whenever the state changes. */
function startMap(layers) {
  mapLayers = layers;
  watch(Object.keys(state), redrawMap);
  describePrior();
  redrawMap();
}

/**
 * Draw a picture of a part of the latent space.
 * @param corner z of its top left corner. size: width and height in units of z.
 */
function drawPicture(context, { canvas, corner, size }, opacity) {
  const [left, top] = toScreen(corner);
  context.globalAlpha = opacity;
  context.drawImage(canvas, left, top, size[0] * pixelsPerUnit(), size[1] * pixelsPerUnit());
  context.globalAlpha = 1;
}

function strokeEllipse(context, center, radii) {
  const [px, py] = toScreen(center);
  context.beginPath();
  context.ellipse(px, py, radii[0] * pixelsPerUnit(), radii[1] * pixelsPerUnit(), 0, 0, 2 * Math.PI);
  context.stroke();
}

/** The prior: its 1, 2 and 3 sigma contours, or 1 sigma of each component of a mixture. */
function drawPrior(context) {
  const isMixture = model.components.length > 1;
  const levels = isMixture ? [1] : [1, 2, 3];
  for (const { mu, sigma } of model.components) {
    for (const level of levels) {
      context.strokeStyle = state.theme.soft;
      context.lineWidth = 1;
      strokeEllipse(context, mu, sigma.map((s) => level * s));
      if (!isMixture) drawContourLabel(context, [mu[0], mu[1] - level * sigma[1]], level);
    }
  }
}

/** Say in the key what the thin rings are. */
function describePrior() {
  $("prior-key").textContent = model.components.length > 1
    ? "the prior p(z): \u03c3 of each of its parts" : "the prior p(z): 1, 2 and 3 of its \u03c3";
}

function drawContourLabel(context, z, level) {
  const [px, py] = toScreen(z);
  const label = `${level}\u03c3`;
  context.font = "12px system-ui, sans-serif";
  context.strokeStyle = state.theme.card; // an outline, so that the label stays readable over the points
  context.lineWidth = 3;
  context.strokeText(label, px - 8, py + 4);
  context.fillStyle = state.theme.ink;
  context.fillText(label, px - 8, py + 4);
}

/** A Gaussian as a shade whose opacity is the square root of its density, like a heat map's. */
function fillGaussian(context, { mu, sigma }, color) {
  context.save();
  context.translate(...toScreen(mu));
  context.scale(...sigma.map((s) => s * pixelsPerUnit()));
  const shade = context.createRadialGradient(0, 0, 0, 0, 0, 4);
  for (let i = 0; i <= 10; i++) {
    const opacity = Math.round(200 * Math.exp(-((0.4 * i) ** 2) / 4));
    shade.addColorStop(i / 10, color + opacity.toString(16).padStart(2, "0"));
  }
  context.fillStyle = shade;
  context.fillRect(-4, -4, 8, 8);
  context.restore();
}
