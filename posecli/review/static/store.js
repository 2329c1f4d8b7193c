// What the page knows, and who hears that it changed.

export const state = {
  session: null,     // answer of /api/session
  client: '',        // name of this tab in the journal
  input: null,       // row of /api/inputs
  frame: 0,          // index that was asked for; shown.frame is the one on the screen
  shown: null,       // frame on the screen, with edits that are not saved yet
  person: null,      // key of the selected person
  keypoint: null,    // index of the selected keypoint
  drag: null,        // change under way, drawn over `shown`: an edit without its end
  boxing: null,      // box that is placed by keys or drawn: {person, box}
  hints: null,       // letters beside keypoints: Map of text to index
  tracks: [],        // rows of /api/tracks for the input
  proposal: null,    // answer of /api/propagate
  loading: false,
  show: { boxes: true, deviation: false, others: true },
};

const listeners = [];
const changed = new Set();

/** Call `listen` before the next drawing when one of the topics has changed. */
export function on(topics, listen) {
  listeners.push([topics, listen]);
}

/** Topics: input, frame, picture, select, view, tracks, proposal, saving, show. */
export function emit(...topics) {
  if (!changed.size) requestAnimationFrame(flush);
  for (const topic of topics) changed.add(topic);
}

function flush() {
  const now = new Set(changed);
  changed.clear();
  for (const [topics, listen] of listeners) if (topics.some(t => now.has(t))) listen();
}

export const personOf = (key, frame = state.shown) => frame?.people.find(p => p.key === key) ?? null;
export const selected = () => personOf(state.person);

/** The number by which a person is shown and chosen: the track id, or the place in a photo. */
export function numberOf(person, frame = state.shown) {
  if (person.track !== null) return person.track;
  return frame.people.some(p => p.track !== null) ? null : frame.people.indexOf(person) + 1;
}

export function nameOf(person, frame = state.shown) {
  const number = numberOf(person, frame);
  return number === null ? 'person without an id' : `person ${number}`;
}

export function colourOf(person, frame = state.shown) {
  const colours = state.session.id_colors, number = numberOf(person, frame);
  return number === null ? '#b2b2be' : colours[(((number - 1) % colours.length) + colours.length) % colours.length];
}

/** A keypoint's name as words. */
export const keypointName = k => state.session.keypoints.names[k].replaceAll('_', ' ');
