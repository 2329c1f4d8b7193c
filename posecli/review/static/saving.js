// Edits on their way to the journal: sent one after another, shown at once, kept until they are saved.

import { get, post } from './api.js';
import { say } from './dom.js';
import { checkedFrame, edited } from './edits.js';
import { forget, keep } from './frames.js';
import { emit, state } from './store.js';

const RETRY = 3000;

/**
 * What waits: {path, body, edit, input, name, temporary, status, error}. status: waiting, sending, unsure (sent, but no
 * answer came), refused, found (left by a page that was closed).
 */
export const queue = [];
let sending = false, timer = null, saved = 0;
export const trouble = { offline: false, message: '' };

const storageName = client => `posecli-review:${state.session.out}:${client}`;

function remember() {
  const rows = queue.map(({ answered, ...row }) => row);
  try {
    if (rows.length) localStorage.setItem(storageName(state.client), JSON.stringify(rows));
    else localStorage.removeItem(storageName(state.client));
  } catch { /* no storage: the edits are kept in this page only */ }
  emit('saving');
}

/** Queue a request; the promise gives the server's answer, or null where it was refused or dropped. */
function enqueue(row) {
  return new Promise(answered => {
    queue.push({ status: 'waiting', error: '', ...row, answered });
    remember();
    send();
  });
}

export const saveEdit = (edit, temporary = null) => enqueue({
  path: 'edit', body: { client: state.client, edit }, edit, input: edit.input, name: state.input.name, temporary });

export const saveOther = (path, body) => enqueue({ path, body: { client: state.client, ...body }, edit: null });

/** Take back the last edit where it has not been sent; returns whether there was one. */
export function takeBack() {
  const last = queue.findLastIndex(row => row.edit && row.status !== 'found');
  if (last < 0 || queue[last].status !== 'waiting') return false;
  drop(queue[last]);
  return true;
}

/** A frame of the server with what is not saved yet. */
export function withUnsaved(frame) {
  for (const row of queue)
    if (row.edit && row.input === frame.input && ['waiting', 'sending', 'unsure'].includes(row.status))
      frame = edited(frame, row.edit, row.temporary);
  return frame;
}

const next = () => queue.find(row => row.status === 'waiting' || row.status === 'unsure');

async function send() {
  if (sending || trouble.offline) return;
  sending = true;
  try {
    for (let row = next(); row; row = next()) await sendOne(row);
    if (trouble.message) say('Saved.');
    trouble.message = '';
  } catch (error) {
    wait(error);
  }
  sending = false;
  for (const done of idlers.splice(0)) done();
  emit('saving');
}

const idlers = [];

/** Resolves when nothing is on its way any more; what is then left could not be saved. */
export const idle = () => sending ? new Promise(done => idlers.push(done)) : Promise.resolve();

async function sendOne(row) {
  const unsure = row.status === 'unsure';
  row.status = 'sending';
  emit('saving');
  try {
    const answer = (unsure && await alreadySaved(row)) || await post(row.path, row.body);
    queue.splice(queue.indexOf(row), 1);
    settle(row, answer);
    row.answered?.(answer);
  } catch (error) {
    // Status 0: the request may have arrived before the server ended.
    if (error.temporary || error.status === 401 || error.status === 403) {
      row.status = error.status === 0 ? 'unsure' : 'waiting';
      remember();
      throw error;
    }
    Object.assign(row, { status: 'refused', error: error.message });
    say(`Not saved: ${error.message}`, 'bad');
    row.answered?.(null);
    emit('refused');
  }
  remember();
}

/** Whether the journal has what was sent without an answer: edits of this tab after the last one that is known. */
async function alreadySaved(row) {
  const { edits } = await get('changes', { since: saved, wait: 0 });
  const found = edits.find(edit => edit.client === state.client && edit.seq > saved);
  if (!found) return null;
  forget();
  return { seq: found.seq, edit: row.edit ? found : null, frame: null };
}

function settle(row, answer) {
  saved = Math.max(saved, answer.seq ?? 0);
  if (!row.edit) return;
  if (row.temporary) {
    const key = `a${answer.seq}`;
    for (const other of queue) if (other.edit?.person === row.temporary) other.edit.person = other.body.edit.person = key;
    if (state.person === row.temporary) state.person = key;
    if (state.drag?.person === row.temporary) state.drag.person = key;
    emit('select');
  }
  if (answer.frame) keep(checkedFrame(answer.frame, state.session.keypoints.names.length));
  emit('saved');
}

function wait(error) {
  const again = error.status === 401 || error.status === 403;
  Object.assign(trouble, { offline: true, message: again
    ? 'the server was started anew: open the address that it printed; edits are kept'
    : `${error.message}; edits are kept and sent again` });
  say(`Not saved: ${trouble.message}`, 'bad');
  clearTimeout(timer);
  timer = setTimeout(retry, RETRY);
}

/** Try again what could not be sent. */
export function retry() {
  clearTimeout(timer);
  trouble.offline = false;
  send();
}

/** Try again one edit that was refused, or that an earlier page left. */
export function retryRow(row) {
  row.status = 'waiting';
  remember();
  retry();
}

/** Give up an edit that is not saved. */
export function drop(row) {
  queue.splice(queue.indexOf(row), 1);
  row.answered?.(null);
  // What was done to a person that is never added cannot be saved either.
  if (row.temporary) for (const other of queue.filter(o => o.edit?.person === row.temporary)) drop(other);
  remember();
  emit('saved');
}

/** The name of this tab: kept over a reload, but not shared with a tab that was duplicated. */
export async function startClient() {
  const kept = sessionStorage.getItem('posecli-client');
  state.client = kept && await hold(kept) ? kept : crypto.randomUUID().slice(0, 13);
  if (state.client !== kept) await hold(state.client);
  sessionStorage.setItem('posecli-client', state.client);
}

// A lock that the browser gives back when the page ends.
const hold = name => new Promise(resolve => {
  if (!navigator.locks) { resolve(true); return; }
  navigator.locks.request(`posecli-${name}`, { ifAvailable: true }, lock => {
    resolve(lock !== null);
    return lock ? new Promise(() => {}) : undefined;
  });
});

/** Find what pages that were closed could not save; it waits for a decision. */
export async function findLeft() {
  saved = state.session.seq;
  const prefix = storageName('');
  for (const name of Object.keys(localStorage).filter(n => n.startsWith(prefix))) {
    const client = name.slice(prefix.length);
    if (client !== state.client && !await hold(client)) continue;
    let rows = [];
    try { rows = JSON.parse(localStorage.getItem(name)); } catch { /* not ours */ }
    localStorage.removeItem(name);
    for (const row of Array.isArray(rows) ? rows : []) await adopt(row);
  }
  remember();
}

async function adopt(row) {
  if (!row.edit || typeof row.name !== 'string') return;
  // Numbers of inputs may differ on another server.
  const { inputs } = await get('inputs', { search: row.name, limit: 100 });
  const input = inputs.find(i => i.name === row.name);
  if (!input) return;
  const edit = { ...row.edit, input: input.id };
  queue.push({ path: 'edit', body: { client: state.client, edit }, edit, input: input.id, name: input.name,
               temporary: row.temporary ?? null, status: 'found', error: 'left by a page that was closed' });
}
