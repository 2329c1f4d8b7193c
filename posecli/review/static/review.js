// Starts the page.

import * as act from './actions.js';
import { get } from './api.js';
import { startAdding } from './boxes.js';
import { listen } from './changes.js';
import { byId, clicked, element, printable, say } from './dom.js';
import { loadInputs, startInputs } from './inputs.js';
import { help, startKeys, toggles, zoomToPerson } from './keys.js';
import { icon } from './marks.js';
import { remembered, sharpen, show } from './navigation.js';
import { firstNeed, loadNeeds, nextNeed, startNeeds } from './needs.js';
import { startNotices } from './notices.js';
import { startPeople } from './people.js';
import { startPointer } from './pointer.js';
import { findLeft, startClient } from './saving.js';
import { startScene } from './scene.js';
import { on, state } from './store.js';
import { startTimeline } from './timeline.js';
import { askTrack } from './tracks.js';
import { fit, view, watchSize, zoom } from './view.js';

function tools() {
  const runs = {
    undo: act.undo, redo: act.redo, add: startAdding, finish: act.finish, help, accept: act.accept, remove: act.removePerson,
    track: askTrack, propagate: act.propose, zoomIn: () => zoom(1.25), zoomOut: () => zoom(0.8), fit, zoomPerson: zoomToPerson,
    nextNeed: () => nextNeed(1), previousNeed: () => nextNeed(-1),
    showDeviation: toggles.deviation, showBoxes: toggles.boxes, showOthers: toggles.others,
  };
  for (const [id, run] of Object.entries(runs)) clicked(byId(id), run);
  const shown = { showDeviation: 'deviation', showBoxes: 'boxes', showOthers: 'others' };
  const press = () => { for (const [id, name] of Object.entries(shown)) byId(id).setAttribute('aria-pressed', String(state.show[name])); };
  on(['show'], press);
  press();
  on(['view', 'picture'], () => {
    byId('zoomValue').textContent = `${Math.round(100 * view.scale)} %`;
    sharpen();
  });
  on(['boxing'], () => byId('add').setAttribute('aria-pressed', String(state.boxing?.person === null)));
}

function tabs() {
  const all = [...document.querySelectorAll('[role=tab]')];
  const choose = tab => {
    for (const other of all) {
      other.setAttribute('aria-selected', String(other === tab));
      other.tabIndex = other === tab ? 0 : -1;
      byId(other.getAttribute('aria-controls')).hidden = other !== tab;
    }
  };
  for (const tab of all) tab.addEventListener('click', () => choose(tab));
  document.querySelector('[role=tablist]').addEventListener('keydown', event => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const to = all[(all.indexOf(document.activeElement) + by + all.length) % all.length];
    choose(to);
    to.focus();
    event.preventDefault();
  });
}

function legend() {
  const colour = '#35a8ff';
  const rows = [['predicted', 2, 'predicted, visible'], ['predicted', 1, 'predicted, hidden or unsure'], ['corrected', 2, 'corrected, visible'],
                ['corrected', 1, 'corrected, hidden'], ['propagated', 2, 'propagated from corrections'], ['predicted', 0, 'not labelled']];
  byId('legend').append(...rows.map(([origin, v, text]) => element('li', {}, icon(origin, v, colour), text)));
}

async function start() {
  state.session = await get('session');
  byId('out').textContent = printable(state.session.out);
  document.title = `${printable(state.session.out)} – posecli review`;
  byId('readOnly').hidden = !state.session.read_only;
  await startClient();
  for (const begin of [tools, tabs, legend, watchSize, startScene, startPeople, startTimeline, startNotices, startPointer, startKeys, startInputs, startNeeds]) begin();
  loadInputs();
  const place = remembered();
  const list = loadNeeds();
  if (place && place.input < state.session.inputs) await show(place.input, place.frame);
  else {
    // Of a large run the list takes some time.
    await Promise.race([list, new Promise(done => setTimeout(done, 1500))]);
    if (!await firstNeed() && state.session.inputs) await show(0, 0);
  }
  if (!state.session.inputs) say('There is no finished input in this folder.', 'bad');
  await findLeft();
  document.body.dataset.ready = 'yes';
  listen();
}

start().catch(error => say(`The page could not start: ${error.message}`, 'bad'));
