// The keyboard: one table of keys, from which the help is made too.

import * as act from './actions.js';
import { cancelBox, finishBox, nudgeBox, startAdding, startBox } from './boxes.js';
import { byId, element, say } from './dom.js';
import { step, stepInput } from './navigation.js';
import { acceptAndNext, nextNeed } from './needs.js';
import { cancelDrag } from './pointer.js';
import { emit, numberOf, selected, state } from './store.js';
import { askTrack } from './tracks.js';
import { fit, pan, zoom, zoomTo } from './view.js';

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const LETTERS = 'asdfghjklqwertyuiopzxcvbnm';

const toggle = (name, text) => () => {
  state.show[name] = !state.show[name];
  say(`${text} ${state.show[name] ? 'shown' : 'hidden'}.`);
  emit('show');
};

export const toggles = {
  boxes: toggle('boxes', 'The box of the selected person is'),
  deviation: toggle('deviation', 'Predicted deviations are'),
  others: toggle('others', 'Other people are'),
};

export function zoomToPerson() {
  const person = selected();
  if (person) zoomTo(person.box);
  else say('Select a person first: Tab or a number.');
}

// [group, keys as shown, what it does, {key: function of whether it is held down}]
const TABLE = [
  ['Go', '. and ,', 'next and previous frame, held down too', { '.': held => step(1, held), ',': held => step(-1, held) }],
  ['Go', '> and <', 'ten frames on or back', { '>': held => step(10, held), '<': held => step(-10, held) }],
  ['Go', 'Home, End', 'first and last frame', { Home: () => step(-Infinity), End: () => step(Infinity) }],
  ['Go', 'PageDown, PageUp', 'next and previous input', { PageDown: () => stepInput(1), PageUp: () => stepInput(-1) }],
  ['Go', 'N and P', 'next and previous person to check', { n: () => nextNeed(1), p: () => nextNeed(-1) }],
  ['Go', ') and (', 'next and previous frame of a proposal', { ')': () => act.stepProposal(1), '(': () => act.stepProposal(-1) }],
  ['Select', 'Tab, Shift+Tab', 'next and previous person, while the picture has the focus', {}],
  ['Select', '0 … 9', 'person with this number; quickly one after another for longer numbers', {}],
  ['Select', 'K', 'letters beside the keypoints; press those of one', { k: () => startHints() }],
  ['Select', 'L and J', 'next and previous keypoint', { l: () => act.cycleKeypoint(1), j: () => act.cycleKeypoint(-1) }],
  ['Select', 'Escape', 'end a drag, leave the keypoint, then the person', { Escape: () => leave() }],
  ['See', '+ and −, wheel', 'zoom', { '+': () => zoom(1.25), '=': () => zoom(1.25), '-': () => zoom(0.8) }],
  ['See', 'F', 'the whole picture', { f: () => fit() }],
  ['See', 'Z', 'zoom to the person', { z: () => zoomToPerson() }],
  ['See', 'Shift+arrow keys', 'move the picture, where no keypoint is selected', {}],
  ['See', 'E', 'predicted deviations', { e: toggles.deviation }],
  ['See', 'O', 'boxes', { o: toggles.boxes }],
  ['See', 'H', 'other people', { h: toggles.others }],
  ['See', '?', 'these keys', { '?': () => help() }],
  ['Change', 'arrow keys', 'move the keypoint by 1 pixel, with Shift by 10; without a keypoint: step frames', {}],
  ['Change', 'Shift+click', 'put the keypoint there and select the next one', {}],
  ['Change', 'V', 'visible, hidden, not labelled', { v: () => act.cycleVisibility() }],
  ['Change', 'Delete', 'keypoint: not labelled; without a keypoint: delete the person', { Delete: () => act.remove(), Backspace: () => act.remove() }],
  ['Change', 'I', 'add a person', { i: () => startAdding() }],
  ['Change', 'B', 'move the box by arrow keys, with Alt its size; Enter is done', { b: () => startBox() }],
  ['Change', 'T', 'change the track id from here on: join, split, exchange', { t: () => askTrack() }],
  ['Change', 'A', 'accept the person as it is', { a: () => act.accept() }],
  ['Change', 'Enter', 'accept, and go to the next person to check', { Enter: () => enter() }],
  ['Change', 'G', 'let the frames around a correction follow: shows a proposal; Enter accepts it', { g: () => act.propose() }],
  ['Change', 'U or Ctrl+Z', 'undo', { u: () => act.undo(), 'Ctrl+z': () => act.undo() }],
  ['Change', 'Ctrl+Shift+Z', 'redo; also Ctrl+Y', { 'Ctrl+Shift+z': () => act.redo(), 'Ctrl+y': () => act.redo(), 'Shift+u': () => act.redo() }],
];

const HELD = new Set(['.', ',', '>', '<', ')', '(', '+', '=', '-', 'j', 'l', 'n', 'p']);
const RUN = Object.assign({}, ...TABLE.map(([, , , keys]) => keys));

/** A key with its modifiers as in the table: letters small, Shift only where the key does not tell. */
function nameOf(event) {
  const letter = /^[a-z]$/i.test(event.key), key = letter ? event.key.toLowerCase() : event.key;
  const shift = event.shiftKey && (letter || event.key.length > 1);
  return `${event.ctrlKey || event.metaKey ? 'Ctrl+' : ''}${shift ? 'Shift+' : ''}${key}`;
}

