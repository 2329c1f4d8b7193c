// What other pages change: the server tells it, the frame is read anew, a drag under way goes on.

import { get } from './api.js';
import { printable, say } from './dom.js';
import { forget } from './frames.js';
import { loadInputs } from './inputs.js';
import { loadTracks, refresh } from './navigation.js';
import { emit, state } from './store.js';

const WAIT = 20, PAUSE = 2000;
const WORDS = { keypoints: 'moved keypoints', box: 'changed a box', add: 'added a person', delete: 'deleted a person',
                track: 'changed a track id', accept: 'accepted a person', propagate: 'accepted a proposal', undo: 'undid an edit', redo: 'redid an edit' };

/** Hear of changes for as long as the page is open. */
export async function listen() {
  let since = state.session.seq;
  for (;;) {
    // A browser opens six connections to a server at most: tabs that are not seen must not hold them.
    if (document.hidden) await new Promise(seen => document.addEventListener('visibilitychange', seen, { once: true }));
    try {
      const { seq, edits } = await get('changes', { since, wait: WAIT });
      since = seq;
      await changed(edits);
    } catch (error) {
      await new Promise(done => setTimeout(done, error.temporary ? PAUSE : 5 * PAUSE));
    }
  }
}

async function changed(edits) {
  const others = edits.filter(edit => edit.client !== state.client);
  if (edits.length) loadInputs();
  if (!others.length) return;
  const { shown, input } = state;
  // An undo names its edit only, and a change of ids reaches many frames.
  const wide = others.some(e => !Number.isInteger(e.input) || e.op === 'track' || e.op === 'propagate');
  const here = others.filter(e => !Number.isInteger(e.input) || e.input === input?.id);
  if (wide || !shown) forget();
  else for (const edit of here) forget(input.id, edit.frame);
  if (!here.length || !shown) return;
  if (state.proposal) { state.proposal = null; emit('proposal'); }
  const quiet = await refresh();
  if (input.frames > 1) loadTracks();
  if (!quiet) return;
  const last = here.at(-1), frame = Number.isInteger(last.frame) && input.frames > 1 ? ` in frame ${last.frame}` : '';
  say(`Another page ${WORDS[last.op] ?? printable(last.op)}${frame}.`, 'note');
}
