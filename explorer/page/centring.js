// A drawing prepared the way MNIST's digits were, so that the encoder gets what it was trained on.

const INK_LEVEL = 0.05; // pixels with at least this much count as drawn

/**
 * Scale a drawing to fit 20 x 20 pixels, and place it in 28 x 28 with its centre of mass in the middle.
 * @param ink Float32Array (side * side), values in [0, 1].
 * @returns Float32Array (784), or null if nothing is drawn.
 */
function centreDrawing(ink, side) {
  const box = findBox(ink, side);
  if (!box) return null;
  const small = shrink(ink, side, box);
  const [massX, massY] = centreOfMass(small);
  const shiftX = Math.round(14 - massX);
  const shiftY = Math.round(14 - massY);
  const image = new Float32Array(784);
  for (let y = 0; y < 20; y++) {
    for (let x = 0; x < 20; x++) {
      const toX = x + shiftX;
      const toY = y + shiftY;
      if (toX >= 0 && toX < 28 && toY >= 0 && toY < 28) image[toY * 28 + toX] = small[y * 20 + x];
    }
  }
  return image;
}

/** Bounding box of the drawing: its left and top, and the longer of its sides. Null if nothing is drawn. */
function findBox(ink, side) {
  let left = side;
  let top = side;
  let right = -1;
  let bottom = -1;
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      if (ink[y * side + x] < INK_LEVEL) continue;
      left = Math.min(left, x);
      right = Math.max(right, x);
      top = Math.min(top, y);
      bottom = Math.max(bottom, y);
    }
  }
  if (right < 0) return null;
  return { left, top, size: Math.max(right - left + 1, bottom - top + 1) };
}

/** The box at 20 x 20 pixels, each the mean of the area it covers. */
function shrink(ink, side, { left, top, size }) {
  const scale = size / 20;
  const small = new Float32Array(400);
  for (let y = 0; y < 20; y++) {
    for (let x = 0; x < 20; x++) {
      small[y * 20 + x] = averageSquare(ink, side, [left + x * scale, top + y * scale], scale);
    }
  }
  return small;
}

/** Mean over a square of `size` pixels with its top left corner at (x0, y0), both fractional. Outside is empty. */
function averageSquare(ink, side, [x0, y0], size) {
  let sum = 0;
  for (let y = Math.floor(y0); y < Math.min(side, y0 + size); y++) {
    const height = Math.min(y + 1, y0 + size) - Math.max(y, y0);
    for (let x = Math.floor(x0); x < Math.min(side, x0 + size); x++) {
      const width = Math.min(x + 1, x0 + size) - Math.max(x, x0);
      sum += height * width * ink[y * side + x];
    }
  }
  return sum / size ** 2;
}

/** Centre of mass of a 20 x 20 image, [x, y]. */
function centreOfMass(image) {
  let mass = 0;
  let massX = 0;
  let massY = 0;
  image.forEach((value, i) => {
    mass += value;
    massX += value * ((i % 20) + 0.5);
    massY += value * (Math.floor(i / 20) + 0.5);
  });
  return [massX / mass, massY / mass];
}
