// Frames and pictures of the server, kept for as long as memory allows, and those that will be wanted next.

import { get, image } from './api.js';
import { checkedFrame } from './edits.js';
import { state } from './store.js';

const MOST_STATES = 500;
const MOST_BYTES = 160e6;
const AHEAD = 8, BEHIND = 2, AT_ONCE = 2;

/** Promises by key in the order of their use; the least used ones go when they weigh too much together. */
class Kept {
  constructor(most, weigh, drop) { Object.assign(this, { most, weigh, drop, map: new Map(), total: 0 }); }
  get(key) {
    const found = this.map.get(key);
    if (found) { this.map.delete(key); this.map.set(key, found); }
    return found?.value;
  }
  set(key, value, weight = this.weigh(value)) {
    this.delete(key);
    this.map.set(key, { value, weight });
    this.total += weight;
    for (const old of this.map.keys()) {
      if (this.total <= this.most || old === key) break;
      this.delete(old);
    }
  }
  delete(key) {
    const old = this.map.get(key);
    if (!old) return;
    this.map.delete(key);
    this.total -= old.weight;
    this.drop?.(old.value);
  }
}

const states = new Kept(MOST_STATES, () => 1);
const pictures = new Kept(MOST_BYTES, b => 4 * b.width * b.height, bitmap => { if (bitmap !== onScreen) bitmap.close(); });
const asked = new Map();
// Frames to ask for next: [input, frame, width].
let wanted = [];
let onScreen = null;
// Counted up when answers on the way are out of date.
let age = 0;

const key = (input, frame) => `${input}/${frame}`;

function once(name, ask) {
  const known = asked.get(name);
  if (known) return known;
  const asking = ask().finally(() => { if (asked.get(name) === asking) asked.delete(name); });
  asked.set(name, asking);
  return asking;
}

/** People of a frame as the server has them. Raises ApiError. */
export async function frameState(input, frame) {
  const known = states.get(key(input, frame));
  if (known) return known;
  const since = age;
  return once(`${age}:${key(input, frame)}`, async () => {
    const answer = checkedFrame(await get('frame', { input, frame }), state.session.keypoints.names.length);
    return since === age ? keep(answer) : answer;
  });
}

/** Remember a frame of the server, unless a later one is known. */
export function keep(frame) {
  const name = key(frame.input, frame.frame), known = states.get(name);
  if (known && known.seq > frame.seq) return known;
  states.set(name, frame);
  return frame;
}

/** Forget frames, because they were changed; null: all of the input, or of all inputs. */
export function forget(input = null, frame = null) {
  age++;
  for (const [name] of [...states.map])
    if (input === null || (frame === null ? name.startsWith(`${input}/`) : name === key(input, frame))) states.delete(name);
}

// Requests for pictures under way: {input, frame, abort}.
const underWay = new Map();

/** The picture of a frame; bitmaps that are neither kept nor shown are closed. Raises ApiError. */
export async function picture(input, frame, width) {
  const name = `${key(input, frame)}@${width}`, known = pictures.get(name);
  if (known) return known;
  return once(name, async () => {
    const control = new AbortController();
    underWay.set(name, { input, frame, abort: () => control.abort() });
    try {
      const bitmap = await image(input, frame, width, control.signal);
      pictures.set(name, bitmap);
      return bitmap;
    } finally {
      if (!control.signal.aborted) underWay.delete(name);
    }
  });
}

/** Give up requests for pictures that are far from a frame, so that it need not wait for them. */
export function onlyNear(input, frame) {
  const near = (i, f) => i === input && Math.abs(f - frame) <= AHEAD;
  wanted = wanted.filter(([i, f]) => near(i, f));
  for (const [name, other] of underWay) {
    if (near(other.input, other.frame)) continue;
    other.abort();
    underWay.delete(name);
    asked.delete(name);
  }
}

export function setOnScreen(bitmap) {
  onScreen = bitmap;
}

let working = 0;

/** Ask for the frames around one, more of them in the direction of travel. */
export function prefetch(input, frame, direction, frames, width) {
  const order = [];
  for (let i = 1; i <= AHEAD; i++) order.push(frame + i * direction);
  for (let i = 1; i <= BEHIND; i++) order.push(frame - i * direction);
  wanted = order.filter(f => f >= 0 && f < frames).map(f => [input, f, width]);
  while (working < AT_ONCE && wanted.length) work();
}

async function work() {
  working++;
  while (wanted.length) {
    const [input, frame, width] = wanted.shift();
    // A frame that cannot be read is reported when it is shown.
    await Promise.allSettled([picture(input, frame, width), frameState(input, frame)]);
  }
  working--;
}
