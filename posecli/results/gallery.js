'use strict';
const grid = document.querySelector('main'), cards = [...grid.children];
const text = document.querySelector('input'), sort = document.querySelector('select');

function show() {
  const wanted = text.value.toLowerCase();
  for (const c of cards) c.hidden = !c.dataset.name.toLowerCase().includes(wanted);
  const key = sort.value;
  const by = { order: c => +c.dataset.order, people: c => -c.dataset.people, failed: c => -c.dataset.failed,
               name: null }[key];
  cards.sort(by ? (a, b) => by(a) - by(b) || a.dataset.order - b.dataset.order
                : (a, b) => a.dataset.name.localeCompare(b.dataset.name));
  grid.append(...cards);
}
text.oninput = sort.onchange = show;

// ---- clips with ids: a lane per id, curves of the chosen one, a cursor that follows the player ----

const UNKNOWN = 255;
const clock = s => `${Math.floor(s / 60)}:${(s % 60).toFixed(1).padStart(4, '0')}`;
const bytes = s => Uint8Array.from(atob(s), c => c.charCodeAt(0));

const SVG = document.createRange().createContextualFragment('<svg/>').firstChild.namespaceURI;

// Elements are made one by one, with text as text: no string is ever read as HTML.
function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function build(card) {
  const panel = card.querySelector('.curves'), video = card.querySelector('video');
  const data = JSON.parse(panel.querySelector('script').textContent);
  const { times, tracks } = data, start = times[0], length = Math.max(1e-3, times[times.length - 1] - start);
  for (const t of tracks) t.angles = t.angles.map(bytes);
  const at = t => 100 * (t - start) / length;                       // seconds to per cent of the plot
  const joints = [...new Set(data.angles.map(a => a.split('_')[1]))];
  // First shown is whose joints are known best; each joint's scale ends at 180 and holds all that anybody does.
  const known = t => t.angles.reduce((sum, values) => sum + values.filter(v => v !== UNKNOWN).length, 0);
  let chosen = tracks.reduce((best, t) => known(t) > known(best) ? t : best), aimed = null;
  const lowest = j => 30 * Math.floor(Math.min(90, ...tracks.flatMap(t => data.angles.map((a, k) =>
    a.endsWith('_' + j) ? t.angles[k].reduce((least, v) => Math.min(least, v), 90) : 90))) / 30);

  const plot = element('div', { className: 'plot' });
  tracks.forEach((t, i) => {
    const button = element('button', { type: 'button', ariaLabel: `Person ${t.id}` }, element('i'), String(t.id));
    button.dataset.i = i;
    button.firstChild.style.background = t.colour;
    plot.append(element('div', { className: 'row' }, button, element('div', { className: 'lane' },
      ...t.spans.map(([a, b]) => {
        const bar = element('b');
        Object.assign(bar.style, { left: `${at(times[a])}%`, width: `${at(times[b]) - at(times[a])}%`, background: t.colour });
        return bar;
      }))));
  });
  if (data.others) plot.append(element('div', { className: 'others' }, `and ${data.others} more, seen for a shorter time`));
  for (const j of joints) {
    const low = lowest(j), chart = document.createElementNS(SVG, 'svg');
    const attributes = { viewBox: `0 0 100 ${180 - low}`, preserveAspectRatio: 'none', role: 'img',
                         'aria-label': `Angle of the ${j} over time` };
    for (const [name, value] of Object.entries(attributes)) chart.setAttribute(name, value);
    for (const side of ['left', 'right']) {
      const path = document.createElementNS(SVG, 'path');
      path.setAttribute('class', side);
      chart.append(path);
    }
    const box = element('div', { className: 'joint' },
      element('p', {}, element('span', {}, j[0].toUpperCase() + j.slice(1)),
        element('span', { className: 'left' }), element('span', { className: 'right' })),
      element('div', {}, element('small', {}, ...[180, (180 + low) / 2, low].map(v => element('span', {}, `${v}°`))), chart));
    box.dataset.joint = j;
    plot.append(box);
  }
  plot.append(
    element('div', { className: 'axis' }, ...[0, .25, .5, .75, 1].map(f => element('span', {}, clock(start + f * length)))),
    element('div', { className: 'now' }), element('div', { className: 'aim', hidden: true }));
  panel.append(element('h3', {}, 'Who is seen when'), plot);
  if (joints.length) panel.append(element('p', { className: 'note' },
    'Angle in the picture plane; 180° is straight. A gap: the joints were not sure.'));

  const now = panel.querySelector('.now'), aim = panel.querySelector('.aim');
  const gutter = parseFloat(getComputedStyle(panel).getPropertyValue('--gutter'));

  function line(values) {
    let d = '', pen = false;
    values.forEach((v, k) => {
      const i = chosen.first + k, x = at((times[i] + times[i + 1]) / 2).toFixed(2);
      if (v !== UNKNOWN) d += `${pen ? 'L' : 'M'}${x} ${180 - v}` + (pen ? '' : 'h.01');   // a lone value is a dot
      pen = v !== UNKNOWN;
    });
    return d;
  }

  function choose(t) {
    chosen = t;
    panel.querySelectorAll('button').forEach(b => b.setAttribute('aria-pressed', tracks[b.dataset.i] === t));
    for (const box of panel.querySelectorAll('.joint'))
      for (const side of ['left', 'right']) {
        const k = data.angles.indexOf(`${side}_${box.dataset.joint}`);
        box.querySelector(`path.${side}`).setAttribute('d', k < 0 ? '' : line(t.angles[k]));
      }
    follow();
  }

  // An output that was cut out of a longer source begins at 0, its record at the source's time.
  const offset = () => video && video.duration < length + start / 2 ? start : 0;
  const playing = () => video ? Math.min(start + length, Math.max(start, video.currentTime + offset())) : start;

  function follow() {
    const place = (element, t) => { element.style.left = `calc(${gutter}px + (100% - ${gutter}px) * ${at(t) / 100})`; };
    place(now, playing());
    aim.hidden = aimed === null;
    if (aimed !== null) place(aim, aimed);
    const t = aimed ?? playing();
    let low = 0, high = times.length - 2;                           // the bin that holds t
    while (low < high) { const middle = (low + high + 1) >> 1; if (times[middle] <= t) low = middle; else high = middle - 1; }
    for (const box of panel.querySelectorAll('.joint'))
      for (const side of ['left', 'right']) {
        const k = data.angles.indexOf(`${side}_${box.dataset.joint}`), v = k < 0 ? undefined : chosen.angles[k][low - chosen.first];
        box.querySelector(`span.${side}`).textContent = k < 0 ? '' : `${side} ${v === undefined || v === UNKNOWN ? '–' : v + '°'}`;
      }
  }

  function seek(t) {
    if (!video) return;
    if (!video.readyState) { video.preload = 'auto'; video.load(); }
    const go = () => { video.currentTime = t - offset(); };
    if (video.readyState) go(); else video.addEventListener('loadedmetadata', go, { once: true });
  }

  const timeAt = e => {
    const box = plot.getBoundingClientRect(), f = (e.clientX - box.left - gutter) / (box.width - gutter);
    return start + length * Math.min(1, Math.max(0, f));
  };
  plot.addEventListener('pointerdown', e => {
    const button = e.target.closest('button');
    if (button || e.button) return;
    const lane = e.target.closest('.row');
    if (lane) choose(tracks[lane.querySelector('button').dataset.i]);
    plot.setPointerCapture(e.pointerId);
    seek(timeAt(e));
  });
  plot.addEventListener('pointermove', e => {
    aimed = e.pointerType === 'mouse' ? timeAt(e) : null;
    if (plot.hasPointerCapture(e.pointerId)) seek(timeAt(e));
    follow();
  });
  plot.addEventListener('pointerleave', () => { aimed = null; follow(); });
  plot.addEventListener('click', e => {
    const button = e.target.closest('button');
    if (button) choose(tracks[button.dataset.i]);
  });
  if (video) {
    const tick = () => { follow(); if (!video.paused && !video.ended) requestAnimationFrame(tick); };
    for (const event of ['play', 'seeked', 'timeupdate', 'loadedmetadata']) video.addEventListener(event, event === 'play' ? tick : follow);
  }
  choose(chosen);
}

const near = new IntersectionObserver(entries => {
  for (const e of entries) if (e.isIntersecting) { near.unobserve(e.target); build(e.target); }
}, { rootMargin: '600px' });
for (const c of cards) if (c.classList.contains('clip')) near.observe(c);
