"use strict";

// Tokens live in this variable alone: no storage, no cookie, gone with the page.
let session = null;
let rotations = 0;
let refreshing = null;
let uploading = null;
let apiKey = null;
let waitUntil = 0;

const $ = (id) => document.getElementById(id);

const SHOWN_HEADERS = [
  "content-type",
  "www-authenticate",
  "retry-after",
  "ratelimit",
  "ratelimit-policy",
  "allow",
  "cache-control",
];
const KEPT_ENTRIES = 60;
const REFRESH_AHEAD_MS = 20000;

// ---- calls ---------------------------------------------------------------------------------

async function call(method, path, options = {}) {
  const headers = {};
  if (options.json !== undefined) headers["content-type"] = "application/json";
  if (options.key) headers["x-api-key"] = options.key;
  else if (session && options.auth !== false) headers.authorization = `Bearer ${session.access}`;
  const started = performance.now();
  let answer;
  try {
    const response = await fetch(path, {
      method,
      headers,
      body: options.json === undefined ? undefined : JSON.stringify(options.json),
      credentials: "same-origin",
      cache: "no-store",
    });
    answer = {
      status: response.status,
      header: (name) => response.headers.get(name),
      text: await response.text(),
    };
  } catch (error) {
    answer = failure(error);
  }
  return settle(method, path, started, answer);
}

function failure(error) {
  return { status: 0, header: () => null, text: "", note: String(error.message || error) };
}

