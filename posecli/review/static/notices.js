// What stands above the picture: edits that are not saved, and the proposal of the smoother.

import { acceptProposal, dropProposal, stepProposal } from './actions.js';
import { byId, button, count, element, printable, short, spans } from './dom.js';
import { refresh, reload } from './navigation.js';
import { drop, queue, retry, retryRow, trouble } from './saving.js';
import { personOf, on, state } from './store.js';

const OPS = { keypoints: 'Keypoints of', box: 'Box of', add: 'Added', delete: 'Deletion of', accept: 'Acceptance of', track: 'Track id of' };

function sentence(row) {
  const { edit } = row;
  if (!edit) return row.path === 'propagate/accept' ? 'Accepted proposal' : row.path;
  const who = edit.op === 'track' ? `track ${edit.track}` : edit.op === 'add' ? 'person' : `person ${edit.person}`;
  return `${OPS[edit.op] ?? edit.op} ${who}, frame ${edit.frame} of ${short(row.name)}`;
}

function saving() {
  const place = byId('saving'), waiting = queue.filter(r => r.status !== 'refused' && r.status !== 'found');
  const stuck = queue.filter(r => r.status === 'refused' || r.status === 'found');
  place.textContent = trouble.offline ? `${count(waiting.length, 'edit')} not saved` : waiting.length ? 'Saving…' : stuck.length ? '' : 'All saved';
  place.className = trouble.offline ? 'bad' : '';
  const box = byId('unsaved');
  box.hidden = !stuck.length && !trouble.offline;
  if (box.hidden) return;
  const lines = stuck.slice(0, 5).map(row => element('p', {},
    element('span', { className: 'words' }, element('b', {}, 'Not saved: '), `${sentence(row)} (${printable(row.error)})`),
    button(row.status === 'found' ? 'Save' : 'Try again', () => { retryRow(row); refresh(); }), button('Drop', () => drop(row))));
  if (stuck.length > 5) lines.push(element('p', {}, `and ${stuck.length - 5} more`));
  if (trouble.offline) lines.unshift(element('p', {},
    element('span', { className: 'words' }, element('b', {}, `${count(waiting.length, 'edit')} not saved: `), printable(trouble.message)),
    button('Try now', retry)));
  box.replaceChildren(...lines);
}

function proposal() {
  const box = byId('proposal'), given = state.proposal;
  box.hidden = !given;
  if (!given) return;
  const here = given.values[state.shown?.frame] ?? {};
  const moves = Object.entries(here).flatMap(([key, points]) => {
    const person = personOf(key);
    return person ? Object.entries(points).map(([k, [x, y]]) => Math.hypot(x - person.keypoints[k][0], y - person.keypoints[k][1])) : [];
  });
  const text = moves.length ? `This frame: ${count(moves.length, 'keypoint')}, moved by up to ${Math.max(...moves).toFixed(1)} pixels.` : 'This frame stays as it is.';
  const turn = (label, by) => button(label, () => stepProposal(by), { 'aria-label': by > 0 ? 'Next changed frame' : 'Previous changed frame' });
  box.replaceChildren(element('p', {},
    element('span', { className: 'words' },
      element('span', {}, element('b', {}, `Proposal: ${count(given.frames.length, 'frame')} would change`), ` (${spans(given.frames)})`),
      element('span', {}, text)),
    turn('←', -1), turn('→', 1), button('Accept', acceptProposal, { className: 'main' }), button('Go on without', dropProposal)));
}

export function startNotices() {
  on(['saving'], saving);
  on(['proposal', 'frame'], proposal);
  // A refused or dropped edit is no longer shown in the frame; a saved one is shown as the server has it.
  on(['refused'], () => reload());
  on(['saved'], refresh);
  addEventListener('beforeunload', event => { if (queue.some(r => r.status !== 'found')) event.preventDefault(); });
}
