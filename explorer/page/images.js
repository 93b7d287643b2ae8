// Images of 28 x 28 pixels: read from the sprite sheet, drawn on canvases.

let sheet = null; // context of the sprite sheet of the test images, once it is loaded

function loadImages() {
  document.documentElement.dataset.ink = content.ink; // for page.css
  const sprite = new Image();
  sprite.addEventListener("load", () => {
    const canvas = makeCanvas(sprite.width, sprite.height);
    sheet = canvas.getContext("2d", { willReadFrequently: true });
    sheet.drawImage(sprite, 0, 0);
    update({ ready: true });
    document.documentElement.dataset.ready = "";
  });
  sprite.src = content.sprite;
}

/** Pixels of test image i: Float32Array (784), values in [0, 1]. */
function pixelsOf(i) {
  const columns = sheet.canvas.width / 28;
  const { data } = sheet.getImageData(28 * (i % columns), 28 * Math.floor(i / columns), 28, 28);
  return Float32Array.from({ length: 784 }, (_, k) => data[4 * k] / 255);
}

/** ImageData of 784 pixels in [0, 1]: dark on light, as ink on paper, or as they are if they are no ink. */
function toImageData(pixels) {
  const image = new ImageData(28, 28);
  image.data.fill(255);
  pixels.forEach((p, i) => image.data.fill(255 * (content.ink ? 1 - p : p), 4 * i, 4 * i + 3));
  return image;
}

function showImage(canvas, pixels) {
  canvas.getContext("2d").putImageData(toImageData(pixels), 0, 0);
}
