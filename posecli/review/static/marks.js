// Shapes of keypoints: the shape says where a position comes from, the filling whether it is visible.

import { svg } from './dom.js';
import { state } from './store.js';

export const VISIBILITY = ['not labelled', 'hidden', 'visible'];
const OTHER = '#b2b2be';

export const originOf = (person, k) =>
  person.corrected.includes(k) ? 'corrected' : person.propagated.includes(k) ? 'propagated' : 'predicted';

const fixed = n => n.toFixed(2);

const SHAPES = {
  predicted: (x, y, r) => `M${fixed(x - r)} ${fixed(y)}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`,
  corrected: (x, y, r) => { const d = 0.95 * r; return `M${fixed(x - d)} ${fixed(y - d)}h${2 * d}v${2 * d}h${-2 * d}z`; },
  propagated: (x, y, r) => `M${fixed(x)} ${fixed(y - 1.35 * r)}l${1.25 * r} ${2.15 * r}h${-2.5 * r}z`,
};
const CROSS = (x, y, r) => { const d = 0.75 * r; return `M${fixed(x - d)} ${fixed(y - d)}l${2 * d} ${2 * d}m${-2 * d} 0l${2 * d} ${-2 * d}`; };

/** The mark of a keypoint at a place of the screen: an SVG path; r in CSS pixels. */
export function mark(origin, visibility, colour, x, y, r) {
  const classes = `mark ${origin} v${visibility}`;
  const d = visibility === 0 ? CROSS(x, y, r) : SHAPES[origin](x, y, r);
  const attributes = visibility === 2 ? { fill: colour } : visibility === 1 ? { stroke: colour } : {};
  return svg('path', { class: classes, d, ...attributes });
}

/** A small picture of the mark, for lists. */
export const icon = (origin, visibility, colour) => svg('svg', { class: 'icon', viewBox: '0 0 16 16', 'aria-hidden': 'true' },
  mark(origin, visibility, colour, 8, 8, 4.5));

export const keypointColour = k => state.session.keypoints.colors[k] ?? OTHER;

/** A limb has the colour of its ends where they agree, or of the one that has a side. */
export function limbColour([a, b]) {
  const { colors, mirrors } = state.session.keypoints;
  if (colors[a] === colors[b]) return colors[a];
  const sided = [a, b].filter(k => mirrors[k] !== k);
  return sided.length === 1 ? colors[sided[0]] : colors[[a, b].find(k => mirrors[k] === k)] ?? OTHER;
}
