// The skeletons over the picture, in SVG: crisp at any zoom.

import { byId, svg } from './dom.js';
import { edited, proposed } from './edits.js';
import { icon, keypointColour, limbColour, mark, originOf, VISIBILITY } from './marks.js';
import { colourOf, emit, keypointName, numberOf, on, personOf, state } from './store.js';
import { toImage, toScreen, view } from './view.js';

const HANDLES = [[0, 0], [.5, 0], [1, 0], [1, .5], [1, 1], [.5, 1], [0, 1], [0, .5]];
// Deviations of the ellipse: about 86 % of the positions would lie inside.
const ELLIPSE = 2;

/** The frame as it is drawn: with the change under way and the proposal in it. */
export function drawnFrame() {
  if (!state.shown) return null;
  let frame = proposed(state.shown, state.proposal?.input === state.shown.input ? state.proposal.values : null);
  if (state.drag && state.drag.input === frame.input) frame = edited(frame, state.drag, null);
  return frame;
}

const placed = ([x, y, v]) => v > 0 || x !== 0 || y !== 0;

/** Radius of a keypoint in CSS pixels: small people have small ones, so that they can be told apart. */
function radius(person) {
  const height = (person.box[3] - person.box[1]) * view.scale;
  return Math.min(5.5, Math.max(2.2, height / 45));
}

function draw() {
  const frame = drawnFrame(), layers = ['others', 'chosen', 'labels'].map(byId);
  for (const layer of layers) layer.replaceChildren();
  if (!frame) return;
  const [others, chosen, labels] = layers, person = personOf(state.person, frame);
  // The largest people are drawn last, on top: they are usually nearest.
  const order = [...frame.people].sort((a, b) => (a.box[3] - a.box[1]) - (b.box[3] - b.box[1]));
  for (const p of order) {
    if (p === person) continue;
    if (state.show.others) others.append(...skeleton(p, colourOf(p, frame)));
    if (state.show.others) labels.append(...label(p, frame));
  }
  if (person) {
    const before = personOf(state.person);
    if (before && (state.drag || state.proposal)) chosen.append(...ghost(before, person));
    chosen.append(...details(person));
    labels.append(...label(person, frame, true));
  }
  if (state.boxing) chosen.append(...box(state.boxing.box, 'boxing'));
  if (state.hints) chosen.append(...hints(person));
}

function path(person, which) {
  let d = '';
  for (const [a, b] of state.session.keypoints.skeleton) {
    const [p, q] = [person.keypoints[a], person.keypoints[b]];
    if (!p || !q || !which(p[2], q[2])) continue;
    const [x, y] = toScreen(p[0], p[1]), [u, v] = toScreen(q[0], q[1]);
    d += `M${x.toFixed(1)} ${y.toFixed(1)}L${u.toFixed(1)} ${v.toFixed(1)}`;
  }
  return d;
}

/** A person who is not selected: limbs and dots in one colour, few elements, since there may be a crowd. */
function skeleton(person, colour) {
  const sure = path(person, (a, b) => a === 2 && b === 2), unsure = path(person, (a, b) => a && b && (a === 1 || b === 1));
  const r = radius(person), width = Math.max(1, r / 2.2);
  let dots = '';
  for (const [x, y, v] of person.keypoints) {
    if (v !== 2) continue;
    const [sx, sy] = toScreen(x, y);
    dots += `M${sx.toFixed(1)} ${sy.toFixed(1)}h.01`;
  }
  return [
    svg('path', { class: 'rim', d: sure, 'stroke-width': width + 2 }),
    svg('path', { class: 'limb', d: unsure, stroke: colour, 'stroke-width': width, 'stroke-dasharray': '2 3' }),
    svg('path', { class: 'limb', d: sure, stroke: colour, 'stroke-width': width }),
    svg('path', { class: 'limb', d: dots, stroke: colour, 'stroke-width': 1.5 * r }),
  ];
}

/** Where the skeleton was before the change that is shown. */
function ghost(before, now) {
  const same = before.keypoints.every(([x, y], k) => x === now.keypoints[k]?.[0] && y === now.keypoints[k]?.[1]);
  return same ? [] : [svg('path', { class: 'ghost', d: path(before, (a, b) => a && b) })];
}

function details(person) {
  const made = [], r = radius(person);
  if (state.show.boxes && !(state.boxing?.person === person.key)) made.push(...box(person.box, person.box_corrected ? 'corrected' : ''));
  if (state.show.deviation) made.push(...ellipses(person));
  for (const limb of state.session.keypoints.skeleton) {
    const [p, q] = limb.map(k => person.keypoints[k]);
    if (!p || !q || !p[2] || !q[2]) continue;
    const [x1, y1] = toScreen(p[0], p[1]), [x2, y2] = toScreen(q[0], q[1]), sure = p[2] === 2 && q[2] === 2;
    const ends = { x1, y1, x2, y2, 'stroke-width': r / 2.2 + 0.6 };
    if (sure) made.push(svg('line', { class: 'rim', ...ends, 'stroke-width': r / 2.2 + 2.6 }));
    made.push(svg('line', { class: 'limb', ...ends, stroke: limbColour(limb), ...(sure ? {} : { 'stroke-dasharray': '4 4' }) }));
  }
  person.keypoints.forEach((point, k) => {
    if (!placed(point)) return;
    const [x, y] = toScreen(point[0], point[1]), active = k === state.keypoint;
    if (active) made.push(svg('circle', { class: 'active', cx: x, cy: y, r: r + 6 }));
    made.push(mark(originOf(person, k), point[2], keypointColour(k), x, y, active ? r + 1 : r));
  });
  const hovered = state.keypoint ?? state.hover;
  if (hovered !== null && hovered !== undefined && person.keypoints[hovered] && placed(person.keypoints[hovered]))
    made.push(...keypointLabel(person, hovered, r));
  return made;
}

