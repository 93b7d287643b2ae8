// Images of 28 x 28 pixels. Those of the test set come as compressed bytes: a picture that is drawn on a canvas and
// read back is noise in a browser that protects against fingerprinting.

let testPixels = null; // Uint8Array: 784 bytes for each test image, once they are unpacked

/** The bytes that zlib has compressed. */
async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function loadImages() {
  document.documentElement.dataset.ink = content.ink; // for page.css
  try {
    testPixels = await inflate(unpackBytes(content.pixels));
  } catch (error) {
    $("too-old").hidden = false; // it has no DecompressionStream
    throw error;
  }
  update({ ready: true });
  document.documentElement.dataset.ready = "";
}

/** Pixels of test image i: Float32Array (784), values in [0, 1]. */
function pixelsOf(i) {
  return Float32Array.from(testPixels.subarray(784 * i, 784 * (i + 1)), (byte) => byte / 255);
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
