let lastTime = 0;
let counter = 0;

/** Random bytes for this many ids are drawn at once: drawing is a call out of JavaScript, and was nine tenths of what an id costs. */
const DRAWN = 128;
const RANDOM_BYTES = 10;
const drawn = new Uint8Array(DRAWN * RANDOM_BYTES);
let used = drawn.length;

function randomBytes(): Uint8Array {
  if (used === drawn.length) {
    crypto.getRandomValues(drawn);
    used = 0;
  }
  const begin = used;
  used += RANDOM_BYTES;
  return drawn.subarray(begin, used);
}

/**
 * A UUIDv7 (RFC 9562, section 5.7): time-ordered, and increasing within this process even inside
 * one millisecond, by the 12-bit counter of section 6.2, method 1. When the counter is exhausted, or
 * the clock steps back, the last time is kept or advanced by a millisecond, as that section allows.
 */
export function uuidv7(): string {
  const bytes = randomBytes();
  const now = Date.now();
  if (now > lastTime) {
    lastTime = now;
    // A random start below half of the range leaves at least 2,048 ids in this millisecond.
    counter = (((bytes[8] ?? 0) << 8) | (bytes[9] ?? 0)) & 0x7ff;
  } else if (++counter > 0xfff) {
    lastTime += 1;
    counter = 0;
  }
  const time = lastTime.toString(16).padStart(12, '0');
  const variant = 0x80 | ((bytes[0] ?? 0) & 0x3f);
  let tail = variant.toString(16);
  for (let i = 1; i < 8; i++) tail += (bytes[i] ?? 0).toString(16).padStart(2, '0');
  return `${time.slice(0, 8)}-${time.slice(8)}-7${counter.toString(16).padStart(3, '0')}-${tail.slice(0, 4)}-${tail.slice(4)}`;
}