/** Keys that the focused element needs itself. */
function taken(event) {
  const target = event.target;
  if (target.closest('dialog')) return true;
  if (target.matches('input[type=range]')) return /^(Arrow|Home|End|Page)/.test(event.key);
  if (target.matches('select')) return !/^[np]$|^Escape$/i.test(event.key);
  if (target.matches('input:not([type=checkbox]), textarea')) return event.key !== 'Escape';
  if (target.closest('[role=tablist], [role=listbox]') && /^(Arrow|Home|End)/.test(event.key)) return true;
  return target.closest('button, summary, a, input') !== null && (event.key === 'Enter' || event.key === ' ');
}

function press(event) {
  if (event.defaultPrevented || event.isComposing || taken(event)) return;
  const name = nameOf(event);
  const done = (state.hints && hintKey(event)) || arrow(event) || tab(event) || digit(event);
  if (!done) {
    const run = RUN[name];
    // With Alt letters belong to the browser's menus.
    if (!run || (event.altKey && (event.key.length > 1 || /[a-z]/i.test(event.key)))) return;
    // Held down, no key changes more than once.
    if (!event.repeat || HELD.has(name)) run(event.repeat);
  }
  event.preventDefault();
}

function arrow(event) {
  const by = ARROWS[event.key];
  if (!by || event.ctrlKey || event.metaKey) return false;
  const [dx, dy] = by.map(n => n * (event.shiftKey ? 10 : 1));
  if (state.boxing) nudgeBox(dx, dy, event.altKey);
  else if (event.altKey) return false;
  else if (state.keypoint !== null) act.nudge(dx, dy);
  else if (event.shiftKey) pan(-8 * dx, -8 * dy);
  else if (dx) step(dx, event.repeat);
  return true;
}

function tab(event) {
  if (event.key !== 'Tab' || event.target !== byId('stage') || event.ctrlKey || event.altKey) return false;
  return act.cyclePerson(event.shiftKey ? -1 : 1);
}

let digits = '', digitsAt = 0;

function digit(event) {
  if (!/^\d$/.test(event.key) || event.ctrlKey || event.metaKey || event.altKey || !state.shown) return false;
  const numbers = new Map(state.shown.people.map(p => [String(numberOf(p)), p.key]));
  const longer = event.timeStamp - digitsAt < 700 ? digits + event.key : event.key;
  digits = [...numbers.keys()].some(n => n.startsWith(longer)) ? longer : event.key;
  digitsAt = event.timeStamp;
  if (numbers.has(digits)) act.selectPerson(numbers.get(digits));
  else say(`There is no person ${digits} in this frame.`);
  return true;
}

function startHints() {
  const person = selected(), K = state.session.keypoints.names.length;
  if (!person) { say('Select a person first: Tab or a number.'); return; }
  const length = K <= LETTERS.length ? 1 : K <= LETTERS.length ** 2 ? 2 : 3;
  const letters = k => Array.from({ length }, (_, i) => LETTERS[Math.floor(k / LETTERS.length ** (length - 1 - i)) % LETTERS.length]).join('');
  state.hints = new Map(Array.from({ length: K }, (_, k) => [letters(k), k]));
  typed = '';
  say('Press the letters of a keypoint; Escape ends.');
  emit('select');
}

let typed = '';

function hintKey(event) {
  if (event.key === 'Shift') return true;
  const letter = event.key.length === 1 && !event.ctrlKey && !event.metaKey;
  typed += event.key.toLowerCase();
  const k = letter ? state.hints.get(typed) : undefined;
  if (k !== undefined) { act.selectKeypoint(k); return true; }
  if (letter && [...state.hints.keys()].some(letters => letters.startsWith(typed))) return true;
  state.hints = null;
  say(letter ? 'No keypoint has these letters.' : '');
  emit('select');
  // Other keys do what they do without the letters.
  return letter || event.key === 'Escape';
}

function enter() {
  if (state.boxing) finishBox();
  else if (state.proposal) act.acceptProposal();
  else acceptAndNext();
}

function leave() {
  if (!byId('stage').contains(document.activeElement)) byId('stage').focus({ preventScroll: true });
  if (state.boxing) cancelBox();
  else if (cancelDrag()) say('The drag was ended.');
  else if (state.keypoint !== null) act.selectKeypoint(null);
  else if (state.proposal) act.dropProposal();
  else act.selectPerson(null);
}

export function help() {
  const dialog = byId('keys'), place = dialog.querySelector('.groups');
  const groups = [...new Set(TABLE.map(([group]) => group))];
  place.replaceChildren(...groups.map(group => element('section', {}, element('h3', {}, group), element('dl', {},
    ...TABLE.filter(row => row[0] === group).flatMap(([, keys, text]) => [element('dt', {}, keys), element('dd', {}, text)])))));
  dialog.showModal();
}

export function startKeys() {
  document.addEventListener('keydown', press);
  addEventListener('blur', act.finishKeys);
  addEventListener('pagehide', act.finishKeys);
}
