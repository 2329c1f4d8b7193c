// The list of people by need, with the reasons in words.

import { get } from './api.js';
import { accept } from './actions.js';
import { bringIntoList, byId, clicked, count, element, fillList, printable, say, short } from './dom.js';
import { show } from './navigation.js';
import { on, state } from './store.js';
import { bringNear } from './view.js';

const PAGE = 50;

const WORDS = {
  deviation: ['unsure positions', 'The predicted deviations are large for the size of the person.'],
  scores: ['low scores', 'The scores of the keypoints are low.'],
  swap: ['left and right swapped?', 'Left and right may be exchanged.'],
  jump: ['jumps', 'The position jumps against the frames around it.'],
};

const list = { rows: [], total: 0, reason: '', at: -1, loading: null };
// Needs that were seen to on this page: their keys.
const seen = new Set();

const keyOf = need => `${need.input}/${need.frame}/${need.person}`;
const wordsOf = reason => WORDS[reason] ?? [reason.replaceAll('_', ' '), ''];

async function more() {
  if (list.loading) return list.loading;
  const { reason } = list;
  list.loading = (async () => {
    try {
      const { total, needs } = await get('needs', { offset: list.rows.length, limit: PAGE, reason });
      if (list.reason !== reason) return;
      list.total = total;
      list.rows.push(...needs);
      draw();
    } catch (error) {
      byId('needCount').textContent = 'The list could not be read.';
      say(`The list of people to check could not be read: ${error.message}`, 'bad');
    } finally {
      list.loading = null;
    }
  })();
  return list.loading;
}

/** Read the list from its start. */
export async function loadNeeds(reason = list.reason) {
  Object.assign(list, { rows: [], total: 0, reason, at: -1, loading: null });
  byId('needList').replaceChildren();
  byId('needCount').textContent = 'Looking for people to check…';
  await more();
}

function reasonsOf(need) {
  const given = Object.entries(need.reasons ?? {}).filter(([, value]) => value >= 0.5).sort((a, b) => b[1] - a[1]);
  return given.slice(0, 3).map(([reason, value]) => {
    const [words, sentence] = wordsOf(reason);
    return element('span', { className: value >= 1 ? 'reason strong' : 'reason', title: `${sentence} ${value.toFixed(2)}; 1 is unusual.` }, printable(words));
  });
}

function draw() {
  byId('needCount').textContent = list.total ? `${count(list.total, 'person', 'people')}, ${list.rows.filter(need => seen.has(keyOf(need))).length} seen to` : 'No people to check.';
  fillList(byId('needList'), list.rows.map((need, i) => {
    const row = /^p(\d+)$/.exec(need.person);
    const where = need.track !== null ? `, person ${need.track}` : row ? `, person ${Number(row[1]) + 1}` : '';
    const clip = state.input?.id === need.input ? state.input.frames > 1 : need.frame > 0 || need.track !== null;
    const item = element('button', { type: 'button', className: 'item' },
      element('span', { className: 'name', title: printable(need.name) }, short(need.name, 64)),
      element('span', { className: 'facts' }, `${clip ? `frame ${need.frame}` : 'photo'}${where}`, seen.has(keyOf(need)) ? ' ✓' : ''),
      element('span', { className: 'reasons' }, ...reasonsOf(need)));
    if (i === list.at) item.setAttribute('aria-current', 'true');
    item.addEventListener('click', () => go(i));
    return element('li', {}, item);
  }));
  byId('needMore').hidden = list.rows.length >= list.total;
}

async function go(i) {
  const need = list.rows[i];
  list.at = i;
  draw();
  bringIntoList(byId('needList'), byId('needList').children[i]);
  byId('stage').focus({ preventScroll: true });
  await show(need.input, need.frame, need.person);
  const person = state.shown?.people.find(p => p.key === need.person);
  if (!person || state.shown.frame !== need.frame) return;
  bringNear(person.box);
  const reasons = reasonsOf(need).map(e => e.textContent);
  say(`To check ${i + 1} of ${list.total}: ${short(need.name)}${state.input.frames > 1 ? `, frame ${need.frame}` : ''}${reasons.length ? `: ${reasons.join(', ')}` : ''}`);
}

/** Go to the next or previous person of the list. */
export async function nextNeed(by) {
  const to = list.at + by;
  if (to >= list.rows.length && list.rows.length < list.total) await more();
  if (to < 0 || to >= list.rows.length) { say(by > 0 ? 'This was the last one to check.' : 'This is the first one to check.'); return; }
  await go(to);
}

/** Accept the selected person and go on. */
export async function acceptAndNext() {
  if (accept()) await nextNeed(1);
}

/** The first frame to show: that of the greatest need; returns whether there is one. */
export async function firstNeed() {
  if (!list.rows.length) return false;
  await go(0);
  return true;
}

/** Mark who was changed or accepted in the frame on the screen. */
function mark() {
  const before = seen.size;
  for (const p of state.shown?.people ?? [])
    if (p.accepted || p.corrected.length) seen.add(`${state.shown.input}/${state.shown.frame}/${p.key}`);
  if (seen.size !== before) draw();
}

export function startNeeds() {
  const select = byId('needReason');
  select.append(...Object.entries(WORDS).map(([reason, [words]]) => element('option', { value: reason }, words)));
  select.addEventListener('change', () => loadNeeds(select.value));
  byId('needMore').addEventListener('click', more);
  clicked(byId('needAgain'), () => loadNeeds());
  on(['frame'], mark);
}