function settle(method, path, started, answer) {
  answer.took = performance.now() - started;
  answer.json = parse(answer.text);
  readLimits(answer);
  log(method, path, answer);
  return answer;
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

// ---- session -------------------------------------------------------------------------------

function begin(pair, username) {
  if (session) rotations += 1;
  session = {
    access: pair.access_token,
    refresh: pair.refresh_token,
    username: username || session?.username,
    lifetime: pair.expires_in * 1000,
    expires: performance.now() + pair.expires_in * 1000,
  };
  show();
}

function end() {
  session = null;
  rotations = 0;
  show();
}

function refresh() {
  if (!session) return Promise.resolve(false);
  // Several callers at once share one rotation, and tabs take turns: they may share a cookie.
  refreshing ??= inTurn(async () => {
    const answer = await call("POST", "/auth/refresh", {
      auth: false,
      json: { refresh_token: session.refresh },
    });
    if (answer.status === 200 && answer.json) {
      begin(answer.json);
      return true;
    }
    if (answer.status === 401) end();
    return false;
  }).finally(() => {
    refreshing = null;
  });
  return refreshing;
}

function inTurn(work) {
  return navigator.locks ? navigator.locks.request("refresh", work) : work();
}

function show() {
  const inside = session !== null;
  $("who").textContent = inside ? `Signed in as ${session.username}` : "Signed out";
  $("who").classList.toggle("in", inside);
  $("logout").disabled = !inside;
  $("refresh").disabled = !inside;
  $("refresh-tail").textContent = inside ? tail(session.refresh) : "none";
  $("rotations").textContent = String(rotations);
  $("key").textContent = apiKey ? `${apiKey.name} ${tail(apiKey.key)}` : "none";
  for (const id of ["ping", "rotate", "revoke"]) $(id).disabled = !apiKey;
  showClaims();
  tick();
}

function tail(token) {
  return token ? `…${token.slice(-8)}` : "in a cookie that no script sees";
}

function showClaims() {
  const claims = session && claimsOf(session.access);
  $("claims-box").hidden = !claims;
  $("claims").replaceChildren(...facts(Object.entries(claims || {})));
}

function claimsOf(token) {
  const part = (token.split(".")[1] || "").replace(/-/g, "+").replace(/_/g, "/");
  try {
    const bytes = Uint8Array.from(atob(part), (character) => character.charCodeAt(0));
    return parse(new TextDecoder().decode(bytes));
  } catch {
    return null;
  }
}

function tick() {
  const now = performance.now();
  const left = session ? Math.max(0, session.expires - now) : 0;
  $("expiry").value = session ? left / session.lifetime : 0;
  $("expiry").classList.toggle("low", session !== null && left < 60000);
  $("expiry-text").textContent = session ? (left > 0 ? clock(left) : "expired") : "none";
  if (session && $("auto").checked && left < REFRESH_AHEAD_MS && now >= waitUntil) {
    waitUntil = now + 5000;
    refresh();
  }
  for (const limit of limits.values()) showLimit(limit, now);
  showWait(now);
}

function clock(millis) {
  const seconds = Math.ceil(millis / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

// ---- limits --------------------------------------------------------------------------------

const limits = new Map();
let refusedUntil = 0;
let refusedBy = "";

// RateLimit-Policy: "general";q=100;w=900     RateLimit: "general";r=99;t=900
function readLimits(answer) {
  const now = performance.now();
  for (const [name, parameters] of items(answer.header("ratelimit-policy"))) {
    const limit = limits.get(name) || newLimit(name);
    limit.quota = parameters.q;
    limit.window = parameters.w;
  }
  for (const [name, parameters] of items(answer.header("ratelimit"))) {
    const limit = limits.get(name) || newLimit(name);
    limit.left = parameters.r;
    limit.reset = parameters.t === undefined ? 0 : now + parameters.t * 1000;
  }
  const retry = Number(answer.header("retry-after"));
  if (answer.status === 429 && retry > 0) {
    refusedUntil = now + retry * 1000;
    refusedBy = (answer.json?.["violated-policies"] || []).join(", ");
  }
  $("limits-empty").hidden = limits.size > 0;
  tick();
}

function items(header) {
  if (!header) return [];
  return header.split(",").map((item) => {
    const [name, ...rest] = item.split(";").map((part) => part.trim());
    const pairs = rest.map((part) => part.split("=")).map(([key, value]) => [key, Number(value)]);
    return [name.replace(/^"|"$/g, ""), Object.fromEntries(pairs)];
  });
}

function newLimit(name) {
  const id = `limit-${limits.size}`;
  const bar = element("progress", { id, max: 1, value: 1 });
  const text = element("output", { htmlFor: id });
  const label = element("label", { htmlFor: id, textContent: name });
  $("limits").append(element("div", { className: "meter" }, [label, text, bar]));
  const limit = { name, bar, text };
  limits.set(name, limit);
  return limit;
}

function showLimit(limit, now) {
  if (limit.left === undefined) return;
  const quota = limit.quota || Math.max(limit.left, 1);
  const renewed = limit.reset && now >= limit.reset;
  const again = limit.reset && !renewed && limit.left < quota;
  limit.bar.value = limit.left / quota;
  limit.bar.classList.toggle("low", limit.left === 0 && !renewed);
  const when = again ? ` · more in ${clock(limit.reset - now)}` : "";
  limit.text.textContent = `${limit.left} of ${quota} left${when}`;
}

function showWait(now) {
  const refused = now < refusedUntil;
  $("wait").hidden = !refused;
  if (refused) {
    const by = refusedBy ? ` by ${refusedBy}` : "";
    $("wait").textContent = `Refused${by}. Retry-After: ${clock(refusedUntil - now)}`;
  }
}

// ---- the log -------------------------------------------------------------------------------

function log(method, path, answer) {
  const problem = (answer.header("content-type") || "").startsWith("application/problem+json");
  const kind = answer.status === 0 || answer.status >= 400 ? "bad" : "good";
  const badge = element("span", {
    className: `status ${answer.status === 429 ? "warn" : kind}`,
    textContent: answer.status || "failed",
  });
  const line = element("span", { className: "line", textContent: `${method} ${path}` });
  const took = element("span", { className: "took", textContent: `${answer.took.toFixed(0)} ms` });
  const inside = element("div", { className: "inside" });
  if (problem && answer.json) inside.append(problemOf(answer.json));
  if (answer.note) inside.append(element("p", { className: "problem", textContent: answer.note }));
  const shown = SHOWN_HEADERS.map((name) => [name, answer.header(name)]).filter(([, value]) => value);
  if (shown.length) inside.append(element("dl", { className: "facts" }, facts(shown)));
  if (answer.text) inside.append(element("pre", { textContent: pretty(answer) }));
  const entry = element("details", { className: "entry", open: kind === "bad" }, [
    element("summary", {}, [badge, line, took]),
    inside,
  ]);
  $("wire-empty").hidden = true;
  $("log").prepend(element("li", {}, [entry]));
  while ($("log").childElementCount > KEPT_ENTRIES) $("log").lastElementChild.remove();
  const why = answer.json?.detail || (problem && answer.json?.title) || "";
  $("announce").textContent = `${method} ${path}: ${answer.status || "failed"}. ${why}`;
}

function problemOf(problem) {
  const parts = [element("strong", { textContent: problem.title || "Refused" })];
  if (problem.detail) parts.push(element("span", { textContent: problem.detail }));
  return element("p", { className: "problem" }, parts);
}

function pretty(answer) {
  if (answer.json === null) return answer.text.slice(0, 4000);
  const short = (key, value) =>
    /(_token|^key)$/.test(key) && typeof value === "string" ? `${value.slice(0, 12)}${tail(value)}` : value;
  return JSON.stringify(answer.json, short, 2);
}

function facts(entries) {
  return entries.map(([name, value]) =>
    element("div", {}, [
      element("dt", { textContent: name }),
      element("dd", { textContent: typeof value === "object" ? JSON.stringify(value) : value }),
    ]),
  );
}

function element(name, properties = {}, children = []) {
  const made = document.createElement(name);
  Object.assign(made, properties);
  made.append(...children);
  return made;
}

// ---- what the buttons do -------------------------------------------------------------------

async function busy(button, work) {
  button.disabled = true;
  try {
    await work();
  } finally {
    button.disabled = false;
    show();
  }
}

$("account").addEventListener("submit", (event) => {
  event.preventDefault();
  const button = event.submitter || event.target.querySelector("button");
  const account = { username: $("username").value, password: $("password").value };
  busy(button, async () => {
    const path = `/auth/${button.value}`;
    const answer = await call("POST", path, { auth: false, json: account });
    if (answer.status === 200 && answer.json) {
      session = null;
      rotations = 0;
      begin(answer.json, account.username.toLowerCase());
      $("password").value = "";
    }
  });
});

$("logout").addEventListener("click", (event) =>
  busy(event.currentTarget, async () => {
    const token = session.refresh;
    const answer = await call("POST", "/auth/logout", { json: { refresh_token: token } });
    if (answer.status === 204) end();
  }),
);

$("me").addEventListener("click", (event) =>
  busy(event.currentTarget, () => call("GET", "/api/me")),
);

$("refresh").addEventListener("click", (event) => busy(event.currentTarget, refresh));

function ask() {
  return call("POST", "/api/model", { json: { prompt: $("prompt").value } });
}

function showCompletion(answer) {
  const completion = answer.json?.completion;
  $("completion").hidden = completion === undefined;
  $("completion").textContent = completion ?? "";
}

$("model").addEventListener("submit", (event) => {
  event.preventDefault();
  busy(event.submitter || event.target.querySelector("button"), async () => {
    showCompletion(await ask());
  });
});

$("flood").addEventListener("click", (event) =>
  busy(event.currentTarget, async () => {
    for (let sent = 0; sent < 200; sent += 1) {
      const answer = await ask();
      if (answer.status !== 200) break;
      showCompletion(answer);
    }
  }),
);

$("upload").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!$("file").files.length) return;
  const form = new FormData();
  for (const file of $("file").files) form.append("file", file, file.name);
  busy(event.submitter || event.target.querySelector("button"), () => send(form));
});

