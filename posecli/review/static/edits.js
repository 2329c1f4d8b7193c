// What an edit does to a frame: the same as on the server, so that it shows before it is saved.

const FAR = 1e6;
const number = value => typeof value === 'number' && Number.isFinite(value) ? Math.min(FAR, Math.max(-FAR, value)) : null;

/** [x, y, v] of finite numbers; what is not a number becomes not labelled. */
function point(given) {
  const x = number(given?.[0]), y = number(given?.[1]);
  if (x === null || y === null) return [0, 0, 0];
  return [x, y, [0, 1, 2].includes(given[2]) ? given[2] : 0];
}

/** A frame of the server with every number checked: files of results may hold anything. */
export function checkedFrame(given, K) {
  const list = value => Array.isArray(value) ? value : [];
  const people = list(given.people).map(p => ({
    key: String(p.key),
    keypoints: Array.from({ length: K }, (_, k) => point(list(p.keypoints)[k])),
    scores: Array.from({ length: K }, (_, k) => number(list(p.scores)[k])),
    std: Array.from({ length: K }, (_, k) => [0, 1].map(i => Math.max(0, number(list(p.std)[k]?.[i]) ?? 0))),
    box: Array.from({ length: 4 }, (_, i) => number(list(p.box)[i]) ?? 0),
    score: number(p.score),
    track: Number.isInteger(p.track) ? p.track : null,
    corrected: list(p.corrected).filter(Number.isInteger),
    propagated: list(p.propagated).filter(Number.isInteger),
    added: Boolean(p.added), accepted: Boolean(p.accepted), box_corrected: Boolean(p.box_corrected),
  }));
  return { input: given.input, frame: given.frame, time_s: number(given.time_s), seq: number(given.seq) ?? 0,
           width: Math.max(1, number(given.width) ?? 1), height: Math.max(1, number(given.height) ?? 1), people };
}

const without = (list, k) => list.filter(other => other !== k);
const withOne = (list, k) => list.includes(k) ? list : [...list, k];

const OPS = {
  keypoints(person, edit) {
    for (const [k, value] of Object.entries(edit.keypoints)) {
      person.keypoints[k] = point(value);
      person.corrected = withOne(person.corrected, Number(k));
      person.propagated = without(person.propagated, Number(k));
    }
  },
  box(person, edit) {
    person.box = [...edit.box];
    person.box_corrected = true;
  },
  accept(person) { person.accepted = true; },
  delete(person, edit, frame) { frame.people = without(frame.people, person); },
};

/** A copy of the frame with an edit in it; `temporary` is the key of an added person until the server gives one. */
export function edited(given, edit, temporary) {
  const frame = structuredClone(given);
  if (edit.op === 'track') {
    if (frame.frame < edit.frame || (edit.until !== null && frame.frame >= edit.until)) return frame;
    for (const p of frame.people) {
      if (p.track === edit.track) p.track = edit.to;
      else if (edit.swap && p.track === edit.to) p.track = edit.track;
    }
    return frame;
  }
  if (edit.frame !== frame.frame) return frame;
  if (edit.op === 'add') {
    const K = Object.keys(edit.keypoints).length, all = Array.from({ length: K }, (_, k) => k);
    frame.people.push({
      key: temporary, keypoints: all.map(k => point(edit.keypoints[k])), scores: all.map(() => null),
      std: all.map(() => [0, 0]), box: [...edit.box], score: null, track: edit.track, corrected: all, propagated: [],
      added: true, accepted: false, box_corrected: true,
    });
    return frame;
  }
  const person = frame.people.find(p => p.key === edit.person);
  if (person) OPS[edit.op]?.(person, edit, frame);
  return frame;
}

/** A copy of the frame as a proposal of the smoother would change it. */
export function proposed(given, values) {
  const changes = values?.[given.frame];
  if (!changes) return given;
  const frame = structuredClone(given);
  for (const person of frame.people)
    for (const [k, at] of Object.entries(changes[person.key] ?? {})) {
      if (!person.keypoints[k] || person.corrected.includes(Number(k))) continue;
      person.keypoints[k] = point([...at, person.keypoints[k][2]]);
      person.propagated = withOne(person.propagated, Number(k));
    }
  return frame;
}
