// The list of inputs, in pages and by name.

import { get } from './api.js';
import { byId, count, element, fillList, printable, say, short } from './dom.js';
import { show } from './navigation.js';
import { on, state } from './store.js';

const PAGE = 100;
const list = { rows: [], total: 0, search: '', offset: 0 };
let turn = 0;

/** Read the page of the list that is shown. */
export async function loadInputs() {
  const mine = ++turn;
  try {
    const { total, inputs } = await get('inputs', { offset: list.offset, limit: PAGE, search: list.search });
    if (mine !== turn) return;
    Object.assign(list, { rows: inputs, total });
    draw();
  } catch (error) {
    say(`The list of inputs could not be read: ${error.message}`, 'bad');
  }
}

function draw() {
  fillList(byId('inputList'), list.rows.map(input => {
    const facts = [count(input.people, input.frames > 1 ? 'pose' : 'person', input.frames > 1 ? 'poses' : 'people')];
    if (input.frames > 1) facts.unshift(count(input.frames, 'frame'));
    if (input.edits) facts.push(count(input.edits, 'edit'));
    const item = element('button', { type: 'button', className: 'item' },
      element('span', { className: 'name', title: printable(input.name) }, short(input.name, 64)),
      element('span', { className: 'facts' }, facts.join(' · ')));
    if (input.id === state.input?.id) item.setAttribute('aria-current', 'true');
    item.addEventListener('click', () => {
      byId('stage').focus({ preventScroll: true });
      show(input.id, 0);
    });
    return element('li', {}, item);
  }));
  const last = list.offset + list.rows.length;
  byId('inputCount').textContent = !list.total ? 'No input has this name.'
    : list.total > list.rows.length ? `${list.offset + 1}–${last} of ${list.total.toLocaleString('en')}` : count(list.total, 'input');
  byId('inputPages').hidden = list.total <= PAGE;
  byId('inputsBefore').disabled = list.offset === 0;
  byId('inputsAfter').disabled = last >= list.total;
}

const turnPage = by => {
  list.offset = Math.max(0, list.offset + by * PAGE);
  loadInputs();
};

export function startInputs() {
  let timer = null;
  byId('inputSearch').addEventListener('input', event => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      Object.assign(list, { search: event.target.value, offset: 0 });
      loadInputs();
    }, 200);
  });
  byId('inputSearch').addEventListener('keydown', event => {
    if (event.key === 'Enter') byId('inputList').querySelector('.item')?.focus();
  });
  byId('inputsBefore').addEventListener('click', () => turnPage(-1));
  byId('inputsAfter').addEventListener('click', () => turnPage(1));
  on(['input'], draw);
}