// The key is shown by the answer that made it, once, and kept in a variable like the tokens.
function keep(answer) {
  if (answer.json?.key) apiKey = answer.json;
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  busy(event.submitter || event.target.querySelector("button"), async () => {
    keep(await call("POST", "/api/keys", { json: { name: $("key-name").value } }));
  });
});

$("keys").addEventListener("click", (event) =>
  busy(event.currentTarget, () => call("GET", "/api/keys")),
);

$("ping").addEventListener("click", (event) =>
  busy(event.currentTarget, () => call("GET", "/api/ping", { key: apiKey.key })),
);

$("rotate").addEventListener("click", (event) =>
  busy(event.currentTarget, async () => {
    keep(await call("POST", `/api/keys/${apiKey.id}/rotate`));
  }),
);

// The key stays here, so that one can see it refused.
$("revoke").addEventListener("click", (event) =>
  busy(event.currentTarget, () => call("DELETE", `/api/keys/${apiKey.id}`)),
);

$("cancel").addEventListener("click", () => uploading?.abort());

// `fetch` tells nothing of what has been sent, so this is an XMLHttpRequest.
function send(form) {
  return new Promise((resolve) => {
    const started = performance.now();
    const request = new XMLHttpRequest();
    uploading = request;
    progress(0, 1);
    $("upload-meter").hidden = false;
    $("cancel").disabled = false;
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) progress(event.loaded, event.total);
    });
    const done = (note) => {
      uploading = null;
      $("cancel").disabled = true;
      const answer = {
        status: request.status,
        header: (name) => request.getResponseHeader(name),
        text: request.responseText,
        note,
      };
      resolve(settle("POST", "/api/upload", started, answer));
    };
    request.addEventListener("load", () => done());
    request.addEventListener("error", () => done("The connection failed."));
    request.addEventListener("abort", () => done("Cancelled."));
    request.open("POST", "/api/upload");
    if (session) request.setRequestHeader("authorization", `Bearer ${session.access}`);
    request.send(form);
  });
}

function progress(sent, total) {
  $("sent").value = total ? sent / total : 0;
  $("sent-text").textContent = `${Math.floor((100 * sent) / (total || 1))} %`;
}

$("clear").addEventListener("click", () => {
  $("log").replaceChildren();
  $("wire-empty").hidden = false;
});

setInterval(tick, 500);
show();
document.documentElement.dataset.ready = "true";
