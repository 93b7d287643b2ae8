// The state of the page. Everything that is drawn follows from it.

/** Any file may read a field. It belongs to the file named in the comment; who changes it calls `update`. */
const state = {
  theme: null, // theme.js: colours of the light or dark scheme
  size: [0, 0], // view.js: width and height of the map, CSS pixels
  view: null, // view.js: the part of the latent space on the map, { center, half }
  ready: false, // images.js: whether the test images are loaded
  z: [0, 0], // decoded.js: the latent vector to decode
  hidden: new Set(), // points.js: labels of the hidden classes
  frame: null, // film.js: index of the film's frame; null for the best epoch's means
  backdrop: true, // backdrop.js: whether the background shows decoded images
  isDecoded: false, // lattice.js: whether the lattice is decoded
  subject: null, // selection.js: the image that is explained, { x, index of a test image, q: { mu, sigma } of q(z|x) }
  posterior: null, // posterior.js: its p(z|x), { cells, isRefined }
  terms: null, // posterior.js: { evidence, bce, kld, gap }, nats
  split: null, // posterior.js: the gap's parts and the best Gaussian, { q, approximation, amortisation }
  term: null, // equation.js: name of the highlighted term
  tour: null, // tour.js: the number of the guided path's step, from 0
  epsilon: [1, -0.5], // epsilon.js: the noise that makes z from q(z|x)
  draws: [], // epsilon.js: those of the last resampling
  picking: false, // interpolation.js: whether clicks mark the ends of the line
  ends: [], // interpolation.js: up to two ends of the line, in the latent space
};

const watchers = [];

/** Change some fields, as in update({ z: [0, 1] }), then call the watchers of these fields. */
function update(changes) {
  Object.assign(state, changes);
  for (const { fields, react } of watchers) {
    if (fields.some((field) => field in changes)) react();
  }
}

/** Call `react` after each update of any of the fields. */
function watch(fields, react) {
  watchers.push({ fields, react });
}
