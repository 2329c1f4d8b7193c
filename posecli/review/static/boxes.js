// A box that is drawn or moved: of a new person, or of the selected one.

import { commit, editable, finishKeys } from './actions.js';
import { addPerson } from './adding.js';
import { byId, say } from './dom.js';
import { emit, nameOf, selected, state } from './store.js';
import { reveal, toImage, view } from './view.js';

const LEAST = 2;
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** Corners in order, inside of the picture, at least a pixel apart, in hundredths of a pixel. */
export function tidy([x0, y0, x1, y1]) {
  const { width, height } = state.shown, round = n => Math.round(n * 100) / 100;
  const [left, top] = [clamp(Math.min(x0, x1), 0, width - 1), clamp(Math.min(y0, y1), 0, height - 1)];
  return [left, top, clamp(Math.max(x0, x1), left + 1, width), clamp(Math.max(y0, y1), top + 1, height)].map(round);
}

/** A box with a part of it moved; u, v: 0, 0.5 or 1 as in scene.boxPart. */
export function movedBox([x0, y0, x1, y1], { u, v }, dx, dy) {
  if (u === .5 && v === .5) return [x0 + dx, y0 + dy, x1 + dx, y1 + dy];
  return [x0 + (u === 0 ? dx : 0), y0 + (v === 0 ? dy : 0), x1 + (u === 1 ? dx : 0), y1 + (v === 1 ? dy : 0)];
}

/** Begin a box for a new person; it starts in the middle of what is seen. */
export function startAdding() {
  finishKeys();
  if (!editable()) return;
  const [cx, cy] = toImage(view.width / 2, view.height / 2), half = 0.3 * Math.min(view.height / view.scale, state.shown.height);
  state.boxing = { person: null, box: tidy([cx - half / 2, cy - half, cx + half / 2, cy + half]) };
  begin('Draw a box around the person, or move this one by the arrow keys (with Alt: its size); Enter is done, Escape ends.');
}

/** Begin to move the selected person's box by keys. */
export function startBox() {
  finishKeys();
  const person = selected();
  if (!person) { say('Select a person first: Tab or a number.'); return; }
  if (!editable()) return;
  state.boxing = { person: person.key, box: [...person.box] };
  begin(`Box of ${nameOf(person)}: arrow keys move it, with Alt its size; Enter is done, Escape ends.`);
}

function begin(text) {
  say(text);
  byId('stage').focus({ preventScroll: true });
  emit('frame', 'boxing');
}

export function nudgeBox(dx, dy, size) {
  state.boxing.box = tidy(movedBox(state.boxing.box, size ? { u: 1, v: 1 } : { u: .5, v: .5 }, dx, dy));
  const [x0, y0, x1, y1] = state.boxing.box;
  reveal(size ? x1 : (x0 + x1) / 2, size ? y1 : (y0 + y1) / 2);
  say(`Box: x ${x0.toFixed(0)} to ${x1.toFixed(0)}, y ${y0.toFixed(0)} to ${y1.toFixed(0)}`);
  emit('frame');
}

export function cancelBox() {
  state.boxing = null;
  say('');
  emit('frame', 'boxing');
}

/** The box is done: the person is added, or the box is changed. */
export async function finishBox() {
  const { person, box } = state.boxing;
  if (box[2] - box[0] < LEAST || box[3] - box[1] < LEAST) { say('This box is too small.', 'bad'); return; }
  state.boxing = null;
  emit('frame', 'boxing');
  if (person === null) await addPerson(box);
  else if (selected()?.key === person && editable()) commit({ op: 'box', person, box });
}
