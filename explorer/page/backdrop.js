// The map's background: a grid of images, each decoded from the z at its centre.

const BACKDROP_TILE = 30; // side of one image on the screen, CSS pixels
const REST_MS = 150; // decoding starts when the view has been still for this long

let backdropPicture = null; // { canvas, corner, size }, as drawPicture takes it

function drawBackdrop(context) {
  if (state.backdrop && backdropPicture) drawPicture(context, backdropPicture, 0.22);
}

/** Decode the images of the view, then show them all at once. In the dark theme they are light on dark. */
function* decodeBackdrop() {
  if (!state.backdrop || !isMapShown()) return;
  const [columns, rows] = state.size.map((side) => Math.max(1, Math.ceil(side / BACKDROP_TILE)));
  const canvas = makeCanvas(28 * columns, 28 * rows);
  const context = canvas.getContext("2d");
  const corner = toLatent([0, 0]);
  const step = BACKDROP_TILE / pixelsPerUnit();
  const { dark } = state.theme;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const pixels = model.decode([corner[0] + (column + 0.5) * step, corner[1] - (row + 0.5) * step]);
      context.putImageData(toImageData(dark && content.ink ? pixels.map((p) => 1 - p) : pixels), 28 * column, 28 * row);
      yield;
    }
  }
  backdropPicture = { canvas, corner, size: [columns * step, rows * step] };
  redrawMap();
}

function startBackdrop() {
  const decode = inSlices(decodeBackdrop, REST_MS);
  let mayStart = false; // the first equation comes first
  watch(["view", "size", "theme", "backdrop"], () => mayStart && decode());
  watch(["terms"], () => {
    if (mayStart || !state.terms) return;
    mayStart = true;
    decode(0);
  });
  $("backdrop").checked = state.backdrop; // a browser may restore another value
  $("backdrop").addEventListener("change", () => update({ backdrop: $("backdrop").checked }));
}
