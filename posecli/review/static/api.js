// Requests to the server.

/** The server refused (status 4xx or 5xx), with its reason in one line; status 0: it was not reached. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
  /** Whether the same request may succeed later. */
  get temporary() { return this.status === 0 || this.status >= 500; }
}

const address = (path, query) => {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== '');
  return `/api/${path}${given.length ? `?${new URLSearchParams(given)}` : ''}`;
};

async function request(path, query, options) {
  let answer;
  try {
    answer = await fetch(address(path, query), { credentials: 'same-origin', ...options });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiError(0, 'the server does not answer');
  }
  if (answer.ok) return answer;
  let message = `status ${answer.status}`;
  try { message = String((await answer.json()).error ?? message); } catch { /* not JSON: the status has to do */ }
  throw new ApiError(answer.status, message);
}

async function json(answer) {
  try {
    return await answer.json();
  } catch {
    throw new ApiError(0, 'the answer of the server ended early');
  }
}

export const get = async (path, query = {}, options = {}) => json(await request(path, query, options));

export const post = async (path, body) => json(await request(path, {}, {
  method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body),
}));

/**
 * A frame as a bitmap, at most `width` pixels wide (null: as it is). Not from the browser's cache: under the same
 * address another server may have had other inputs, and frames.js keeps bitmaps anyway.
 */
export async function image(input, frame, width, signal) {
  const answer = await request('image', { input, frame, width }, { cache: 'no-store', signal });
  try {
    return await createImageBitmap(await answer.blob());
  } catch {
    throw new ApiError(500, 'the picture cannot be decoded');
  }
}
