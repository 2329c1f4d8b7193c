// The dialog of the track id: join with another track, split off a new one, or exchange two.

import { commit, editable, finishKeys } from './actions.js';
import { byId, element, say } from './dom.js';
import { reload } from './navigation.js';
import { selected, state } from './store.js';

/** What a number would mean as the new id, from the tracks of the clip: {text, swap}. */
function meaning(track, to) {
  const other = state.tracks.find(t => t.track === to), { frame } = state.shown;
  if (!Number.isInteger(to)) return { text: 'Give a whole number.' };
  if (to === track) return { text: 'This is the id that it has.' };
  if (!other) return { text: `There is no track ${to}: a new one begins at frame ${frame}.`, swap: false };
  const place = `Track ${to} is seen in frames ${other.first}–${other.last}`;
  const both = state.shown.people.some(p => p.track === to);
  if (both) return { text: `${place}, also in this one: from here on the two ids are exchanged.`, swap: true };
  return { text: `${place}: from here on the two are joined.`, swap: false };
}

/** Ask for the id that the selected person's track has from this frame on. */
export function askTrack() {
  finishKeys();
  const person = selected();
  if (!person) { say('Select a person first: Tab or a number.'); return; }
  if (person.track === null) { say('This person has no track id.'); return; }
  if (!editable()) return;
  const dialog = byId('tracks'), form = dialog.querySelector('form'), { to, until, swap } = form.elements;
  const { frame, input } = state.shown, { track } = person;
  byId('trackOf').textContent = `Track ${track}, from frame ${frame} on`;
  byId('trackIds').replaceChildren(...state.tracks.filter(t => t.track !== track)
    .map(t => element('option', { value: t.track }, `frames ${t.first}–${t.last}`)));
  to.value = Math.max(0, ...state.tracks.map(t => t.track)) + 1;
  until.value = '';
  until.min = frame + 1;
  until.max = state.input.frames;
  let touched = false;
  const explain = () => {
    const found = meaning(track, to.valueAsNumber);
    byId('trackMeaning').textContent = found.text;
    if (!touched) swap.checked = Boolean(found.swap);
    byId('trackOk').disabled = found.swap === undefined;
  };
  swap.onchange = () => { touched = true; };
  to.oninput = explain;
  explain();
  dialog.returnValue = '';
  dialog.showModal();
  to.select();
  dialog.addEventListener('close', () => {
    byId('stage').focus({ preventScroll: true });
    if (dialog.returnValue !== 'ok' || state.shown.frame !== frame || state.shown.input !== input) return;
    change({ track, to: to.valueAsNumber, until: Number.isInteger(until.valueAsNumber) ? until.valueAsNumber : null, swap: swap.checked });
  }, { once: true });
}

async function change({ track, to, until, swap }) {
  const answer = await commit({ op: 'track', track, to, until, ...(swap ? { swap } : {}) });
  await reload(state.input.id);
  if (answer) say(`Track ${track} is ${to} from frame ${answer.edit.frame} on.`);
}