function ellipses(person) {
  return person.keypoints.flatMap(([x, y, v], k) => {
    const [sx, sy] = person.std[k];
    if (!v || originOf(person, k) !== 'predicted' || !(sx > 0 || sy > 0)) return [];
    const [cx, cy] = toScreen(x, y);
    return [svg('ellipse', { class: 'deviation', cx, cy, rx: ELLIPSE * sx * view.scale, ry: ELLIPSE * sy * view.scale,
                             stroke: keypointColour(k), fill: keypointColour(k) })];
  });
}

function keypointLabel(person, k, r) {
  const [x, y] = toScreen(...person.keypoints[k]);
  const left = x > view.width - 140, name = keypointName(k);
  return [svg('text', { class: 'name', x: x + (left ? -1 : 1) * (r + 10), y: y - r - 5, 'text-anchor': left ? 'end' : 'start' }, name)];
}

function box([x0, y0, x1, y1], kind) {
  const [left, top] = toScreen(x0, y0), [right, bottom] = toScreen(x1, y1);
  const rect = svg('rect', { class: `box ${kind}`, x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top) });
  return [rect, ...HANDLES.map(([u, v]) => svg('rect', {
    class: 'handle', x: left + u * (right - left) - 3.5, y: top + v * (bottom - top) - 3.5, width: 7, height: 7 }))];
}

function label(person, frame, chosen = false) {
  const number = numberOf(person, frame);
  if (number === null) return [];
  const [x, y] = toScreen(person.box[0], person.box[1]), text = String(number), width = 8 + 7 * text.length;
  // Inside of the stage, so that a person who is cut off at the top keeps the number.
  const left = Math.min(view.width - width, Math.max(0, x)), top = Math.min(view.height - 17, Math.max(0, y - 17));
  if (left - x > (person.box[2] - person.box[0]) * view.scale || top - y > (person.box[3] - person.box[1]) * view.scale) return [];
  return [svg('rect', { class: chosen ? 'tag chosen' : 'tag', x: left, y: top, width, height: 16, rx: 3, fill: colourOf(person, frame) }),
          svg('text', { class: 'tagText', x: left + width / 2, y: top + 12, 'text-anchor': 'middle' }, text)];
}

function hints(person) {
  if (!person) return [];
  return [...state.hints].flatMap(([letters, k]) => {
    if (!placed(person.keypoints[k])) return [];
    const [x, y] = toScreen(...person.keypoints[k]), width = 6 + 8 * letters.length;
    return [svg('rect', { class: 'hint', x: x - width / 2, y: y - 8, width, height: 16, rx: 3 }),
            svg('text', { class: 'hintText', x, y: y + 4, 'text-anchor': 'middle' }, letters)];
  });
}

/** The keypoint that is nearest to a place of the stage: {person, k, distance} or null; the selected person's first. */
export function nearestKeypoint(sx, sy, reach) {
  const frame = drawnFrame();
  if (!frame) return null;
  let found = null;
  for (const person of frame.people) {
    const chosen = person.key === state.person;
    if (!chosen && !state.show.others) continue;
    person.keypoints.forEach((point, k) => {
      if (!placed(point) || (!chosen && point[2] === 0)) return;
      const [x, y] = toScreen(point[0], point[1]), distance = Math.hypot(x - sx, y - sy);
      if (distance > reach) return;
      const rank = (chosen ? 0 : 1000) + distance;
      if (!found || rank < found.rank) found = { person: person.key, k, distance, rank };
    });
  }
  return found;
}

/** The part of a box at a place of the stage: {u, v} with 0, 0.5 or 1 (0.5, 0.5: the whole box), or null. */
export function boxPart(given, sx, sy, reach) {
  const [left, top] = toScreen(given[0], given[1]), [right, bottom] = toScreen(given[2], given[3]);
  const handle = HANDLES.find(([u, v]) =>
    Math.abs(left + u * (right - left) - sx) <= reach && Math.abs(top + v * (bottom - top) - sy) <= reach);
  if (handle) return { u: handle[0], v: handle[1] };
  const inX = sx > left - reach && sx < right + reach, inY = sy > top - reach && sy < bottom + reach;
  const near = [sx - left, sx - right].some(d => Math.abs(d) < reach / 2) || [sy - top, sy - bottom].some(d => Math.abs(d) < reach / 2);
  return inX && inY && near ? { u: .5, v: .5 } : null;
}

/** The smallest person whose box holds a place of the stage. */
export function personAt(sx, sy) {
  const [x, y] = toImage(sx, sy), area = p => (p.box[2] - p.box[0]) * (p.box[3] - p.box[1]);
  const inside = (drawnFrame()?.people ?? []).filter(p => x >= p.box[0] && x <= p.box[2] && y >= p.box[1] && y <= p.box[3]);
  return inside.sort((a, b) => area(a) - area(b))[0] ?? null;
}

/** What a keypoint is, in words. */
export function describe(person, k) {
  const [x, y, v] = person.keypoints[k];
  return `${keypointName(k)}: x ${x.toFixed(1)}, y ${y.toFixed(1)}, ${VISIBILITY[v]}, ${originOf(person, k)}`;
}

export { icon };

/** The keypoint under the mouse shows its name. */
export function hover(k) {
  if (state.hover === k) return;
  state.hover = k;
  emit('hover');
}

export const startScene = () => on(['frame', 'picture', 'select', 'view', 'proposal', 'show', 'hover'], draw);
