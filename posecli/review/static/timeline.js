// The bar below the picture: the frames of a clip, who is seen when, what is corrected, what a proposal changes.

import { byId } from './dom.js';
import { show, step } from './navigation.js';
import { selected, state, on } from './store.js';

// Tracks with a line of their own; the others are in one more.
const MOST = 6;
const LINE = 7, GAP = 3;

const clock = s => `${Math.floor(s / 60)}:${(s % 60).toFixed(2).padStart(5, '0')}`;

function times() {
  const { input, shown } = state, slider = byId('scrub');
  byId('timeline').hidden = !input || input.frames < 2;
  if (!input) return;
  slider.max = input.frames - 1;
  slider.value = state.frame;
  const time = shown?.frame === state.frame && shown.time_s !== null ? `, ${clock(shown.time_s)}` : '';
  slider.setAttribute('aria-valuetext', `frame ${state.frame} of ${input.frames - 1}${time}`);
  byId('frameNumber').value = state.frame;
  byId('frameNumber').max = input.frames - 1;
  byId('frameOf').textContent = `of ${input.frames - 1}${time}`;
  cursor();
}

/** Tracks that get a line: the selected one, those in the frame, the longest ones. */
function shownTracks() {
  const mine = selected()?.track, here = new Set(state.shown?.people.map(p => p.track));
  const rank = t => (t.track === mine ? 4e9 : 0) + (here.has(t.track) ? 2e9 : 0) + t.frames;
  const first = [...state.tracks].sort((a, b) => rank(b) - rank(a)).slice(0, MOST);
  return first.sort((a, b) => (b.track === mine) - (a.track === mine) || a.track - b.track);
}

function lanes() {
  const canvas = byId('lanes'), { input } = state;
  if (!input || input.frames < 2) return;
  const tracks = shownTracks(), width = canvas.clientWidth, height = (tracks.length + 1) * (LINE + GAP);
  canvas.style.height = `${height}px`;
  canvas.width = width * devicePixelRatio;
  canvas.height = height * devicePixelRatio;
  const context = canvas.getContext('2d'), css = name => getComputedStyle(canvas).getPropertyValue(name);
  context.scale(devicePixelRatio, devicePixelRatio);
  const x = f => width * f / input.frames, w = n => Math.max(1.5, x(n));
  tracks.forEach((t, i) => {
    const y = i * (LINE + GAP), colours = state.session.id_colors, mine = t.track === selected()?.track;
    context.fillStyle = css('--track');
    context.fillRect(0, y, width, LINE);
    context.globalAlpha = mine ? 1 : .55;
    context.fillStyle = colours[(((t.track - 1) % colours.length) + colours.length) % colours.length];
    context.fillRect(x(t.first), y, w(t.last - t.first + 1), LINE);
    context.globalAlpha = 1;
    context.fillStyle = css('--text');
    for (const f of t.corrected) context.fillRect(x(f + .5) - 1.25, y - 1, 2.5, LINE + 2);
  });
  const y = tracks.length * (LINE + GAP);
  context.fillStyle = css('--propagated');
  for (const f of state.proposal?.frames ?? []) context.fillRect(x(f), y, w(1), LINE - 2);
  byId('lanesNote').textContent = [
    state.tracks.length > tracks.length ? `${tracks.length} of ${state.tracks.length} tracks` : '',
    tracks.some(t => t.corrected.length) ? 'marks: corrected frames' : '',
    state.proposal ? 'below: frames of the proposal' : ''].filter(Boolean).join(' · ');
  cursor();
}

function cursor() {
  const { input } = state;
  if (input) byId('now').style.left = `${100 * (state.frame + .5) / input.frames}%`;
}

let asked = false;

/** While the slider is dragged the newest frame is shown when the one before is there. */
async function scrub() {
  if (asked) return;
  asked = true;
  const slider = byId('scrub');
  while (slider.valueAsNumber !== state.frame) await show(state.input.id, slider.valueAsNumber);
  asked = false;
}

export function startTimeline() {
  byId('scrub').addEventListener('input', scrub);
  byId('frameNumber').addEventListener('change', event => {
    if (Number.isInteger(event.target.valueAsNumber)) show(state.input.id, event.target.valueAsNumber);
    else times();
  });
  byId('frameNumber').addEventListener('keydown', event => {
    // The change comes first, by leaving the field.
    if (event.key === 'Enter') byId('stage').focus({ preventScroll: true });
  });
  const canvas = byId('lanes');
  const seek = event => {
    const box = canvas.getBoundingClientRect(), share = (event.clientX - box.left) / box.width;
    byId('scrub').value = Math.floor(share * state.input.frames);
    scrub();
  };
  canvas.addEventListener('pointerdown', event => { canvas.setPointerCapture(event.pointerId); seek(event); });
  canvas.addEventListener('pointermove', event => { if (canvas.hasPointerCapture(event.pointerId)) seek(event); });
  byId('before').addEventListener('click', () => step(-1));
  byId('after').addEventListener('click', () => step(1));
  on(['input', 'frame', 'position'], times);
  on(['input', 'tracks', 'select', 'proposal'], lanes);
  new ResizeObserver(lanes).observe(canvas.parentElement);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', lanes);
}
