// What can be done to the selected person and keypoint, by mouse, touch or keys.

import { post } from './api.js';
import { capital, count, say, spans } from './dom.js';
import { edited } from './edits.js';
import { VISIBILITY } from './marks.js';
import { beforeLeaving, loadTracks, reload, show } from './navigation.js';
import { idle, saveEdit, saveOther, takeBack, trouble } from './saving.js';
import { describe } from './scene.js';
import { emit, keypointName, nameOf, personOf, selected, state } from './store.js';
import { reveal } from './view.js';

// Steps by keys become one edit after so long without another one.
const PAUSE = 600;
const round = n => Math.round(n * 100) / 100;

/** Whether edits are possible now; says why not. */
export function editable() {
  if (state.session.read_only) say('This page is read only: another server writes the corrections.', 'bad');
  else if (!state.shown || state.loading) say('Wait for the frame.');
  else return true;
  return false;
}

let added = 0;

/** Make an edit: it is shown at once and saved in the background. Returns a promise of the server's answer. */
export function commit(change) {
  const edit = { ...change, input: state.shown.input, frame: state.shown.frame };
  const temporary = edit.op === 'add' ? `new${++added}` : null;
  state.shown = edited(state.shown, edit, temporary);
  if (state.proposal) {
    state.proposal = null;
    say('The proposal was dropped, since the frame changed.');
    emit('proposal');
  }
  if (temporary) Object.assign(state, { person: temporary, keypoint: 0 });
  emit('frame', 'select');
  const saving = saveEdit(edit, temporary);
  if (edit.op !== 'accept' && state.tracks.length) saving.then(answer => { if (answer) loadTracks(); });
  return saving;
}

export function selectPerson(key) {
  finishKeys();
  const person = personOf(key);
  Object.assign(state, { person: person ? key : null, keypoint: null, hints: null });
  emit('select');
  if (!person) return;
  const facts = [nameOf(person), person.score === null ? '' : `score ${person.score.toFixed(2)}`,
    person.corrected.length ? count(person.corrected.length, 'corrected keypoint') : '', person.accepted ? 'accepted' : ''];
  say(capital(facts.filter(Boolean).join(', ')));
}

/** Select the next or previous person; returns false after the last one, where the focus should move on. */
export function cyclePerson(by) {
  const people = state.shown?.people ?? [], at = people.findIndex(p => p.key === state.person);
  const to = at < 0 ? (by > 0 ? 0 : people.length - 1) : at + by;
  if (to < 0 || to >= people.length) return false;
  selectPerson(people[to].key);
  reveal((people[to].box[0] + people[to].box[2]) / 2, (people[to].box[1] + people[to].box[3]) / 2);
  return true;
}

/** Select a keypoint; by the pointer without moving the picture under it. */
export function selectKeypoint(k, move = true) {
  finishKeys();
  const person = selected();
  if (!person) { say('Select a person first: Tab or a number.'); return; }
  Object.assign(state, { keypoint: k, hints: null });
  emit('select');
  if (k === null) return;
  const [x, y, v] = person.keypoints[k];
  if (move && (v || x || y)) reveal(x, y);
  say(describe(person, k));
}

export function cycleKeypoint(by) {
  const K = state.session.keypoints.names.length;
  selectKeypoint(state.keypoint === null ? (by > 0 ? 0 : K - 1) : (state.keypoint + by + K) % K);
}

/** The place of a keypoint, also where it has none yet: the middle of the person. */
function placeOf(person, k) {
  const [x, y, v] = person.keypoints[k];
  if (v || x || y) return [x, y];
  return [(person.box[0] + person.box[2]) / 2, (person.box[1] + person.box[3]) / 2];
}

export const keypointEdit = (person, k, x, y, v = person.keypoints[k][2] || 2) => ({
  op: 'keypoints', input: state.shown.input, frame: state.shown.frame, person: person.key,
  keypoints: { [k]: [round(x), round(y), v] },
});

let timer = null;

/** Move the selected keypoint by so many pixels; several steps become one edit. */
export function nudge(dx, dy) {
  const person = selected();
  if (!person || state.keypoint === null || !editable()) return;
  const at = state.drag?.byKeys ? state.drag.keypoints[state.keypoint] : placeOf(person, state.keypoint);
  state.drag = { ...keypointEdit(person, state.keypoint, at[0] + dx, at[1] + dy), byKeys: true };
  clearTimeout(timer);
  timer = setTimeout(finishKeys, PAUSE);
  const [x, y] = state.drag.keypoints[state.keypoint];
  reveal(x, y);
  say(`${keypointName(state.keypoint)}: x ${x.toFixed(1)}, y ${y.toFixed(1)}`);
  emit('frame');
}

/** Steps by keys that are not an edit yet become one. */
export function finishKeys() {
  clearTimeout(timer);
  if (state.drag?.byKeys) finishDrag();
}
beforeLeaving.push(finishKeys);

/** The drag under way becomes an edit. */
export function finishDrag() {
  if (!state.drag) return;
  const { byKeys, ...edit } = state.drag;
  state.drag = null;
  commit(edit);
  const person = selected();
  if (edit.op === 'keypoints' && person && state.keypoint !== null) say(describe(person, state.keypoint));
  if (edit.op === 'box') say(`Box of ${nameOf(person)} changed.`);
}

