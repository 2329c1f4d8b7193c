// Mouse, pen and touch on the picture: drag keypoints and boxes, draw a box, pan, zoom.

import { editable, finishDrag, finishKeys, keypointEdit, placeKeypoint, selectKeypoint, selectPerson } from './actions.js';
import { finishBox, movedBox, tidy } from './boxes.js';
import { byId } from './dom.js';
import { beforeLeaving } from './navigation.js';
import { boxPart, hover, nearestKeypoint, personAt } from './scene.js';
import { emit, personOf, selected, state } from './store.js';
import { pan, toImage, view, zoom } from './view.js';

const CLICK = 4;
const reachOf = event => event.pointerType === 'touch' ? 22 : 10;

// Pointers that are down, by id: [x, y] in CSS pixels of the stage.
const down = new Map();
// What the first pointer does: {kind, start, moved, …}.
let gesture = null;
let spread = 0;

function at(event) {
  const box = byId('stage').getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

function press(event) {
  if (event.button > 1) return;
  event.preventDefault();
  const stage = byId('stage'), point = at(event);
  stage.focus({ preventScroll: true });
  stage.setPointerCapture(event.pointerId);
  down.set(event.pointerId, point);
  if (down.size === 2) { abandon(); gesture = { kind: 'pinch' }; spread = distance(); return; }
  if (down.size > 2) return;
  finishKeys();
  gesture = { start: point, moved: false, ...begin(event, ...point) };
}

/** What a press begins, by what is under it. */
function begin(event, x, y) {
  if (event.button === 1) return { kind: 'pan' };
  if (state.boxing?.person === null) return { kind: 'draw', from: toImage(x, y) };
  if (event.shiftKey && state.keypoint !== null) return { kind: 'place' };
  const reach = reachOf(event), hit = nearestKeypoint(x, y, reach), person = selected();
  if (!hit || hit.person !== state.person) {
    const part = person && state.show.boxes && boxPart(person.box, x, y, reach * 0.8);
    if (part) return { kind: 'box', person: person.key, part, box: person.box };
  }
  if (!hit) return { kind: 'pan', choose: true };
  if (hit.person !== state.person) selectPerson(hit.person);
  selectKeypoint(hit.k, false);
  const [kx, ky] = personOf(hit.person).keypoints[hit.k], [px, py] = toImage(x, y);
  // The keypoint keeps its distance from the pointer, so that seizing it does not move it.
  return { kind: 'keypoint', person: hit.person, k: hit.k, offset: [kx - px, ky - py] };
}

const distance = () => { const [[a, b], [c, d]] = [...down.values()]; return Math.max(1, Math.hypot(a - c, b - d)); };

function move(event) {
  const point = at(event), before = down.get(event.pointerId);
  if (!before) {
    if (event.pointerType === 'mouse') hint(...point);
    return;
  }
  if (gesture?.kind === 'pinch' && down.size >= 2) pinch(event.pointerId, before, point);
  down.set(event.pointerId, point);
  if (!gesture || gesture.kind === 'pinch') return;
  if (!gesture.moved && Math.hypot(point[0] - gesture.start[0], point[1] - gesture.start[1]) < CLICK) return;
  if (!gesture.moved && ['keypoint', 'box'].includes(gesture.kind) && !editable()) gesture.kind = 'none';
  gesture.moved = true;
  MOVES[gesture.kind]?.(point, before);
}

const MOVES = {
  pan: (point, before) => pan(point[0] - before[0], point[1] - before[1]),
  keypoint([x, y]) {
    const person = personOf(gesture.person), [px, py] = toImage(x, y);
    if (!person) return;
    state.drag = keypointEdit(person, gesture.k, px + gesture.offset[0], py + gesture.offset[1]);
    emit('frame');
  },
  box([x, y]) {
    const [dx, dy] = [(x - gesture.start[0]) / view.scale, (y - gesture.start[1]) / view.scale];
    state.drag = { op: 'box', input: state.shown.input, frame: state.shown.frame, person: gesture.person,
                   box: tidy(movedBox(gesture.box, gesture.part, dx, dy)) };
    emit('frame');
  },
  draw([x, y]) {
    state.boxing.box = tidy([...gesture.from, ...toImage(x, y)]);
    emit('frame');
  },
};

function pinch(id, before, point) {
  down.set(id, point);
  const [a, b] = [...down.values()], now = distance();
  zoom(now / spread, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
  pan((point[0] - before[0]) / 2, (point[1] - before[1]) / 2);
  spread = now;
}

function release(event) {
  if (!down.delete(event.pointerId) || down.size) return;
  const ended = gesture;
  gesture = null;
  if (!ended || ended.kind === 'pinch') return;
  if (ended.moved && state.drag) finishDrag();
  else if (ended.kind === 'draw' && ended.moved) finishBox();
  else if (ended.kind === 'place') placeKeypoint(...toImage(...ended.start));
  else if (ended.choose && !ended.moved) selectPerson(personAt(...ended.start)?.key ?? null);
}

/** A drag ends without an edit: a second finger, or the browser took the pointer away. */
function abandon() {
  if (state.drag && !state.drag.byKeys) state.drag = null;
  gesture = null;
  emit('frame');
}

function lose(event) {
  if (down.delete(event.pointerId)) abandon();
}

/** Escape during a drag by the pointer. */
export function cancelDrag() {
  if (!state.drag || state.drag.byKeys) return false;
  if (gesture) gesture.kind = 'none';
  state.drag = null;
  emit('frame');
  return true;
}

function hint(x, y) {
  const hit = nearestKeypoint(x, y, 10), person = selected();
  hover(hit && hit.person === state.person ? hit.k : null);
  const part = !hit && person && state.show.boxes ? boxPart(person.box, x, y, 8) : null;
  byId('stage').dataset.cursor = state.boxing?.person === null ? 'cross' : hit ? 'point' : part ? cursorOf(part) : '';
}

const cursorOf = ({ u, v }) => u === .5 && v === .5 ? 'move' : u === .5 ? 'ns' : v === .5 ? 'ew' : u === v ? 'nwse' : 'nesw';

export function startPointer() {
  beforeLeaving.push(() => {
    if (!gesture) return;
    finishDrag();
    gesture.kind = 'none';
  });
  const stage = byId('stage');
  stage.addEventListener('pointerdown', press);
  stage.addEventListener('pointermove', move);
  stage.addEventListener('pointerup', release);
  stage.addEventListener('pointercancel', lose);
  stage.addEventListener('wheel', event => {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : 1, delta = (event.deltaY || 0) * lines;
    if (event.shiftKey) pan(-(event.deltaX || event.deltaY) * lines, 0);
    // A pinch on a touchpad arrives as a wheel with Ctrl and small steps.
    else zoom(Math.exp(-Math.min(120, Math.max(-120, delta)) * (event.ctrlKey ? 0.01 : 0.0022)), ...at(event));
  }, { passive: false });
  stage.addEventListener('contextmenu', event => event.preventDefault());
}
