// Zoom, pan and the picture itself. A pixel's centre is at whole numbers, so its corner is half a pixel before.

import { byId } from './dom.js';
import { setOnScreen } from './frames.js';
import { emit, state } from './store.js';

const MOST = 60;

/** screen = (image + 0.5) · scale + (x, y), in CSS pixels of the stage. */
export const view = { scale: 1, x: 0, y: 0, width: 1, height: 1, fitted: true };

export const toScreen = (x, y) => [(x + 0.5) * view.scale + view.x, (y + 0.5) * view.scale + view.y];
export const toImage = (x, y) => [(x - view.x) / view.scale - 0.5, (y - view.y) / view.scale - 0.5];

let size = { width: 1, height: 1 };

const fitScale = () => Math.min(view.width / size.width, view.height / size.height, 8);

function changed() {
  // Some of the picture always stays in sight.
  const margin = 60, limit = (at, extent, stage) => Math.min(stage - margin, Math.max(margin - extent, at));
  view.x = limit(view.x, size.width * view.scale, view.width);
  view.y = limit(view.y, size.height * view.scale, view.height);
  place();
  emit('view');
}

export function fit() {
  Object.assign(view, { scale: fitScale(), fitted: true });
  view.x = (view.width - size.width * view.scale) / 2;
  view.y = (view.height - size.height * view.scale) / 2;
  changed();
}

/** Zoom by a factor about a point of the stage, by default its middle. */
export function zoom(factor, x = view.width / 2, y = view.height / 2) {
  const scale = Math.min(MOST, Math.max(fitScale() / 2, view.scale * factor)), by = scale / view.scale;
  Object.assign(view, { scale, x: x - (x - view.x) * by, y: y - (y - view.y) * by, fitted: false });
  changed();
}

export function pan(dx, dy) {
  Object.assign(view, { x: view.x + dx, y: view.y + dy, fitted: false });
  changed();
}

/** Zoom so that a box [x0, y0, x1, y1] fills a share of the stage; the picture fills the stage where it can. */
export function zoomTo([x0, y0, x1, y1], share = 0.8) {
  const fits = Math.min(view.width / Math.max(8, x1 - x0), view.height / Math.max(8, y1 - y0));
  const scale = Math.min(MOST, Math.max(fitScale(), share * fits));
  const place = (middle, extent, stage) =>
    extent <= stage ? (stage - extent) / 2 : Math.min(0, Math.max(stage - extent, stage / 2 - middle));
  Object.assign(view, { scale, fitted: false });
  view.x = place(((x0 + x1) / 2 + 0.5) * scale, size.width * scale, view.width);
  view.y = place(((y0 + y1) / 2 + 0.5) * scale, size.height * scale, view.height);
  changed();
}

/** Zoom to a person who is too small or not wholly in the stage; some of what is around stays in sight. */
export function bringNear(box) {
  const [x0, y0] = toScreen(box[0], box[1]), [x1, y1] = toScreen(box[2], box[3]);
  const inside = x0 > -20 && y0 > -20 && x1 < view.width + 20 && y1 < view.height + 20;
  if (Math.max((x1 - x0) / view.width, (y1 - y0) / view.height) < 0.3 || (!inside && !view.fitted)) zoomTo(box, 0.45);
}

/** Move the picture where a point of it would be outside of the stage or close to its edge. */
export function reveal(x, y) {
  const { width, height } = size;
  if (x < -width / 4 || y < -height / 4 || x > 1.25 * width || y > 1.25 * height) return;
  const [sx, sy] = toScreen(x, y), edge = Math.min(30, view.width / 4);
  if (sx >= edge && sy >= edge && sx <= view.width - edge && sy <= view.height - edge) return;
  pan(view.width / 2 - sx, view.height / 2 - sy);
}

/** The width to ask pictures in: as wide as they are shown, in few steps so that they can be kept; null: full. */
export function wantedWidth(frame = size) {
  const shown = (view.fitted ? Math.min(view.width / frame.width, view.height / frame.height) : view.scale) *
    frame.width * devicePixelRatio;
  const wanted = Math.ceil(shown / 320) * 320;
  return wanted < 0.8 * frame.width ? wanted : null;
}

let bitmapWidth = 1;

/** Show a bitmap (null: nothing) as a frame of width × height pixels. */
export function setPicture(bitmap, frame) {
  const canvas = byId('picture');
  canvas.width = bitmap?.width ?? 1;
  canvas.height = bitmap?.height ?? 1;
  if (bitmap) canvas.getContext('2d').drawImage(bitmap, 0, 0);
  setOnScreen(bitmap);
  bitmapWidth = bitmap?.width ?? frame.width;
  if (frame.width !== size.width || frame.height !== size.height) {
    size = { width: frame.width, height: frame.height };
    fit();
  } else place();
  emit('picture');
}

/** Whether the picture on the screen has fewer pixels than it should at this zoom. */
export const tooCoarse = () => state.shown !== null && bitmapWidth < (wantedWidth() ?? size.width);

function place() {
  const canvas = byId('picture');
  canvas.style.width = `${size.width}px`;
  canvas.style.height = `${size.height}px`;
  canvas.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
  canvas.classList.toggle('pixels', view.scale * size.width / bitmapWidth > 5);
}

export function watchSize() {
  const stage = byId('stage');
  new ResizeObserver(() => {
    const box = stage.getBoundingClientRect();
    const dx = (box.width - view.width) / 2, dy = (box.height - view.height) / 2;
    Object.assign(view, { width: Math.max(1, box.width), height: Math.max(1, box.height) });
    if (view.fitted) fit();
    else pan(dx, dy);
  }).observe(stage);
}
