// The one door to the REST API: the key, errors in words, events, uploads with progress.

const STORED = "overtone.key";
let askForKey = async () => null;
let asking = null;

/** What the server refused, or that it does not answer (`status` 0). */
export class ApiError extends Error {
  constructor(status, body, requestId = null) {
    super(body.message ?? `the server answered ${status}`);
    Object.assign(this, { status, code: body.code ?? "", param: body.param ?? null, requestId });
  }
}

/** Has `ask(message)` return a key, or null, when the server asks for one. */
export function onKeyWanted(ask) {
  askForKey = ask;
}

export const hasKey = () => Boolean(sessionStorage.getItem(STORED));
/** With the key goes all that was kept: the next reader may be another one. */
export const forgetKey = () => sessionStorage.clear();

const bearer = (key) => (key ? { Authorization: `Bearer ${key}` } : {});

/** Returns whether there is another key now than the one that was refused; asks once for all. */
async function otherKey(refused, error) {
  if (sessionStorage.getItem(STORED) !== refused) return true;
  asking ??= askForKey(error.message).finally(() => { asking = null; });
  const given = await asking;
  if (given) sessionStorage.setItem(STORED, given);
  return Boolean(given);
}

async function errorOf(response) {
  const body = await response.json().catch(() => ({}));
  return new ApiError(response.status, body.error ?? {}, response.headers.get("X-Request-Id"));
}

function unreachable(error) {
  if (error.name === "AbortError") return error;
  return new ApiError(0, { code: "unreachable", message: "the server does not answer" });
}

/** Returns the response of a request; `json` is sent as its body. Throws ApiError. */
export async function call(path, { json, headers = {}, ...options } = {}) {
  for (;;) {
    const key = sessionStorage.getItem(STORED);
    const sent = { ...options, headers: { ...bearer(key), ...headers } };
    if (json !== undefined) {
      sent.body = JSON.stringify(json);
      sent.headers["Content-Type"] = "application/json";
    }
    const response = await fetch(path, sent).catch((error) => { throw unreachable(error); });
    if (response.ok) return response;
    const error = await errorOf(response);
    if (response.status !== 401 || !(await otherKey(key, error))) throw error;
  }
}

export const get = async (path, options) => (await call(path, options)).json();
export const post = (path, json, options) => get(path, { method: "POST", json, ...options });

/** Yields the objects of a stream of server-sent events, to its end. */
export async function* events(path, options) {
  const response = await call(path, options);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read().catch((error) => { throw unreachable(error); });
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const data = part.split("\n").filter((line) => line.startsWith("data:"));
        const text = data.map((line) => line.slice(5).trimStart()).join("\n");
        if (text === "[DONE]") return;
        if (text) yield JSON.parse(text); // a comment, which keeps the line open, has no data
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Posts a form and returns the answer's object; `onProgress` is told the share that is sent. */
export async function upload(path, form, onProgress = () => {}) {
  for (;;) {
    const key = sessionStorage.getItem(STORED);
    const { status, body, id } = await sentForm(path, form, key, onProgress);
    if (status >= 200 && status < 300) return body;
    const error = new ApiError(status, body.error ?? {}, id);
    if (status !== 401 || !(await otherKey(key, error))) throw error;
  }
}

function sentForm(path, form, key, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not tell how much is sent
    request.open("POST", path);
    Object.entries(bearer(key)).forEach(([name, value]) => request.setRequestHeader(name, value));
    request.upload.onprogress = (event) => onProgress(event.loaded / event.total);
    request.onerror = () => reject(unreachable(new Error()));
    request.onload = () => resolve({
      status: request.status,
      body: parsed(request.responseText),
      id: request.getResponseHeader("X-Request-Id"),
    });
    request.send(form);
  });
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

/** Returns the path of an adapter, whose name may have a slash. */
export const adapterPath = (name, ...rest) =>
  ["v1/adapters", name, ...rest].map((part, i) => (i ? encodeURIComponent(part) : part)).join("/");