/** Put the selected keypoint at a place and select the next one. */
export function placeKeypoint(x, y) {
  finishKeys();
  const person = selected();
  if (!person || state.keypoint === null || !editable()) return;
  commit(keypointEdit(person, state.keypoint, x, y));
  if (state.keypoint + 1 < state.session.keypoints.names.length) selectKeypoint(state.keypoint + 1);
}

export function setVisibility(v) {
  finishKeys();
  const person = selected();
  if (!person || state.keypoint === null) { say('Select a keypoint first: K, J or L.'); return; }
  if (!editable()) return;
  const [x, y] = placeOf(person, state.keypoint);
  if (person.keypoints[state.keypoint][2] !== v || !person.corrected.includes(state.keypoint))
    commit(keypointEdit(person, state.keypoint, x, y, v));
  say(`${keypointName(state.keypoint)}: ${VISIBILITY[v]}`);
}

export function cycleVisibility() {
  const v = selected()?.keypoints[state.keypoint]?.[2];
  setVisibility(v === undefined ? 0 : (v + 2) % 3);
}

/** Delete the selected keypoint (not labelled), or the person where none is selected. */
export function remove() {
  if (state.keypoint !== null) { setVisibility(0); return; }
  removePerson();
}

export function removePerson() {
  finishKeys();
  const person = selected();
  if (!person) { say('Select a person first: Tab or a number.'); return; }
  if (!editable()) return;
  const name = nameOf(person);
  Object.assign(state, { person: null, keypoint: null });
  commit({ op: 'delete', person: person.key });
  say(`Deleted ${name}. U takes it back.`);
}

export function accept() {
  finishKeys();
  const person = selected();
  if (!person) { say('Select a person first: Tab or a number.'); return false; }
  if (person.accepted) return true;
  if (!editable()) return false;
  commit({ op: 'accept', person: person.key });
  say(`Accepted ${nameOf(person)}.`);
  return true;
}

async function takeStep(path, nothing) {
  finishKeys();
  if (!editable()) return;
  if (path === 'undo' && takeBack()) { await reload(); say('Taken back before it was saved.'); return; }
  const answer = await saveOther(path, {});
  if (!answer) return;
  if (!answer.edit) { say(nothing); return; }
  await reload();
  loadTracks();
  const frame = typeof answer.frame === 'object' ? answer.frame?.frame : answer.frame, input = answer.input;
  if (Number.isInteger(frame) && (state.shown.frame !== frame || state.shown.input !== input)) await show(input, frame);
  say(path === 'undo' ? 'Undone. Ctrl+Shift+Z does it again.' : 'Done again.');
}

export const undo = () => takeStep('undo', 'There is nothing to undo.');
export const redo = () => takeStep('redo', 'There is nothing to redo.');

/** Write coco_corrected.json. */
export async function finish() {
  finishKeys();
  try {
    const { path, people } = await post('finish', {});
    say(`Wrote ${path}: ${count(people, 'person', 'people')}.`);
  } catch (error) {
    say(`coco_corrected.json was not written: ${error.message}`, 'bad');
  }
}

// ---- what the smoother makes of corrections ----

/** Ask what would change in the frames around the corrections of the selected person. */
export async function propose() {
  finishKeys();
  const person = selected();
  if (!person || person.track === null) { say('Select a person with a track id first.'); return; }
  if (!editable()) return;
  if (!person.corrected.length && !state.tracks.find(t => t.track === person.track)?.corrected.length) {
    say('Correct a keypoint of this track first; the frames around it can then follow.');
    return;
  }
  // The server propagates what it has.
  await idle();
  if (trouble.offline) { say('Edits are not saved yet; the frames can follow them later.', 'bad'); return; }
  try {
    const input = state.input.id, answer = await post('propagate', { client: state.client, input, track: person.track });
    if (state.input.id !== input) return;
    state.proposal = { ...answer, input, track: person.track };
    if (answer.frames.length) say(`${count(answer.frames.length, 'frame')} would change: ${spans(answer.frames)}.`);
    else { state.proposal = null; say('No other frame would change.'); }
    emit('proposal', 'frame');
  } catch (error) {
    say(`No proposal: ${error.message}`, 'bad');
  }
}

export async function acceptProposal() {
  const { proposal, frames, track } = state.proposal ?? {};
  if (!proposal || !editable()) return;
  state.proposal = null;
  emit('proposal', 'frame');
  const answer = await saveOther('propagate/accept', { proposal });
  if (!answer) return;
  await reload(state.input.id);
  loadTracks();
  say(`Accepted: ${count(frames.length, 'frame')} of track ${track} changed.`);
}

export function dropProposal() {
  state.proposal = null;
  emit('proposal', 'frame');
  say('Nothing was changed.');
}

/** The next or previous frame that the proposal changes. */
export function stepProposal(by) {
  const frames = state.proposal?.frames ?? [];
  const to = by > 0 ? frames.find(f => f > state.frame) : frames.findLast(f => f < state.frame);
  if (to !== undefined) show(state.input.id, to);
}
