// Elements are made one by one, with text as text: no string is ever read as HTML.

export const byId = id => document.getElementById(id);

export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter(c => c !== null));
  return made;
}

const SVG = 'http://www.w3.org/2000/svg';

export function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Control characters, and those that change the direction of writing, by which a name could look like another.
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/** Text from outside with invisible characters written as escapes. */
export const printable = text => String(text).replace(HIDDEN, c => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);

/** A name for a line of text: printable, and with its middle left out where it is long. */
export function short(text, most = 48) {
  const shown = [...printable(text)];
  return shown.length <= most ? shown.join('') : [...shown.slice(0, most / 2), '…', ...shown.slice(1 - most / 2)].join('');
}

/** Run on a click; focus goes back to the picture after one with the mouse, so that keys act on it. */
export function clicked(place, run) {
  place.addEventListener('click', event => {
    run(event);
    if (event.detail > 0 && !document.querySelector('dialog[open]')) byId('stage').focus({ preventScroll: true });
  });
  return place;
}

export const button = (label, run, properties = {}) => clicked(element('button', { type: 'button', ...properties }, label), run);

let last = '';

/** A sentence in the status line, which screen readers read out. */
export function say(text, kind = '') {
  const line = byId('status');
  // The same text again is announced only if it differs.
  line.textContent = text === last ? `${text}\u00a0` : text;
  line.className = kind;
  last = line.textContent;
}

/** Scroll a list, but nothing around it, so that one of its items can be seen. */
export function bringIntoList(list, item) {
  const [outer, inner] = [list, item].map(e => e.getBoundingClientRect());
  if (inner.top < outer.top) list.scrollTop -= outer.top - inner.top;
  else if (inner.bottom > outer.bottom) list.scrollTop += inner.bottom - outer.bottom;
}

/**
 * Fill a list with items, each a button in an <li>. One of them is reached by Tab: the current one, else the first;
 * arrow keys move between them. The focus stays where it was in the list.
 */
export function fillList(list, items) {
  const before = [...list.querySelectorAll('.item')].indexOf(document.activeElement);
  list.replaceChildren(...items);
  const buttons = [...list.querySelectorAll('.item')];
  const current = Math.max(0, buttons.findIndex(b => b.matches('[aria-current=true], [aria-pressed=true]')));
  buttons.forEach((b, i) => { b.tabIndex = i === current ? 0 : -1; });
  if (before >= 0) buttons[Math.min(before, buttons.length - 1)]?.focus({ preventScroll: true });
  list.onkeydown = event => {
    const at = buttons.indexOf(document.activeElement), last = buttons.length - 1;
    const to = { ArrowDown: Math.min(last, at + 1), ArrowUp: Math.max(0, at - 1), Home: 0, End: last }[event.key];
    if (at < 0 || to === undefined) return;
    buttons[to].focus();
    event.preventDefault();
  };
}

export const count = (n, one, many = `${one}s`) => `${n.toLocaleString('en')} ${n === 1 ? one : many}`;

export const capital = text => text[0].toUpperCase() + text.slice(1);

/** Spans of whole numbers as text: "3–7, 9". */
export function spans(numbers, most = 4) {
  const found = [];
  for (const n of numbers) {
    if (found.length && found.at(-1)[1] === n - 1) found.at(-1)[1] = n;
    else found.push([n, n]);
  }
  const text = found.slice(0, most).map(([a, b]) => a === b ? `${a}` : `${a}–${b}`).join(', ');
  return found.length > most ? `${text} and ${found.length - most} more` : text;
}
