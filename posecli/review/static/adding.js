// Where the keypoints of an added person start: a standing figure, or the same track in the nearest frame.

import { commit, editable } from './actions.js';
import { byId, element, say } from './dom.js';
import { frameState } from './frames.js';
import { idle } from './saving.js';
import { state } from './store.js';

// Frames on either side that are searched for a person of the track.
const REACH = 15;

// Parts of a standing figure seen from the front, in shares of its box; x to its left side (the picture's right).
const FIGURE = [
  [/nose|mouth|lip/, 0, .08], [/eye/, .06, .06], [/ear/, .12, .08], [/head.?top|top.?head/, 0, 0], [/neck|thorax/, 0, .17],
  [/head|face/, 0, .08], [/shoulder/, .28, .2], [/elbow/, .38, .36], [/wrist/, .42, .5], [/hand|thumb|finger|palm/, .43, .54],
  [/pelvis/, 0, .52], [/hip/, .16, .52], [/knee/, .18, .74], [/ankle/, .19, .95], [/heel/, .18, .98], [/toe|foot/, .24, 1],
];

/** A standing figure in a box: K keypoints [x, y, 2]. Unknown names start where their neighbours are. */
export function standing([x0, y0, x1, y1]) {
  const { names, skeleton } = state.session.keypoints;
  const shares = names.map(name => {
    const part = FIGURE.find(([words]) => words.test(name.toLowerCase()));
    if (!part) return null;
    const side = /left|^l[-_.]|[-_.]l$/i.test(name) ? 1 : /right|^r[-_.]|[-_.]r$/i.test(name) ? -1 : 0;
    return [.5 + side * part[1], part[2]];
  });
  const placed = shares.map((share, k) => share ?? beside(k, shares, skeleton));
  return placed.map(([u, v]) => [x0 + u * (x1 - x0), y0 + v * (y1 - y0), 2].map(n => Math.round(n * 100) / 100));
}

function beside(k, shares, skeleton) {
  const near = skeleton.filter(limb => limb.includes(k)).map(([a, b]) => shares[a === k ? b : a]).filter(Boolean);
  if (near.length) return [0, 1].map(i => near.reduce((sum, share) => sum + share[i], 0) / near.length);
  // Nothing is known about it: beside each other, so that each one can be seized.
  return [(k % 12 + .5) / 12, Math.min(1, (Math.floor(k / 12) + .5) / 12)];
}

/** A person's keypoints moved from one box into another. */
export const fitted = (keypoints, from, to) => keypoints.map(([x, y, v]) => [0, 1].map(i => {
  const extent = from[i + 2] - from[i], share = extent > 0 ? ([x, y][i] - from[i]) / extent : .5;
  return Math.round(100 * (to[i] + share * (to[i + 2] - to[i]))) / 100;
}).concat(v));

/** The person of a track in the nearest frame that has one: {frame, person}, or null. Raises ApiError. */
async function nearest(track) {
  const { input, frame } = state.shown, last = state.input.frames - 1;
  for (let d = 1; d <= REACH; d++)
    for (const at of [frame - d, frame + d]) {
      if (at < 0 || at > last) continue;
      const person = (await frameState(input, at)).people.find(p => p.track === track);
      if (person) return { frame: at, person };
    }
  return null;
}

const centre = ([x0, y0, x1, y1]) => [(x0 + x1) / 2, (y0 + y1) / 2];

/** Tracks that are missing in this frame, but in a frame nearby; those whose box was close to this one first. */
async function missing(box) {
  const here = new Set(state.shown.people.map(p => p.track)), { frame } = state.shown;
  const near = state.tracks.filter(t => !here.has(t.track) && t.first <= frame + REACH && t.last >= frame - REACH);
  const found = [];
  for (const { track } of near.slice(0, 12)) {
    const other = await nearest(track);
    if (!other) continue;
    const [a, b] = [centre(box), centre(other.person.box)];
    found.push({ track, ...other, distance: Math.hypot(a[0] - b[0], a[1] - b[1]) });
  }
  return found.sort((a, b) => a.distance - b.distance);
}

/** Add a person in a box; in a clip it is asked who it is. */
export async function addPerson(box) {
  if (!editable()) return;
  const { input, frame } = state.shown;
  if (state.input.frames < 2) { add(box, standing(box), null); return; }
  let others = [];
  await idle();
  try { others = await missing(box); } catch (error) { say(`Frames nearby could not be read: ${error.message}`, 'bad'); }
  const answer = await ask(others);
  if (!answer || state.shown.input !== input || state.shown.frame !== frame) return;
  const other = others.find(o => o.track === answer.track);
  add(box, other && answer.copy ? fitted(other.person.keypoints, other.person.box, box) : standing(box), answer.track);
}

function add(box, keypoints, track) {
  commit({ op: 'add', box, keypoints: Object.fromEntries(keypoints.map((point, k) => [k, point])), track });
  say('Added. Drag the keypoints, or Shift+click the place of each one in turn.');
}

function ask(others) {
  const dialog = byId('adding'), select = dialog.querySelector('select'), copy = dialog.querySelector('input');
  const fresh = Math.max(0, ...state.tracks.map(t => t.track)) + 1;
  select.replaceChildren(
    ...others.map(o => element('option', { value: o.track }, `person ${o.track}, seen in frame ${o.frame}`)),
    element('option', { value: fresh }, `a new person: id ${fresh}`),
    element('option', { value: '' }, 'no id'));
  const choose = () => {
    const known = others.some(o => String(o.track) === select.value);
    copy.disabled = !known;
    copy.checked = known;
  };
  select.onchange = choose;
  choose();
  dialog.returnValue = '';
  dialog.showModal();
  return new Promise(resolve => dialog.addEventListener('close', () => {
    byId('stage').focus({ preventScroll: true });
    if (dialog.returnValue !== 'ok') { say('Nothing was added.'); resolve(null); return; }
    resolve({ track: select.value === '' ? null : Number(select.value), copy: copy.checked });
  }, { once: true }));
}
