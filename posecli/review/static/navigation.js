// Which input and which frame is shown.

import { get } from './api.js';
import { byId, capital, count, say, short } from './dom.js';
import { frameState, forget, onlyNear, picture, prefetch } from './frames.js';
import { withUnsaved } from './saving.js';
import { emit, personOf, selected, state } from './store.js';
import { setPicture, tooCoarse, wantedWidth } from './view.js';

let turn = 0;
// Called before the frame changes: a change by keys that is not an edit yet becomes one.
export const beforeLeaving = [];

/** Show a frame of an input; person: key of the person to select. Resolves when it is on the screen. */
export async function show(inputId, frame, person = null) {
  for (const finish of beforeLeaving) finish();
  const mine = ++turn;
  state.loading = true;
  try {
    if (state.input?.id !== inputId) {
      const input = await findInput(inputId);
      if (mine !== turn) return;
      Object.assign(state, { input, tracks: [], proposal: null, person: null, keypoint: null });
      loadTracks();
      emit('input', 'tracks', 'proposal', 'select');
    }
    state.frame = Math.min(state.input.frames - 1, Math.max(0, frame));
    emit('position');
    await load(mine, person);
  } catch (error) {
    if (mine !== turn) return;
    fail(error);
  } finally {
    if (mine === turn) state.loading = false;
  }
}

async function findInput(id) {
  // Ids are places in the list, so that one row suffices.
  const { inputs } = await get('inputs', { offset: id, limit: 1 });
  const found = inputs.find(i => i.id === id);
  if (!found) throw new Error(`there is no input ${id}`);
  return found;
}

async function load(mine, person) {
  const { input, frame } = state, direction = Math.sign(frame - (state.shown?.input === input.id ? state.shown.frame : -1)) || 1;
  const width = wantedWidth(state.shown?.input === input.id ? undefined : input);
  onlyNear(input.id, frame);
  let problem = null;
  const [people, bitmap] = await Promise.all([
    frameState(input.id, frame), picture(input.id, frame, width).catch(error => { problem = error; return null; })]);
  if (mine !== turn) return;
  const track = state.shown?.input === input.id ? selected()?.track ?? null : null;
  const keypoint = state.keypoint;
  state.shown = withUnsaved(people);
  setPicture(bitmap, state.shown);
  byId('failure').hidden = true;
  choose(person, track, keypoint);
  emit('frame');
  remember();
  if (input.frames > 1) say(`Frame ${frame} of ${input.frames - 1}, ${count(state.shown.people.length, 'person', 'people')}`);
  else say(`${short(input.name)}, ${count(state.shown.people.length, 'person', 'people')}`);
  if (problem) fail(problem, 'The picture of ');
  prefetch(input.id, frame, direction, input.frames, width);
}

/** Select the person that was asked for, or the one of the same track. */
function choose(person, track, keypoint) {
  const same = track === null ? null : state.shown.people.find(p => p.track === track);
  const found = personOf(person) ?? same ?? null;
  state.person = found?.key ?? null;
  state.keypoint = found && found === same ? keypoint : null;
  emit('select');
}

/** Say on the stage what could not be read; people are shown without their picture, too. */
function fail(error, what = '') {
  const place = byId('failure');
  const frame = state.input?.frames > 1 ? `frame ${state.frame} of ` : '';
  place.textContent = capital(`${what}${frame}${short(state.input?.name ?? 'the input')} cannot be shown: ${error.message}`);
  place.hidden = false;
  say(place.textContent, 'bad');
}

function remember() {
  history.replaceState(null, '', `#input=${state.input.id}&frame=${state.frame}`);
}

/** The frame of the address: {input, frame}, or null. */
export function remembered() {
  const given = new URLSearchParams(location.hash.slice(1)), [input, frame] = ['input', 'frame'].map(n => given.get(n));
  return /^\d{1,9}$/.test(input) && /^\d{1,9}$/.test(frame) ? { input: Number(input), frame: Number(frame) } : null;
}

/** Step by frames. While a key is held down the next step waits for the frame before, so that each one is seen. */
export function step(by, held = false) {
  if (!state.input || (held && state.loading)) return;
  const to = Math.min(state.input.frames - 1, Math.max(0, state.frame + by));
  if (to !== state.frame) show(state.input.id, to);
  else say(by > 0 ? 'This is the last frame.' : 'This is the first frame.');
}

/** The next or previous input. */
export async function stepInput(by) {
  if (!state.input) return;
  const id = state.input.id + by;
  if (id < 0 || id >= state.session.inputs) say(by > 0 ? 'This is the last input.' : 'This is the first input.');
  else await show(id, 0);
}

/** Read the people of the frame on the screen anew; a drag under way goes on. Returns whether it could. */
export async function refresh() {
  const mine = turn, { input, frame } = state.shown ?? {};
  if (input === undefined) return true;
  try {
    const people = await frameState(input, frame);
    if (mine !== turn || state.shown.frame !== frame || state.shown.input !== input) return true;
    state.shown = withUnsaved(people);
    if (state.person && !selected()) Object.assign(state, { person: null, keypoint: null });
    const lost = state.drag && !personOf(state.drag.person);
    if (lost) {
      state.drag = null;
      say('Another page deleted the person that you were changing.', 'bad');
    }
    emit('frame', 'select');
    return !lost;
  } catch (error) {
    say(`The frame could not be read again: ${error.message}`, 'bad');
    return false;
  }
}

export async function loadTracks() {
  const input = state.input;
  if (input.frames < 2) return;
  try {
    const { tracks } = await get('tracks', { input: input.id });
    if (state.input !== input) return;
    state.tracks = tracks;
    emit('tracks');
  } catch (error) {
    say(`The tracks could not be read: ${error.message}`, 'bad');
  }
}

/** People, tracks and everything else that is kept is out of date. */
export function reload(input = null, frame = null) {
  forget(input, frame);
  return refresh();
}

let finer = null;

/** When the zoom asks for more pixels than were loaded, load the frame in full. */
export function sharpen() {
  clearTimeout(finer);
  if (!tooCoarse()) return;
  finer = setTimeout(async () => {
    const mine = turn, { input, frame } = state.shown;
    try {
      const bitmap = await picture(input, frame, wantedWidth());
      if (mine === turn && tooCoarse()) setPicture(bitmap, state.shown);
    } catch { /* the coarse picture stays */ }
  }, 150);
}
