// The people of the frame, and the keypoints of the selected one, as lists.

import * as act from './actions.js';
import { bringIntoList, byId, button, capital, element, fillList } from './dom.js';
import { keypointColour, originOf, VISIBILITY } from './marks.js';
import { drawnFrame, hover, icon } from './scene.js';
import { colourOf, keypointName, nameOf, numberOf, on, personOf, selected, state } from './store.js';

function factsOf(person) {
  const facts = [];
  if (person.added) facts.push('added');
  else if (person.score !== null) facts.push(`score ${person.score.toFixed(2)}`);
  if (person.corrected.length && !person.added) facts.push(`${person.corrected.length} corrected`);
  if (person.propagated.length) facts.push(`${person.propagated.length} propagated`);
  if (person.box_corrected && !person.added) facts.push('box corrected');
  if (person.accepted) facts.push('accepted ✓');
  return facts.join(' · ');
}

function drawPeople(frame) {
  byId('peopleCount').textContent = frame ? `${frame.people.length} in this frame` : '';
  fillList(byId('peopleList'), (frame?.people ?? []).map(person => {
    const chip = element('span', { className: 'chip' }, String(numberOf(person, frame) ?? '–'));
    chip.style.background = colourOf(person, frame);
    const item = element('button', { type: 'button', className: 'item person' }, chip,
      element('span', { className: 'facts' }, factsOf(person)));
    item.setAttribute('aria-label', `${capital(nameOf(person, frame))}: ${factsOf(person)}`);
    item.setAttribute('aria-pressed', String(person.key === state.person));
    item.addEventListener('click', event => {
      act.selectPerson(person.key);
      if (event.detail > 0) byId('stage').focus({ preventScroll: true });
    });
    return element('li', {}, item);
  }));
  const chosen = byId('peopleList').querySelector('[aria-pressed=true]');
  if (chosen) bringIntoList(byId('peopleList'), chosen);
}

function drawKeypoints(frame) {
  const person = personOf(state.person, frame), section = byId('person');
  section.hidden = !person;
  if (!person) return;
  byId('personName').textContent = capital(nameOf(person, frame));
  byId('accept').disabled = person.accepted;
  byId('accept').textContent = person.accepted ? 'Accepted' : 'Accept';
  byId('track').hidden = byId('propagate').hidden = person.track === null;
  const place = byId('keypointList');
  const rows = state.session.keypoints.names.map((_, k) => row(person, k));
  place.replaceChildren(...rows);
  place.setAttribute('aria-activedescendant', state.keypoint === null ? '' : `keypoint${state.keypoint}`);
  const active = state.keypoint === null ? null : rows[state.keypoint];
  if (active) bringIntoList(place, active);
  const v = active ? person.keypoints[state.keypoint][2] : null;
  for (const choice of byId('visibility').querySelectorAll('button')) {
    choice.disabled = v === null;
    choice.setAttribute('aria-pressed', String(Number(choice.dataset.v) === v));
  }
}

function row(person, k) {
  const v = person.keypoints[k][2], origin = originOf(person, k), score = person.scores[k];
  const fact = origin !== 'predicted' ? origin : score === null ? '' : score.toFixed(2);
  const made = element('li', { id: `keypoint${k}`, className: `v${v}` }, icon(origin, v, keypointColour(k)),
    element('span', { className: 'name' }, keypointName(k)), element('span', { className: 'facts' }, fact));
  made.setAttribute('role', 'option');
  made.setAttribute('aria-selected', String(k === state.keypoint));
  made.setAttribute('aria-label', `${keypointName(k)}, ${VISIBILITY[v]}, ${origin}${score === null || origin !== 'predicted' ? '' : `, score ${score.toFixed(2)}`}`);
  made.addEventListener('click', () => {
    act.selectKeypoint(k);
    byId('stage').focus({ preventScroll: true });
  });
  made.addEventListener('pointerenter', () => { if (state.keypoint === null) hover(k); });
  return made;
}

function draw() {
  const frame = drawnFrame();
  drawPeople(frame);
  drawKeypoints(frame);
}

export function startPeople() {
  byId('keypointList').addEventListener('keydown', event => {
    if (event.key === 'ArrowDown') act.cycleKeypoint(1);
    else if (event.key === 'ArrowUp') act.cycleKeypoint(-1);
    else if (event.key === 'Home') act.selectKeypoint(0);
    else if (event.key === 'End') act.selectKeypoint(state.session.keypoints.names.length - 1);
    else return;
    event.preventDefault();
  });
  byId('keypointList').addEventListener('focus', () => { if (state.keypoint === null && selected()) act.selectKeypoint(0); });
  VISIBILITY.forEach((words, v) => byId('visibility').prepend(button(capital(words), () => act.setVisibility(v), { 'data-v': v })));
  on(['frame', 'select', 'proposal'], draw);
}
