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

  panel.insertAdjacentHTML('beforeend', `<h3>Who is seen when</h3><div class=plot>` +
    tracks.map((t, i) => `<div class=row><button type=button aria-label="Person ${t.id}" data-i=${i}>` +
      `<i style="background:${t.colour}"></i>${t.id}</button><div class=lane>` +
      t.spans.map(([a, b]) => `<b style="left:${at(times[a])}%;width:${at(times[b]) - at(times[a])}%;` +
        `background:${t.colour}"></b>`).join('') + '</div></div>').join('') +
    (data.others ? `<div class=others>and ${data.others} more, seen for a shorter time</div>` : '') +
    joints.map(j => [j, lowest(j)]).map(([j, low]) => `<div class=joint data-joint=${j}><p><span>${j[0].toUpperCase() + j.slice(1)}</span>` +
      `<span class=left></span><span class=right></span></p><div><small><span>180°</span><span>${(180 + low) / 2}°</span>` +
      `<span>${low}°</span></small><svg viewBox="0 0 100 ${180 - low}" preserveAspectRatio=none role=img ` +
      `aria-label="Angle of the ${j} over time"><path class=left /><path class=right /></svg></div></div>`).join('') +
    `<div class=axis>${[0, .25, .5, .75, 1].map(f => `<span>${clock(start + f * length)}</span>`).join('')}</div>` +
    '<div class=now></div><div class=aim hidden></div></div>' +
    (joints.length ? '<p class=note>Angle in the picture plane; 180° is straight. A gap: the joints were not sure.</p>' : ''));

  const plot = panel.querySelector('.plot'), now = panel.querySelector('.now'), aim = panel.querySelector('.aim');
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
