// Heat maps: functions of z as one colour, more or less opaque.

const MOST_COLUMNS = 400; // of the picture of a density

/** "#rrggbb" as three numbers. */
function toRgb(color) {
  return [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16));
}

/**
 * A picture, as drawPicture takes it, of columns x rows square cells.
 * @param opacities Float32Array (rows * columns), from 0 to 1.
 * @param place { corner, side }: the z of the top left corner, and the side of a cell in units of z.
 */
function paintHeat(opacities, columns, { corner, side }, color) {
  const rows = opacities.length / columns;
  const image = new ImageData(columns, rows);
  const [red, green, blue] = toRgb(color);
  for (let i = 0; i < opacities.length; i++) {
    image.data[4 * i] = red;
    image.data[4 * i + 1] = green;
    image.data[4 * i + 2] = blue;
    image.data[4 * i + 3] = 255 * opacities[i];
  }
  const canvas = makeCanvas(columns, rows);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return { canvas, corner, size: [columns * side, rows * side] };
}

/** Opacities of the cells of the lattice's inner grid as a heat map. */
function paintLattice(opacities, color) {
  const { corner, step, side } = lattice[0];
  return paintHeat(opacities, side, { corner, side: step }, color);
}

/** The density of cells { z, side, log } as a heat map. The square root lets its tails be seen. */
function paintCells(cells, color) {
  const peak = peakOf(cells);
  const shown = cells.filter(({ log }) => log > peak - FAINT);
  const { left, right, bottom, top } = boundsOf(shown);
  const finest = Math.min(...shown.map(({ side }) => side));
  const side = Math.max(finest, (right - left) / MOST_COLUMNS, (top - bottom) / MOST_COLUMNS);
  const columns = Math.round((right - left) / side) + 2; // with a margin to fade out in
  const rows = Math.round((top - bottom) / side) + 2;
  const opacities = new Float32Array(rows * columns);
  for (const cell of shown) {
    const width = Math.max(1, Math.round(cell.side / side));
    const start = 1 + Math.round((cell.z[0] - cell.side / 2 - left) / side);
    const first = 1 + Math.round((top - cell.z[1] - cell.side / 2) / side);
    for (let row = first; row < first + width; row++) {
      opacities.fill(Math.exp((cell.log - peak) / 2), row * columns + start, row * columns + start + width);
    }
  }
  return paintHeat(opacities, columns, { corner: [left - side, top + side], side }, color);
}

/** The edges of the smallest rectangle that holds all cells. */
function boundsOf(cells) {
  const bounds = { left: Infinity, right: -Infinity, bottom: Infinity, top: -Infinity };
  for (const { z, side } of cells) {
    bounds.left = Math.min(bounds.left, z[0] - side / 2);
    bounds.right = Math.max(bounds.right, z[0] + side / 2);
    bounds.bottom = Math.min(bounds.bottom, z[1] - side / 2);
    bounds.top = Math.max(bounds.top, z[1] + side / 2);
  }
  return bounds;
}
