// The browser client of libreconnect: a data channel connection that comes back after a reload, with
// its session (one exchange of signaling) or with a ticket (none). An ES module as it is: no build
// step, no dependency, nothing global. Types: reconnect.d.ts. Formats: docs/formats.md.

const CONTROL_CHANNEL = {label: "reconnect", id: 255};
const DEFAULTS = {
  key: "default", fastTimeout: 2000, normalTimeout: 20000, headStart: 50, maxCacheAge: 300000, policy: "race",
  tickets: true, certificate: true, enabled: true, heartbeat: false, reconnect: false,
};
const LIMITS = {
  message: 262144,          // characters of a signaling message
  control: 32768,           // characters of a message of the control channel, or of a stored ticket
  cache: 65536,             // characters of a stored cache entry
  candidate: 512,           // characters of a candidate line
  candidates: 32,           // of one family and type, or of a ticket
  token: 512,
  early: 32,                // candidates or control messages that wait for their peer
};
const ANSWER_TIMEOUT = 10000;
const STORAGE_TIMEOUT = 1000;
const TOUCH_INTERVAL = 60000;         // a live connection keeps its cache entry young
const CLOCK_SLACK = 1000;             // a timestamp may be this far in the future
const LOOK_AGAIN = 1000;              // after this the other family has answered, or does not
const TICKET_SLACK = 1000;            // a ticket must be good for this much longer
const CERTIFICATE_SLACK = 3600e3;     // and a certificate for the visit
const STABLE = 10000;                 // a connection that lasted this long starts the reconnect budget anew
const MODES = ["zero-signaling", "fast", "normal"];
const PROTOCOLS = ["ipv6", "ipv4", "both"];

export class ReconnectError extends Error {
  constructor(kind, detail = "", {cause, timeout = false} = {}) {
    super(detail ? `${kind}: ${detail}` : kind, cause === undefined ? undefined : {cause});
    this.name = "ReconnectError";
    this.kind = kind;
    this.detail = detail;
    this.timeout = timeout;
  }
}

const failureOf = (error, kind = "unexpected") => error instanceof ReconnectError ? error
  : new ReconnectError(kind, String(error && error.message || error), {cause: error});

/* ---- Messages: whatever comes from outside is judged here ------------------------------------- */

const wrong = (what) => { throw new ReconnectError("protocol", what); };
const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const isText = (value, least, most) => typeof value === "string" && value.length >= least && value.length <= most;
const isInteger = (value, least, most) => Number.isInteger(value) && value >= least && value <= most;
const isToken = (value) => isText(value, 1, LIMITS.token) && /^[\x21-\x7e]+$/.test(value);

const parsed = (text, most, what) => {
  if (typeof text !== "string") wrong(`${what} is no text`);
  if (text.length > most) wrong(`${what} of ${text.length} characters is too long`);
  try { return JSON.parse(text); } catch { return wrong(`${what} is no JSON`); }
};

const isIPv4 = (text) => /^(0|[1-9]\d{0,2})(\.(0|[1-9]\d{0,2})){3}$/.test(text)
  && text.split(".").every((part) => Number(part) <= 255);

function isIPv6(text) {
  if (text.length > 45 || !text.includes(":")) return false;
  const halves = text.split("::");
  if (halves.length > 2) return false;
  const groups = (part, isLast) => {
    if (part === "") return 0;
    const words = part.split(":");
    let count = 0;
    for (const [index, word] of words.entries()) {
      if (/^[0-9a-f]{1,4}$/i.test(word)) count += 1;
      else if (isLast && index === words.length - 1 && isIPv4(word)) count += 2;
      else return NaN;
    }
    return count;
  };
  const last = halves.length - 1;
  const count = halves.reduce((sum, half, index) => sum + groups(half, index === last), 0);
  return last === 1 ? count <= 7 : count === 8 && halves[0] !== "";
}

const familyOf = (address) => isIPv4(address) ? "ipv4" : isIPv6(address) ? "ipv6" : null;

// Unspecified, multicast and broadcast addresses are nobody's.
const isSomebody = (address) => !/^[0:.]+$/.test(address) && !/^(22[4-9]|23\d|24\d|25[0-5])\./.test(address)
  && !/^0\./.test(address) && !/^ff[0-9a-f]{2}:/i.test(address);

export function parseCandidate(line) {
  if (!isText(line, 1, LIMITS.candidate)) wrong("a candidate is no text or too long");
  // RFC 8839 section 5.1. No white space but single spaces: a line stays one line.
  const fields = /^candidate:([A-Za-z0-9+/]{1,32}) (\d{1,3}) (udp|tcp) (\d{1,10}) ([0-9A-Fa-f:.]{2,45}) (\d{1,5}) typ (host|srflx|prflx|relay)((?: [\x21-\x7e]+ [\x21-\x7e]+)*)$/i.exec(line);
  if (!fields) wrong("a candidate has an unknown form");
  const [, foundation, component, transport, priority, address, port, type, rest] = fields;
  const family = familyOf(address);
  if (!family || !isSomebody(address)) wrong("a candidate has a bad address");
  if (!isInteger(Number(component), 1, 256)) wrong("a candidate has a bad component");
  if (!isInteger(Number(priority), 1, 2147483647)) wrong("a candidate has a bad priority");
  if (!isInteger(Number(port), 1, 65535)) wrong("a candidate has a bad port");
  const words = rest.split(" ").slice(1);
  for (let index = 0; index < words.length; index += 2) {
    const [name, value] = [words[index].toLowerCase(), words[index + 1]];
    if (name === "raddr" && !familyOf(value)) wrong("a candidate has a bad related address");
    if (name === "rport" && !(/^\d{1,5}$/.test(value) && Number(value) <= 65535)) wrong("a candidate has a bad related port");
    if (name === "tcptype" && !/^(active|passive|so)$/i.test(value)) wrong("a candidate has a bad TCP type");
  }
  return {
    foundation, component: Number(component), transport: transport.toLowerCase(), priority: Number(priority),
    address, port: Number(port), type: type.toLowerCase(), family,
  };
}

export function parseTicket(value) {
  if (!isObject(value)) wrong("a ticket is no object");
  const {ufrag, pwd, fingerprint, candidates, sctpPort, maxMessageSize, expires, derivedInit} = value;
  if (!isText(ufrag, 10, 200) || !/^lrc1\/[A-Za-z0-9+/]+$/.test(ufrag)) wrong("a ticket has a bad ufrag");
  if (!isText(pwd, 22, 256) || !/^[A-Za-z0-9+/]+$/.test(pwd)) wrong("a ticket has a bad pwd");
  const print = isText(fingerprint, 1, 256) && /^(sha-256|sha-384|sha-512) ([0-9A-F]{2}(?::[0-9A-F]{2})+)$/i.exec(fingerprint);
  if (!print || print[2].length !== {"sha-256": 95, "sha-384": 143, "sha-512": 191}[print[1].toLowerCase()]) {
    wrong("a ticket has a bad fingerprint");
  }
  if (!Array.isArray(candidates) || candidates.length < 1 || candidates.length > LIMITS.candidates) {
    wrong("a ticket has no candidates or too many");
  }
  candidates.forEach(parseCandidate);
  if (!isInteger(sctpPort, 1, 65535)) wrong("a ticket has a bad sctpPort");
  if (!isInteger(maxMessageSize, 0, Number.MAX_SAFE_INTEGER)) wrong("a ticket has a bad maxMessageSize");
  if (!isInteger(expires, 1, 8.64e15)) wrong("a ticket has a bad expires");
  if (derivedInit !== undefined && typeof derivedInit !== "boolean") wrong("a ticket has a bad derivedInit");
  const ticket = {ufrag, pwd, fingerprint, candidates: [...candidates], sctpPort, maxMessageSize, expires};
  if (derivedInit !== undefined) ticket.derivedInit = derivedInit;
  return ticket;
}

export function parseAnswer(value) {
  if (!isObject(value)) wrong("the answer is no object");
  const {type, sdp, connectionMode, sessionToken, ticket} = value;
  if (type !== "answer") wrong("the answer has another type");
  if (!isText(sdp, 1, LIMITS.message) || !sdp.startsWith("v=0")) wrong("the answer has no description");
  if (connectionMode !== "fast" && connectionMode !== "normal") wrong("the answer has an unknown connectionMode");
  const answer = {type, sdp, connectionMode};
  if (sessionToken !== undefined && sessionToken !== null) {
    if (!isToken(sessionToken)) wrong("the answer has a bad sessionToken");
    answer.sessionToken = sessionToken;
  }
  if (ticket !== undefined && ticket !== null) answer.ticket = ticket;
  return answer;
}

export function parseCandidateMessage(value) {
  if (!isObject(value) || !("candidate" in value)) wrong("a candidate message has no candidate");
  const given = value.candidate;
  if (given === null) return null;
  if (!isObject(given)) wrong("a candidate message has a candidate of another type");
  const {candidate, sdpMid, sdpMLineIndex, usernameFragment} = given;
  if (!isText(candidate, 0, LIMITS.candidate)) wrong("a candidate is no text or too long");
  if (candidate === "" || candidate === "end-of-candidates") return null;
  const init = {candidate};
  // Of a candidate on its way a name is fine: the browser resolves it or leaves it.
  if (!/^candidate:[\x20-\x7e]+$/.test(candidate)) wrong("a candidate has an unknown form");
  if (sdpMid !== undefined && sdpMid !== null) {
    if (!isText(sdpMid, 0, 64)) wrong("a candidate has a bad sdpMid");
    init.sdpMid = sdpMid;
  }
  if (sdpMLineIndex !== undefined && sdpMLineIndex !== null) {
    if (!isInteger(sdpMLineIndex, 0, 65535)) wrong("a candidate has a bad sdpMLineIndex");
    init.sdpMLineIndex = sdpMLineIndex;
  }
  if (init.sdpMid === undefined && init.sdpMLineIndex === undefined) init.sdpMLineIndex = 0;
  if (usernameFragment !== undefined && usernameFragment !== null) {
    if (!isText(usernameFragment, 4, 256)) wrong("a candidate has a bad usernameFragment");
    init.usernameFragment = usernameFragment;
  }
  return init;
}

/* ---- Candidates: the cache entry and the description of a ticket ------------------------------- */

// In the order of their use. The two optional ones were not in the first version of the format.
const GROUPS = [
  ["ipv6HostCandidates", "ipv6", "host"],
  ["ipv6SrflxCandidates", "ipv6", "srflx"],
  ["ipv4HostCandidates", "ipv4", "host", "optional"],
  ["ipv4SrflxCandidates", "ipv4", "srflx"],
  ["ipv6RelayCandidates", "ipv6", "relay", "optional"],
  ["ipv4RelayCandidates", "ipv4", "relay"],
];

const groupOf = (candidate) => {
  const type = candidate.type === "prflx" ? "srflx" : candidate.type;
  return GROUPS.find(([, family, kind]) => family === candidate.family && kind === type)[0];
};

const protocolOf = (groups) => {
  const has = (family) => GROUPS.some(([name, of]) => of === family && groups[name] && groups[name].length > 0);
  return has("ipv6") === has("ipv4") ? "both" : has("ipv6") ? "ipv6" : "ipv4";
};

function sorted(lines, sdpMid = "0") {
  const groups = Object.fromEntries(GROUPS.map(([name]) => [name, []]));
  for (const line of lines) {
    let candidate;
    try { candidate = parseCandidate(line); } catch { continue; }
    const group = groups[groupOf(candidate)];
    if (group.length < LIMITS.candidates) group.push({candidate: line, sdpMid, sdpMLineIndex: 0});
  }
  return {...groups, lastSuccessfulProtocol: protocolOf(groups)};
}

export function extractCandidates(sdp) {
  const text = String(sdp);
  const mid = /^a=mid:([\x21-\x7e]{1,64})\r?$/m.exec(text);
  return sorted(text.split(/\r?\n/).filter((line) => line.startsWith("a=candidate:")).map((line) => line.slice(2)),
    mid ? mid[1] : "0");
}

export function orderedCandidates(entry) {
  return GROUPS.flatMap(([name]) => entry[name] || []);
}

export function parseCacheEntry(text, now = Date.now()) {
  const value = parsed(text, LIMITS.cache, "the cache entry");
  if (!isObject(value)) wrong("the cache entry is no object");
  const entry = {};
  for (const [name, family, type, optional] of GROUPS) {
    if (optional && !Object.hasOwn(value, name)) continue;
    const list = value[name];
    if (!Array.isArray(list) || list.length > LIMITS.candidates) wrong(`${name} is no list or too long`);
    entry[name] = list.map((init) => {
      if (!isObject(init)) wrong(`${name} has a member of another type`);
      const {candidate, sdpMid = null, sdpMLineIndex = null} = init;
      const fields = parseCandidate(candidate);
      if (groupOf(fields) !== name) wrong(`${name} has a candidate that is not ${family} ${type}`);
      if (sdpMid !== null && !isText(sdpMid, 0, 64)) wrong(`${name} has a bad sdpMid`);
      if (sdpMLineIndex !== null && !isInteger(sdpMLineIndex, 0, 65535)) wrong(`${name} has a bad sdpMLineIndex`);
      return {candidate, sdpMid, sdpMLineIndex};
    });
  }
  const {lastSuccessfulProtocol, timestamp, sessionId, lastConnectedIPv6} = value;
  if (!PROTOCOLS.includes(lastSuccessfulProtocol)) wrong("lastSuccessfulProtocol is unknown");
  if (!isInteger(timestamp, 0, 8.64e15)) wrong("timestamp is no time");
  if (timestamp > now + CLOCK_SLACK) wrong("timestamp is in the future");
  if (!isToken(sessionId)) wrong("sessionId is no token");
  Object.assign(entry, {lastSuccessfulProtocol, timestamp, sessionId});
  if (lastConnectedIPv6 !== undefined) {
    if (typeof lastConnectedIPv6 !== "boolean") wrong("lastConnectedIPv6 is no boolean");
    entry.lastConnectedIPv6 = lastConnectedIPv6;
  }
  return entry;
}

export function descriptionOf(ticket) {
  return ["v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "a=group:BUNDLE 0", "a=ice-lite",
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "c=IN IP4 0.0.0.0", "a=mid:0",
    `a=ice-ufrag:${ticket.ufrag}`, `a=ice-pwd:${ticket.pwd}`, `a=fingerprint:${ticket.fingerprint}`,
    "a=setup:passive", `a=sctp-port:${ticket.sctpPort}`, `a=max-message-size:${ticket.maxMessageSize}`,
    ...ticket.candidates.map((line) => `a=${line}`), "a=end-of-candidates", ""].join("\r\n");
}

const isOfIPv6 = (init) => {
  try { return init !== null && parseCandidate(init.candidate).family === "ipv6"; } catch { return false; }
};

/** The description with its IPv4 candidates, and the end of candidates, taken out: {sdp, later}. Null if it does not name both
    families: then there is nothing to prefer. */
function withoutIPv4(sdp) {
  const families = new Set(), kept = [], later = [];
  let mid = null, index = -1, hasEnd = false;
  for (const line of sdp.split(/\r?\n/)) {
    if (line.startsWith("m=")) [mid, index] = [null, index + 1];
    else if (line.startsWith("a=mid:")) mid = line.slice(6);
    let family = null;
    if (line.startsWith("a=candidate:")) {
      try { ({family} = parseCandidate(line.slice(2))); } catch { /* the browser's affair */ }
    }
    if (family) families.add(family);
    if (family === "ipv4") later.push({candidate: line.slice(2), sdpMid: mid, sdpMLineIndex: Math.max(0, index)});
    else if (line === "a=end-of-candidates") hasEnd = true;
    else kept.push(line);
  }
  if (hasEnd) later.push(null);
  return families.size === 2 ? {sdp: kept.join("\r\n"), later} : null;
}

const addressesOf = (sdp) => [...sdp.matchAll(/^a=candidate:\S+ \d+ (\S+) \S+ (\S+) (\d+) /gm)]
  .slice(0, LIMITS.candidates)
  .map(([, transport, address, port]) =>
    `${transport.toLowerCase()} ${address.includes(":") ? `[${address}]` : address}:${port}`).join(", ");

const fingerprintOf = (sdp) => (/^a=fingerprint:(.*)$/m.exec(sdp) || ["", ""])[1].trim();

/* ---- Signaling -------------------------------------------------------------------------------- */

const within = (promise, milliseconds, failure) => {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(failure()), milliseconds); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

const noAnswer = (milliseconds) => new ReconnectError("unreachable", `no answer within ${milliseconds / 1000} s`, {timeout: true});

/** The body, as far as `most` bytes: one byte more is an error. */
async function textOf(response, most) {
  if (!response.body) return response.text();
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let text = "", size = 0;
  for (;;) {
    const {done, value} = await reader.read();
    if (done) return text + decoder.decode();
    size += value.length;
    if (size > most) {
      reader.cancel().catch(() => {});
      wrong(`an answer of more than ${most} bytes is too long`);
    }
    text += decoder.decode(value, {stream: true});
  }
}

export function fetchSignaling(url, {candidates, timeout = ANSWER_TIMEOUT, headers, ...init} = {}) {
  const post = (to, message, signal) => {
    const all = new Headers(headers);
    if (!all.has("Content-Type")) all.set("Content-Type", "application/json");
    return fetch(to, {...init, method: "POST", headers: all, body: JSON.stringify(message), signal});
  };
  const ask = async (offer, signal) => {
    let response, text;
    // By hand: AbortSignal.any and timeout are younger than what else is needed here.
    const controller = new AbortController();
    const abort = () => controller.abort();
    signal.addEventListener("abort", abort);
    if (signal.aborted) abort();
    try {
      const whole = async () => {
        response = await post(url, offer, controller.signal);
        text = await textOf(response, LIMITS.message);
      };
      await within(whole(), timeout, () => noAnswer(timeout));
    } catch (error) {
      abort();
      throw failureOf(error, "unreachable");
    } finally {
      signal.removeEventListener("abort", abort);
    }
    if (!response.ok) throw new ReconnectError("refused", `HTTP ${response.status} ${text.trim().slice(0, 300)}`);
    return parseAnswer(parsed(text, LIMITS.message, "the answer"));
  };
  return {
    exchange(offer, {signal}) {
      const answer = ask(offer, signal);
      if (candidates === undefined) return {answer};
      // In order, and not before the server knows whose they are.
      let last = answer.then(({sessionToken}) => sessionToken);
      last.catch(() => {});
      const sendCandidate = (candidate) => {
        last = last.then(async (sessionToken) => {
          await post(candidates, {candidate, sessionToken}, signal).catch(() => {});
          return sessionToken;
        });
        last.catch(() => {});
      };
      return {answer, sendCandidate};
    },
  };
}

export function webSocketSignaling(target, {protocols, timeout = ANSWER_TIMEOUT, warm = false} = {}) {
  const isOwn = typeof target === "string" || target instanceof URL;
  let socket = isOwn ? null : target;
  let pending = null;   // the exchange under way: {resolve, reject, onCandidate, answered}
  let owed = 0;         // answers that are still to come to offers nobody waits for any more
  let closed = false;

  const listen = (on) => {
    const gone = (detail) => {
      if (socket !== on) return;
      owed = 0;
      if (isOwn) socket = null;
      if (pending && !pending.answered) pending.reject(new ReconnectError("unreachable", detail));
    };
    on.addEventListener("message", ({data}) => { if (socket === on) take(data); });
    on.addEventListener("close", ({code}) => gone(`the socket closed with ${code}`));
    on.addEventListener("error", () => gone("the socket failed"));
    return on;
  };
  const take = (data) => {
    if (!pending && owed === 0) return;
    let message;
    try {
      message = parsed(data, LIMITS.message, "a signaling message");
      if (!isObject(message)) wrong("a signaling message is no object");
    } catch (error) {
      if (isOwn && pending && !pending.answered) pending.reject(error);
      return;   // on the caller's socket it may be the caller's
    }
    try {
      if (message.type === "answer") {
        if (owed > 0) { owed -= 1; return; }
        if (!pending || pending.answered) return;
        const answer = parseAnswer(message);
        pending.answered = true;
        pending.resolve(answer);
      } else if ("candidate" in message && pending && owed === 0) {
        pending.onCandidate(parseCandidateMessage(message));
      }
    } catch (error) {
      if (pending && !pending.answered) pending.reject(error);
    }
  };
  const open = () => {
    if (isOwn && !closed && (!socket || socket.readyState > WebSocket.OPEN)) {
      socket = listen(new WebSocket(target, protocols || []));
    }
    return socket;
  };
  const shut = () => {
    const old = socket;
    socket = null;
    owed = 0;
    if (old) old.close();
  };
  if (!isOwn) listen(socket);
  if (warm) open();

  return {
    warm() { try { open(); } catch { /* the exchange will tell */ } },
    exchange(offer, {signal, onCandidate}) {
      if (pending) {
        if (pending.sent && !pending.answered) owed += 1;
        pending.reject(new ReconnectError("overtaken", "another exchange began"));
      }
      // Which answer belongs to which offer cannot be told on one socket: a fresh one can.
      if (isOwn && owed > 0) shut();
      let mine;
      const answer = new Promise((resolve, reject) => { mine = pending = {resolve, reject, onCandidate, answered: false, sent: false}; });
      const send = (message) => {
        if (pending === mine && socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
      };
      const waiting = [];
      const sendOffer = () => {
        if (pending !== mine) return;
        mine.sent = true;
        send(offer);
        waiting.splice(0).forEach(send);
      };
      signal.addEventListener("abort", () => {
        if (pending !== mine) return;
        if (mine.sent && !mine.answered) owed += 1;
        pending = null;
        mine.reject(new ReconnectError("closed"));
      }, {once: true});
      try {
        const on = open();
        if (!on || on.readyState > WebSocket.OPEN) throw new Error("the socket is closed");
        if (on.readyState === WebSocket.OPEN) sendOffer();
        else on.addEventListener("open", sendOffer, {once: true});
      } catch (error) {
        mine.reject(failureOf(error, "unreachable"));
      }
      return {
        answer: within(answer, timeout, () => {
          if (mine.sent && pending === mine) owed += 1;
          return noAnswer(timeout);
        }).catch((error) => {
          if (pending === mine) pending = null;
          throw error;
        }),
        sendCandidate(candidate) {
          if (mine.sent) send({candidate});
          else if (waiting.length < LIMITS.early) waiting.push({candidate});
        },
      };
    },
    close() {
      closed = true;
      if (pending && !pending.answered) pending.reject(new ReconnectError("closed"));
      pending = null;
      if (isOwn) shut();
    },
  };
}

/* ---- What outlives the page ------------------------------------------------------------------- */

const requested = (request) => new Promise((resolve, reject) => {
  // Reading the result may throw: Firefox cannot read an expired certificate back.
  request.onsuccess = () => { try { resolve(request.result); } catch (error) { reject(error); } };
  request.onerror = () => reject(request.error);
  request.onblocked = () => reject(new Error("blocked"));
});

export function certificateStorage(database = "webrtc_connection", key = "dtls") {
  const use = async (mode, change) => {
    const opening = indexedDB.open(database, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("certificates");
    const opened = await requested(opening);
    try {
      const transaction = opened.transaction("certificates", mode);
      const complete = new Promise((resolve, reject) => {
        transaction.oncomplete = resolve;
        transaction.onabort = () => reject(transaction.error || new Error("aborted"));
      });
      complete.catch(() => {});
      const result = await requested(change(transaction.objectStore("certificates")));
      if (mode === "readwrite") await complete;
      return result;
    } finally {
      opened.close();
    }
  };
  return {
    get: () => use("readonly", (store) => store.get(key)),
    put: (certificate) => use("readwrite", (store) => store.put(certificate, key)),
    delete: () => use("readwrite", (store) => store.delete(key)),
  };
}

/** The certificate of the page: kept while there is a session to come back to, and no longer. */
class Identity {
  value = null;
  origin = "new";   // "kept", "new", "not kept" or "off"
  #storage;
  #warn;

  constructor(storage, warn) {
    this.#storage = storage;
    this.#warn = warn;
    if (!storage) this.origin = "off";
  }

  /** {certificate, isKnown}: a session and a ticket are bound to a known one. The certificate is null where it is
      switched off: the browser makes one for each peer. */
  async load(hasSession) {
    if (!this.#storage) return {certificate: null, isKnown: false};
    if (!hasSession) return {certificate: await this.renew(), isKnown: false};
    if (this.value && this.value.expires > Date.now()) return {certificate: this.value, isKnown: true};
    let kept;
    try {
      kept = await this.#inTurn(() => this.#storage.get());
    } catch (error) {
      this.#warn("certificate", failureOf(error, "storage"));
    }
    // Not one that ends during the visit: an expired one makes the constructor throw.
    if (kept instanceof RTCCertificate && kept.expires > Date.now() + CERTIFICATE_SLACK) {
      this.origin = "kept";
      this.value = kept;
      return {certificate: kept, isKnown: true};
    }
    return {certificate: await this.renew(), isKnown: false};
  }

  /** A new one. That it is kept is not waited for: settled() tells. */
  async renew() {
    if (!this.#storage) return null;
    const made = this.value = await RTCPeerConnection.generateCertificate({name: "ECDSA", namedCurve: "P-256"});
    this.origin = "new";
    this.#inTurn(() => this.#storage.put(made)).catch((error) => {
      if (this.value === made) this.origin = "not kept";
      this.#warn("certificate", failureOf(error, "storage"));
    });
    return made;
  }

  settled() { return this.#before; }

  async drop() {
    this.value = null;
    if (!this.#storage) return;
    try { await this.#inTurn(() => this.#storage.delete()); } catch { /* none kept */ }
  }

  #inTurn(does) {
    const done = this.#before.then(() => this.#timed(does()));
    this.#before = done.catch(() => {});
    return done;
  }
  #before = Promise.resolve();

  #timed(promise) {
    return within(promise, STORAGE_TIMEOUT, () => new ReconnectError("storage", "it does not answer", {timeout: true}));
  }
}

/** One item of text storage. Storage may be off, full, or hold anything. */
class Item {
  constructor(storage, name, warn) {
    Object.assign(this, {storage, name, warn});
  }
  #use(change, quiet) {
    try { return change(this.storage()); } catch (error) {
      if (!quiet) this.warn(this.name, failureOf(error, "storage"));
      return null;
    }
  }
  get() { return this.#use((storage) => storage.getItem(this.name)); }
  set(text) { return this.#use((storage) => { storage.setItem(this.name, text); return true; }) === true; }
  remove() { this.#use((storage) => storage.removeItem(this.name), true); }
}

/* A session belongs to one tab: the server lets a returning session take the place of the old
   connection. So a live page has token and ticket in memory only. When it leaves, it puts them into
   sessionStorage, for its own next load, and into localStorage, for the next tab; whoever comes first
   takes them out. A tab that is hidden puts them into sessionStorage too, in case the system ends it
   without a word; a duplicated tab, whose sessionStorage is a copy, finds nothing there. */
class Belongings {
  token = null;
  ticket = null;    // {ticket, client, timestamp}
  #own;
  #left;
  #warn;

  constructor(local, session, suffix, warn) {
    const items = (storage) => ({
      token: new Item(storage, `webrtc_connection_session${suffix}`, warn),
      ticket: new Item(storage, `webrtc_connection_ticket${suffix}`, warn),
    });
    this.#own = items(session);
    this.#left = items(local);
    this.#warn = warn;
  }

  claim() {
    const read = (items) => ({token: items.token.get(), ticket: items.ticket.get()});
    const isEmpty = (held) => held.token === null && held.ticket === null;
    const own = read(this.#own);
    const left = read(this.#left);
    const isSame = own.token !== null ? own.token === left.token : own.ticket === left.ticket;
    this.#clear(this.#own);
    if (isEmpty(own) || isSame) this.#clear(this.#left);
    const held = isEmpty(own) ? left : own;
    this.token = isToken(held.token) ? held.token : null;
    this.ticket = null;
    if (held.ticket !== null) {
      try { this.ticket = Belongings.parse(held.ticket); } catch (error) { this.#warn("ticket", error); }
    }
  }

  static parse(text, now = Date.now()) {
    const value = parsed(text, LIMITS.control, "the stored ticket");
    const ticket = parseTicket(value);
    const {client, timestamp} = value;
    if (!isText(client, 0, 256)) wrong("the stored ticket has a bad client");
    if (!isInteger(timestamp, 0, 8.64e15) || timestamp > now + CLOCK_SLACK) wrong("the stored ticket is from the future");
    return {ticket, client, timestamp};
  }

  hold(ticket, client) {
    this.ticket = ticket && {ticket, client, timestamp: Date.now()};
  }

  /** The page goes, or may go without a further word. */
  leave(forGood) {
    const {token} = this;
    const ticket = this.ticket && JSON.stringify({...this.ticket.ticket, client: this.ticket.client, timestamp: this.ticket.timestamp});
    const put = (items) => {
      if (token) items.token.set(token); else items.token.remove();
      if (ticket) items.ticket.set(ticket); else items.ticket.remove();
    };
    // As little as possible: when the address bar is used Firefox cancels the script of the page that leaves
    // (dom.ipc.cancel_content_js_when_navigating), without an exception, wherever it is.
    if (forGood && (token || ticket)) put(this.#left);
    const written = `${token} ${ticket}`;
    if (written !== this.#written) put(this.#own);
    this.#written = written;
  }
  #written = null;

  stay() { this.#clear(this.#own); }

  forget() {
    this.token = this.ticket = null;
    this.#clear(this.#own);
    this.#clear(this.#left);
  }

  #clear(items) {
    if (items === this.#own) this.#written = null;
    items.token.remove();
    items.ticket.remove();
  }
}

/* ---- Heartbeat --------------------------------------------------------------------------------- */

/** For browsers whose connection state lies: asks, and counts what is not answered. Anything heard is an answer. */
class Heartbeat {
  #options;
  #on;
  #timer = null;
  #last = 0;
  #sentAt = 0;
  #heard = false;
  #missed = 0;
  #smoothed = null;
  #variation = 0;

  constructor({interval = 5000, misses = 3, adaptive = false}, on) {
    this.#options = {interval, misses, adaptive};
    this.#on = on;    // {send(id), isMoving(), miss(count), lost(), time(milliseconds)}
    this.ask();
  }

  ask() {
    clearTimeout(this.#timer);
    this.#heard = false;
    this.#sentAt = performance.now();
    this.#on.send(++this.#last);
    this.#timer = setTimeout(() => this.#judge(), this.#patience);
  }

  heard() {
    this.#heard = true;
    this.#missed = 0;
  }

  answered(id) {
    this.heard();
    if (id !== this.#last || !this.#sentAt) return;
    const time = performance.now() - this.#sentAt;
    this.#sentAt = 0;
    // RFC 6298 section 2.
    if (this.#smoothed === null) {
      [this.#smoothed, this.#variation] = [time, time / 2];
    } else {
      this.#variation += (Math.abs(this.#smoothed - time) - this.#variation) / 4;
      this.#smoothed += (time - this.#smoothed) / 8;
    }
    this.#on.time(time);
  }

  stop() {
    clearTimeout(this.#timer);
    this.#timer = null;
  }

  get #patience() {
    const {interval, adaptive} = this.#options;
    if (!adaptive || this.#smoothed === null) return interval;
    return Math.min(interval, Math.max(500, this.#smoothed + 4 * this.#variation));
  }

  #judge() {
    if (this.#heard || this.#on.isMoving()) {
      this.#missed = 0;
      const rest = this.#options.interval - this.#patience;
      if (rest <= 0) return this.ask();
      this.#timer = setTimeout(() => this.ask(), rest);
      return undefined;
    }
    this.#missed += 1;
    this.#on.miss(this.#missed);
    if (this.#timer === null) return undefined;
    if (this.#missed >= this.#options.misses) {
      this.stop();
      return this.#on.lost();
    }
    return this.ask();
  }
}

/* ---- One attempt: one peer connection -------------------------------------------------------- */

class Attempt {
  mode;
  asked;               // the mode it began as
  timings = {};
  channels = new Map();
  control = null;
  peer = null;
  answer = null;
  description = "";    // of the server
  fingerprint = "";
  error = null;
  isOpen = false;
  isOver = false;
  onControl = null;
  announced = [];      // channels of the server that were there before this had won
  wasLive = false;
  protocol = "unknown";
  opened;
  #owner;
  #settle;
  #controller = new AbortController();
  #timer = null;
  #early = [];

  constructor(owner, mode, {token = null, ticket = null, client = "", prefersIPv6 = false}) {
    Object.assign(this, {mode, asked: mode, token, ticket, client, prefersIPv6});
    this.#owner = owner;
    this.opened = new Promise((resolve, reject) => { this.#settle = {resolve, reject}; });
    this.opened.catch(() => {});
  }

  begin(certificate) {
    const {options} = this.#owner;
    if (this.ticket) this.#limit(options.fastTimeout);
    this.#make(certificate).then(() => this.ticket ? this.#applyTicket() : this.#exchange())
      .catch((error) => this.fail(failureOf(error)));
    return this;
  }

  async #make(certificate) {
    const {options} = this.#owner;
    const configuration = {};
    if (certificate) configuration.certificates = [certificate];
    // With a ticket the server learns this side's addresses from the checks, unless only relays are allowed.
    if (options.iceServers && (!this.ticket || options.iceTransportPolicy === "relay")) configuration.iceServers = options.iceServers;
    if (options.iceTransportPolicy) configuration.iceTransportPolicy = options.iceTransportPolicy;
    const peer = this.peer = await this.#owner.makePeer(configuration, this.ticket);
    if (this.isOver) { peer.close(); throw new ReconnectError("closed"); }
    const observe = () => this.#observe();
    for (const change of ["iceconnectionstatechange", "connectionstatechange"]) peer.addEventListener(change, observe);
    peer.addEventListener("datachannel", ({channel}) => this.#owner.announce(this, channel));
    for (const {label, id, ...init} of options.channels) {
      const channel = peer.createDataChannel(label, id === undefined ? init : {...init, negotiated: true, id});
      channel.binaryType = "arraybuffer";
      this.channels.set(label, channel);
    }
    if (this.#owner.hasControl || options.channels.length === 0) {
      const {label, id} = CONTROL_CHANNEL;
      this.control = peer.createDataChannel(label, {negotiated: true, id});
      this.control.addEventListener("message", ({data}) => {
        if (this.onControl) this.onControl(data);
        else if (this.#early.length < LIMITS.early) this.#early.push(data);
      });
    }
    const awaited = options.channels.length ? [...this.channels.values()] : [this.control];
    let missing = awaited.length;
    for (const channel of awaited) {
      channel.addEventListener("open", () => { if (--missing === 0) this.#open(); }, {once: true});
      channel.addEventListener("close", () => this.fail(this.#failure(this.isOpen ? "ended" : this.#stage)));
    }
    if (!this.ticket) peer.addEventListener("icecandidate", ({candidate}) => this.#gathered(candidate));
    // No wait for candidates: the server learns them from the checks, or gets them as they come.
    await peer.setLocalDescription();
    observe();
    const local = peer.localDescription.sdp;
    this.fingerprint = fingerprintOf(local);
    this.#reach("prepared");
  }

  async #applyTicket() {
    // Only the key that the ticket was given to can use it.
    if (this.client && this.client !== this.fingerprint) throw new ReconnectError("dtls", "the ticket is for another certificate");
    await this.#describe(descriptionOf(this.ticket));
  }

  async #exchange() {
    const {options, hasControl} = this.#owner;
    const offer = {type: "offer", sdp: this.peer.localDescription.sdp};
    if (this.token) offer.sessionToken = this.token;
    if (hasControl) offer.ticket = true;
    const context = {signal: this.#controller.signal, onCandidate: (candidate) => this.#arrived(candidate)};
    this.#limit(options.normalTimeout, () => noAnswer(options.normalTimeout));
    const {answer, sendCandidate} = options.signaling.exchange(offer, context);
    if (sendCandidate) {
      this.#sendCandidate = sendCandidate;
      for (const candidate of this.#outgoing.splice(0)) sendCandidate(candidate);
    }
    const got = parseAnswer(await answer);
    if (this.isOver) return;
    this.answer = got;
    this.#reach("answer");
    const isFast = this.token !== null && got.connectionMode === "fast";
    if (this.mode === "fast" && !isFast) this.#owner.unknownSession(this);
    this.#limit(isFast ? options.fastTimeout : options.normalTimeout);
    await this.#describe(got.sdp);
  }

  async #describe(sdp) {
    this.description = sdp;
    const split = this.prefersIPv6 ? withoutIPv4(sdp) : null;
    try {
      await this.peer.setRemoteDescription({type: "answer", sdp: split ? split.sdp : sdp});
    } catch (error) {
      throw new ReconnectError("refused", error.message, {cause: error});
    }
    if (this.isOver) return;
    this.#isDescribed = true;
    if (split) {
      this.#behind = split.later;
      this.#headStart = setTimeout(() => this.#follow(), this.#owner.options.headStart);
    }
    this.#observe();
    for (const candidate of this.#incoming.splice(0)) this.#take(candidate);
  }

  // Candidates, both ways. They may come before there is somebody to take them.
  #outgoing = [];
  #incoming = [];
  #sendCandidate = null;
  #isDescribed = false;

  #gathered(candidate) {
    if (this.isOver) return;
    const init = candidate && candidate.candidate ? candidate.toJSON ? candidate.toJSON() : candidate : null;
    if (candidate && !init) return;   // the end of one component; null follows for all
    if (this.#sendCandidate) this.#sendCandidate(init);
    else if (this.#outgoing.length < LIMITS.early) this.#outgoing.push(init);
  }

  // A browser takes the path that answers first, whatever its priority. Where IPv6 worked the last time its
  // candidates go ahead; the others follow soon (RFC 8305 section 5, for ICE RFC 8421 section 4), so that an
  // IPv6 that has died since costs that little.
  #behind = null;
  #headStart = null;

  #follow() {
    clearTimeout(this.#headStart);
    const candidates = this.#behind || [];
    this.#behind = null;
    if (!this.isOver) for (const candidate of candidates) this.#add(candidate);
  }

  #take(candidate) {
    if (this.#behind && this.#behind.length <= 2 * LIMITS.candidates && !isOfIPv6(candidate)) this.#behind.push(candidate);
    else this.#add(candidate);
  }

  #arrived(candidate) {
    if (this.isOver) return;
    if (this.#isDescribed) this.#take(candidate);
    else if (this.#incoming.length < LIMITS.early) this.#incoming.push(candidate);
  }

  async #add(candidate) {
    try {
      await this.peer.addIceCandidate(candidate || {candidate: "", sdpMLineIndex: 0});
    } catch (error) {
      if (candidate && !this.isOver) this.#owner.warn("candidate", failureOf(error, "protocol"));
    }
  }

  #limit(milliseconds, failure = () => this.#failure(this.#stage, true)) {
    clearTimeout(this.#timer);
    if (!this.isOpen && !this.isOver) this.#timer = setTimeout(() => this.fail(failure()), milliseconds);
  }

  /** The first step that is missing. */
  get #stage() { return !("ice" in this.timings) ? "ice" : !("dtls" in this.timings) ? "dtls" : "channel"; }

  #failure(kind, timeout = false) {
    return new ReconnectError(kind, addressesOf(this.description), {timeout});
  }

  #reach(step) {
    if (step in this.timings || this.isOver) return;
    this.timings[step] = this.#owner.elapsed();
    this.#owner.reached(this, step);
  }

  #observe() {
    const {peer} = this;
    const dtls = peer.sctp && peer.sctp.transport;
    if (dtls && !this.#isObserved) {
      this.#isObserved = true;
      dtls.addEventListener("statechange", () => this.#observe());
    }
    const ice = peer.iceConnectionState;
    const all = peer.connectionState;
    if (ice === "connected" || ice === "completed") this.#reach("ice");
    if (all === "connected" || dtls && dtls.state === "connected") { this.#reach("ice"); this.#reach("dtls"); }
    // Firefox says "failed" of DTLS too when no path was found.
    if (this.#behind && (ice === "failed" || ice === "disconnected")) {
      this.#follow();
    } else if (ice === "failed" || all === "failed" || dtls && dtls.state === "failed") {
      this.fail(this.#failure(this.isOpen ? "lost" : this.#stage));
    } else if (this.isOpen) {
      this.#owner.wavered(this, ice === "disconnected");
    }
  }
  #isObserved = false;

  // "Won" is an open channel: a connectionState of "connected" may belong to a handshake that the server refuses.
  #open() {
    if (this.isOpen || this.isOver) return;
    for (const step of ["ice", "dtls", "open"]) this.#reach(step);
    this.isOpen = true;
    clearTimeout(this.#timer);
    this.#settle.resolve(this);
  }

  /** From now on the control channel's messages go there. */
  attend(onControl) {
    this.onControl = onControl;
    this.#early.splice(0).forEach(onControl);
  }

  fail(error) {
    if (this.isOver) return;
    const wasOpen = this.isOpen;
    this.error = error;
    this.#end();
    this.#settle.reject(error);
    if (wasOpen) this.#owner.lost(this, error);
  }

  stop(kind) {
    this.fail(new ReconnectError(kind));
  }

  /** Closes without telling: the owner has let go of it. */
  release() {
    this.error = this.error || new ReconnectError("closed");
    this.#end();
    this.#settle.reject(this.error);
  }

  #end() {
    if (this.isOver) return;
    this.isOver = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#headStart);
    this.#controller.abort();
    if (this.peer) this.peer.close();
  }
}

/** `family` of the path in use, null if the browser does not tell; `hasIPv6`: IPv6 has answered, in use or not. */
async function familiesOf(peer) {
  const transport = peer.sctp && peer.sctp.transport && peer.sctp.transport.iceTransport;
  const selected = transport && transport.getSelectedCandidatePair && transport.getSelectedCandidatePair();
  const told = selected && selected.remote && familyOf(selected.remote.address || "") || null;
  if (told === "ipv6") return {family: told, hasIPv6: true};
  const reports = await within(peer.getStats(), 2000, () => new Error("no statistics"));
  const pairs = [];
  let chosen = null;
  reports.forEach((report) => {
    if (report.type === "transport" && report.selectedCandidatePairId) chosen = reports.get(report.selectedCandidatePairId);
    if (report.type === "candidate-pair") pairs.push(report);
  });
  chosen = chosen || pairs.find((pair) => pair.selected || pair.nominated && pair.state === "succeeded");
  const familyAt = (pair) => {
    const remote = pair && reports.get(pair.remoteCandidateId);
    return remote ? familyOf(remote.address || remote.ip || "") : null;
  };
  const family = told || familyAt(chosen);
  return {family, hasIPv6: family === "ipv6" || pairs.some((pair) => pair.state === "succeeded" && familyAt(pair) === "ipv6")};
}

/* ---- The connection ---------------------------------------------------------------------------- */

const taken = new Set();   // keys of the open connections of this page

const checked = (given) => {
  const bad = (what) => { throw new ReconnectError("argument", what); };
  if (!isObject(given)) bad("options are missing");
  const options = {...DEFAULTS, ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))};
  if (!options.signaling || typeof options.signaling.exchange !== "function") bad("signaling has no exchange()");
  if (!isText(options.key, 1, 256)) bad("key is no text of 1 to 256 characters");
  if (!isInteger(options.headStart, 0, 1000)) bad("headStart is no integer from 0 to 1000");
  for (const name of ["fastTimeout", "normalTimeout", "maxCacheAge"]) {
    if (!isInteger(options[name], 1, 2147483647)) bad(`${name} is no positive integer`);
  }
  if (options.policy !== "race" && options.policy !== "fallback") bad("policy is neither race nor fallback");
  options.channels = options.channels || [];
  if (!Array.isArray(options.channels) || options.channels.length > 64) bad("channels is no list of at most 64");
  const labels = new Set(), ids = new Set([CONTROL_CHANNEL.id]);
  options.channels = options.channels.map((channel) => {
    if (!isObject(channel) || typeof channel.label !== "string") bad("a channel has no label");
    if (labels.has(channel.label)) bad(`two channels are called ${channel.label}`);
    labels.add(channel.label);
    if (channel.id !== undefined) {
      if (!isInteger(channel.id, 0, 65534)) bad("a channel has a bad id");
      if (ids.has(channel.id)) bad(`the id ${channel.id} is taken`);
      ids.add(channel.id);
    }
    return {...channel};
  });
  const beat = options.heartbeat;
  if (beat !== true && beat !== false) {
    if (!isObject(beat)) bad("heartbeat is neither a boolean nor an object");
    if (beat.interval !== undefined && !isInteger(beat.interval, 1, 2147483647)) bad("heartbeat.interval is no positive integer");
    if (beat.misses !== undefined && !isInteger(beat.misses, 1, 1000)) bad("heartbeat.misses is no positive integer");
  }
  if (beat === true) options.heartbeat = {adaptive: true};
  if (options.reconnect !== false) {
    const plan = {base: 250, max: 5000, attempts: 10, ...options.reconnect};
    if (!isInteger(plan.base, 1, 3600e3) || !isInteger(plan.max, 1, 3600e3) || !isInteger(plan.attempts, 1, 1e6)) bad("reconnect has a bad member");
    options.reconnect = plan;
  }
  return options;
};

const countsBy = (names) => Object.fromEntries(names.map((name) => [name, 0]));

export class Connection extends EventTarget {
  #options;
  #state = "idle";
  #enabled;
  #identity;
  #held;
  #item;                 // of the cache
  #entry = null;         // what the live connection has put there
  #resave = null;        // what the network change has removed, until the path has proved itself
  #run = null;           // the connect under way: {start, attempts, told, promise, isOver}
  #live = null;          // the attempt that won
  #liveSince = 0;
  #heartbeat = null;
  #hasPong = false;
  #warnings = 0;
  #unheard = [];         // warnings from before anybody could listen
  #touching = null;
  #tries = 0;
  #retry = null;
  #isClosed = false;
  #listening = new AbortController();
  #inner;                // what attempts may use of this

  metrics = {
    cacheHits: 0, cacheMisses: 0,
    attempts: Object.fromEntries(MODES.map((mode) => [mode, countsBy([...PROTOCOLS, "unknown"])])),
    fallbacks: Object.fromEntries([...PROTOCOLS, "unknown"].map((protocol) => [protocol, {}])),
    connections: countsBy(MODES),
    connectionTimes: [], failures: 0, losses: 0, ipv6Available: null, roundTripTime: null,
  };

  constructor(given) {
    super();
    const options = this.#options = checked(given);
    if (taken.has(options.key)) throw new ReconnectError("busy", `the key ${options.key} has an open connection in this page`);
    taken.add(options.key);
    this.#enabled = options.enabled !== false;
    const {storage = {}} = options;
    const local = () => storage.local || globalThis.localStorage;
    const session = () => storage.session || globalThis.sessionStorage;
    const warn = (what, error) => this.#warn(what, error);
    const suffix = options.key === DEFAULTS.key ? "" : `:${options.key}`;
    const certificates = storage.certificates || certificateStorage(undefined, `dtls${suffix}`);
    this.#identity = new Identity(options.certificate ? certificates : null, warn);
    this.#item = new Item(local, `webrtc_connection_cache${suffix}`, warn);
    this.#held = new Belongings(local, session, suffix, warn);
    this.#inner = {
      options,
      hasControl: options.certificate && options.tickets || Boolean(options.heartbeat),
      elapsed: () => performance.now() - this.#run.start,
      makePeer: (configuration, ticket) => this.#makePeer(configuration, ticket),
      reached: (attempt, step) => this.#tell("step", {mode: attempt.mode, step, time: attempt.timings[step], timings: {...attempt.timings}}),
      unknownSession: (attempt) => this.#unknownSession(attempt),
      wavered: (attempt, isInterrupted) => this.#wavered(attempt, isInterrupted),
      lost: (attempt, error) => this.#lost(attempt, error),
      announce: (attempt, channel) => {
        if (this.#live === attempt) this.#tell("datachannel", {channel});
        else if (attempt.announced.length < LIMITS.early) attempt.announced.push(channel);
      },
      warn,
    };
    if (options.certificate) this.#held.claim();
    this.#listen();
  }

  get key() { return this.#options.key; }
  get state() { return this.#state; }
  get enabled() { return this.#enabled; }
  get mode() { return this.#live && this.#live.mode; }
  get peer() { return this.#live && this.#live.peer; }
  get channels() { return this.#live ? this.#live.channels : new Map(); }
  get session() {
    return {
      token: this.#held.token,
      ticket: this.#held.ticket && this.#held.ticket.ticket,
      certificate: this.#identity.origin,
      fingerprint: this.#fingerprint,
    };
  }
  #fingerprint = null;

  connect() {
    if (this.#isClosed) return Promise.reject(new ReconnectError("closed"));
    if (this.#run && !this.#run.isOver || this.#live) return this.#run.promise;
    clearTimeout(this.#retry);
    this.#retry = null;
    const run = this.#run = {start: performance.now(), attempts: [], told: [], isOver: false, promise: null};
    run.promise = this.#connect(run).finally(() => { run.isOver = true; });
    return run.promise;
  }

  reconnect() {
    this.#drop("closed");
    return this.connect();
  }

  createDataChannel(label, init) {
    if (!this.#live) throw new ReconnectError("closed", "not connected");
    return this.#live.peer.createDataChannel(label, init);
  }

  setEnabled(enabled) { this.#enabled = Boolean(enabled); }

  async forget() {
    this.#held.forget();
    this.#entry = this.#resave = null;
    this.#clearCache("forget");
    await this.#identity.drop();
  }

  disconnect() {
    if (this.#isClosed) return;
    this.#drop("closed");
    this.#setState("idle", "closed");
  }

  close() {
    if (this.#isClosed) return;
    this.#leave(true);
    this.#drop("closed");
    this.#isClosed = true;
    taken.delete(this.#options.key);
    this.#listening.abort();
    this.#setState("closed", null);
  }

  /* ---- One connect: a fast attempt may be followed by one in normal mode, never by more ------- */

  async #connect(run) {
    const unheard = this.#unheard || [];
    this.#unheard = null;
    for (const warning of unheard) this.#tell("warning", warning);
    this.#setState("connecting", null);
    let fallback = null;
    let winner;
    let tokenSent = false;
    let failedFrom = null;
    try {
      if (!this.#options.createPeer && typeof globalThis.RTCPeerConnection !== "function") throw new ReconnectError("unsupported");
      const plan = this.#plan(run);
      if (!plan.ticket && this.#options.signaling.warm) this.#options.signaling.warm();
      const {certificate, isKnown} = await this.#identity.load(plan.hasSession);
      if (run.isOver) throw new ReconnectError("closed");
      if (plan.ticket && !isKnown) {
        this.#skip(run, "zero-signaling", "certificate");
        Object.assign(plan, {ticket: null, reason: "certificate"});
      }
      if (plan.ticket) {
        const {protocol, prefersIPv6, ticket: {ticket, client}} = plan;
        const quick = this.#begin(run, "zero-signaling", {ticket, client, protocol, prefersIPv6}, certificate, null);
        if (this.#options.policy === "race") {
          const slow = this.#begin(run, "normal", {prefersIPv6}, certificate, "race");
          winner = await this.#race(quick, slow);
          if (winner === slow && quick.error.kind !== "overtaken") fallback = quick.error.kind;
        } else {
          try {
            winner = await quick.opened;
          } catch (error) {
            if (run.isOver) throw error;
            fallback = error.kind;
            failedFrom = this.#elapsed(run);
            winner = await this.#begin(run, "normal", {}, certificate, reasonOf(error)).opened;
          }
        }
      } else if (plan.token) {
        tokenSent = true;
        const quick = this.#begin(run, "fast", {token: plan.token, protocol: plan.protocol, prefersIPv6: plan.prefersIPv6}, certificate, null);
        try {
          winner = await quick.opened;
        } catch (error) {
          // Without an answer, or answered as a new client, there is nothing else to try.
          const isFast = quick.answer && quick.mode === "fast" && ["ice", "dtls", "channel", "ended", "refused"].includes(error.kind);
          if (run.isOver || !isFast) throw error;
          fallback = error.kind;
          failedFrom = this.#elapsed(run);
          this.#discard(quick);
          this.#tell("step", {mode: "normal", step: "fallback", time: failedFrom, timings: {fallback: failedFrom}});
          winner = await this.#begin(run, "normal", {}, certificate, reasonOf(error)).opened;
        }
      } else {
        winner = await this.#begin(run, "normal", {}, certificate, plan.reason).opened;
      }
    } catch (error) {
      const failure = failureOf(error);
      for (const attempt of run.attempts) attempt.release();
      if (run.isOver || this.#run !== run) throw failure;
      run.isOver = true;
      // Without any answer nothing is known about what was used: it stays. Otherwise it goes.
      if (failure.kind !== "unreachable") run.attempts.forEach((attempt) => this.#discard(attempt));
      this.metrics.failures += 1;
      this.#logConnect(run, "normal", this.#held.token, "none", "failure");
      this.#setState("failed", failure.kind);
      this.#schedule();
      throw failure;
    }
    return this.#won(run, winner, {fallback, tokenSent, failedFrom});
  }

  /** What there is to come back with. */
  #plan(run) {
    const {options} = this.#inner;
    const plan = {ticket: null, token: null, hasSession: false, protocol: "unknown", reason: null, prefersIPv6: false};
    if (!options.certificate) {
      plan.reason = "no-certificate";
      return plan;
    }
    const {entry, reason} = this.#loadCache();
    plan.prefersIPv6 = this.#prefersIPv6(entry);
    const held = this.#held.ticket;
    const now = Date.now();
    const whyNot = !this.#enabled ? "disabled" : !options.tickets ? "off" : !held ? "no-ticket"
      : held.ticket.expires < now + TICKET_SLACK ? "expired" : held.ticket.derivedInit ? "derived-init" : null;
    if (held && held.ticket.expires < now + TICKET_SLACK) this.#held.hold(null);
    plan.hasSession = entry !== null || this.#held.ticket !== null;
    if (!whyNot) {
      plan.ticket = held;
      plan.protocol = sorted(held.ticket.candidates).lastSuccessfulProtocol;
      return plan;
    }
    this.#skip(run, "zero-signaling", whyNot);
    plan.reason = !this.#enabled ? "disabled" : !entry ? reason : !this.#held.token ? "no-token" : null;
    if (plan.reason) this.#skip(run, "fast", plan.reason);
    else Object.assign(plan, {token: this.#held.token, protocol: entry.lastSuccessfulProtocol});
    return plan;
  }

  /** Timers of hidden pages come late: there all candidates are used at once. */
  #prefersIPv6(entry) {
    const isHidden = globalThis.document && document.visibilityState === "hidden";
    return this.#enabled && this.#options.headStart > 0 && !isHidden && entry !== null
      && entry.lastConnectedIPv6 !== undefined && entry.lastSuccessfulProtocol !== "ipv4";
  }

  #begin(run, mode, {protocol = "unknown", ...given}, certificate, reason) {
    const attempt = new Attempt(this.#inner, mode, given);
    attempt.protocol = protocol;
    run.attempts.push(attempt);
    this.metrics.attempts[mode][protocol] += 1;
    this.#tellAttempt(run, mode, "started", reason);
    attempt.opened.catch((error) => {
      if (this.#live === attempt || attempt.wasLive) return;
      const wasStopped = error.kind === "overtaken" || error.kind === "closed";
      this.#tellAttempt(run, attempt.mode, wasStopped ? "stopped" : "failed", reasonOf(error), error);
      if (!wasStopped && attempt.mode !== "normal") this.#countFallback(run, attempt, reasonOf(error));
    });
    return attempt.begin(certificate);
  }

  async #race(quick, slow) {
    try {
      await Promise.any([quick.opened, slow.opened]);
    } catch {
      throw slow.error;
    }
    const [winner, loser] = quick.isOpen && !quick.isOver ? [quick, slow] : [slow, quick];
    loser.stop("overtaken");
    return winner;
  }

  async #makePeer(configuration, ticket) {
    const make = this.#options.createPeer || ((with_) => new RTCPeerConnection(with_));
    try {
      return make(configuration);
    } catch (error) {
      if (!configuration.certificates) throw failureOf(error, "unsupported");
      // An expired certificate; a ticket is worth nothing with another one.
      const certificate = await this.#identity.renew();
      if (ticket) throw new ReconnectError("dtls", "the certificate could not be used", {cause: error});
      try {
        return make({...configuration, certificates: [certificate]});
      } catch (second) {
        throw failureOf(second, "unsupported");
      }
    }
  }

  #unknownSession(attempt) {
    const run = this.#run;
    this.#tellAttempt(run, "fast", "failed", "session-unknown");
    this.#countFallback(run, attempt, "session-unknown");
    attempt.mode = "normal";
    this.#tellAttempt(run, "normal", "started", "session-unknown");
  }

  async #won(run, attempt, {fallback, tokenSent, failedFrom}) {
    if (run.isOver || this.#run !== run || attempt.isOver) {
      attempt.release();
      if (this.#run === run && !run.isOver) {   // closed as soon as it was open
        run.isOver = true;
        this.metrics.failures += 1;
        this.#setState("failed", attempt.error.kind);
        this.#schedule();
      }
      throw attempt.error;
    }
    const {answer, ticket} = attempt;
    attempt.wasLive = true;
    this.#live = attempt;
    this.#liveSince = performance.now();
    this.#fingerprint = attempt.fingerprint;
    // Who gives out tickets has the control channel.
    this.#hasPong = attempt.mode === "zero-signaling" || answer !== null && isObject(answer.ticket);
    this.#warnings = 0;
    this.metrics.connections[attempt.mode] += 1;
    this.#tellAttempt(run, attempt.mode, "won", null);
    const groups = ticket ? sorted(ticket.candidates) : extractCandidates(attempt.description);
    if (answer) {
      this.#held.token = answer.sessionToken || null;
      this.#takeTicket(answer.ticket === undefined ? null : answer.ticket, attempt);
    }
    this.#keepHeld();
    const result = {
      mode: attempt.mode, fallback, tokenSent,
      timings: failedFrom === null ? {...attempt.timings} : {fallback: failedFrom, ...attempt.timings},
      certificate: this.#identity.origin, fingerprint: attempt.fingerprint,
      address: addressesOf(ticket ? descriptionOf(ticket) : attempt.description),
      protocol: groups.lastSuccessfulProtocol, attempts: run.told,
    };
    this.#saveCache({...groups, timestamp: Date.now(), sessionId: this.#held.token});
    this.#logCandidates(groups);
    this.#attend(attempt);
    this.#setState("connected", attempt.mode);
    this.#tell("connected", result);
    for (const channel of attempt.announced.splice(0)) this.#tell("datachannel", {channel});
    this.#learn(run, attempt, result);
    // Who reloads as soon as this resolves comes back.
    await this.#identity.settled();
    result.certificate = this.#identity.origin;
    return result;
  }

  /** Which family the path is of; some browsers say so only after a while. */
  async #learn(run, attempt, result) {
    let found = {family: null, hasIPv6: false};
    try { found = await familiesOf(attempt.peer); } catch { /* it does not tell */ }
    const offered = result.protocol;
    if (found.family) result.protocol = found.family;
    this.metrics.connectionTimes.push({mode: attempt.mode, protocol: result.protocol, milliseconds: result.timings.open});
    this.metrics.connectionTimes.splice(0, this.metrics.connectionTimes.length - 64);
    if (found.hasIPv6) this.metrics.ipv6Available = true;
    else if (found.family === "ipv4" && offered === "both") this.metrics.ipv6Available = false;
    this.#logConnect(run, attempt.mode, this.#held.token, result.protocol, "success", result.timings.open);
    if (this.#live !== attempt) return;
    this.#keepFamilies(found);
    // IPv6 may have answered just after IPv4, or be in use by now.
    if (found.family === "ipv4" && offered === "both") this.#looking = setTimeout(() => this.#lookAgain(attempt), LOOK_AGAIN);
  }
  #looking = null;

  async #lookAgain(attempt) {
    let found;
    try { found = await familiesOf(attempt.peer); } catch { return; }
    if (this.#live !== attempt || !found.hasIPv6) return;
    this.metrics.ipv6Available = true;
    this.#keepFamilies(found);
  }

  /** "both": IPv4 is in use, and IPv6 works too. */
  #keepFamilies({family, hasIPv6}) {
    const entry = this.#entry;
    if (!family || !entry) return;
    const lastConnectedIPv6 = family === "ipv6";
    const lastSuccessfulProtocol = hasIPv6 && !lastConnectedIPv6 ? "both" : family;
    if (entry.lastConnectedIPv6 === lastConnectedIPv6 && entry.lastSuccessfulProtocol === lastSuccessfulProtocol) return;
    this.#saveCache({...entry, lastSuccessfulProtocol, lastConnectedIPv6});
  }

  /* ---- A live connection ----------------------------------------------------------------------- */

  #attend(attempt) {
    const {options} = this.#inner;
    this.#touching = setInterval(() => this.#touch(), TOUCH_INTERVAL);
    if (attempt.control) attempt.attend((data) => this.#takeControl(attempt, data));
    if (!options.heartbeat || !attempt.control) return;
    const channels = [...attempt.channels.values()];
    let queued = 0;
    const begin = () => {
      if (this.#live !== attempt) return;
      this.#heartbeat = new Heartbeat(options.heartbeat, {
        send: (id) => this.#sendControl(attempt, {type: "ping", id}),
        // What leaves the queue has been acknowledged, or other data before it has.
        isMoving: () => {
          const before = queued;
          queued = channels.reduce((sum, channel) => sum + (channel.bufferedAmount || 0), 0);
          return queued < before;
        },
        miss: (count) => {
          if (this.#hasPong || count < (options.heartbeat.misses || 3)) return;
          this.#heartbeat.stop();
          this.#warn("heartbeat", new ReconnectError("protocol", "the server does not answer pings"));
        },
        lost: () => attempt.fail(new ReconnectError("lost", "no heartbeat")),
        time: (milliseconds) => { this.metrics.roundTripTime = milliseconds; },
      });
      for (const channel of channels) channel.addEventListener("message", () => this.#heard(attempt));
    };
    if (attempt.control.readyState === "open") begin();
    else attempt.control.addEventListener("open", begin, {once: true});
  }

  #heard(attempt) {
    if (this.#live !== attempt) return;
    if (this.#heartbeat) this.#heartbeat.heard();
    if (this.#resave) {
      const entry = this.#resave;
      this.#resave = null;
      this.#saveCache({...entry, timestamp: Date.now()});
    }
  }

  #takeControl(attempt, data) {
    if (this.#live !== attempt) return;
    try {
      const message = parsed(data, LIMITS.control, "a control message");
      if (!isObject(message)) wrong("a control message is no object");
      const {type, id} = message;
      if (type === "ticket") {
        const {sessionToken} = message;
        if (sessionToken !== undefined && sessionToken !== null && !isToken(sessionToken)) wrong("a control message has a bad sessionToken");
        const ticket = parseTicket(message.ticket);
        this.#hasPong = true;
        if (sessionToken) this.#held.token = sessionToken;
        this.#takeTicket(ticket, attempt);
        this.#keepHeld();
        const groups = sorted(ticket.candidates);
        this.#saveCache({...(this.#entry || {}), ...groups, timestamp: Date.now(), sessionId: this.#held.token,
          lastSuccessfulProtocol: this.#entry ? this.#entry.lastSuccessfulProtocol : groups.lastSuccessfulProtocol});
      } else if (type === "ping" || type === "pong") {
        if (!isInteger(id, -Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER)) wrong(`a ${type} has a bad id`);
        if (type === "ping") {
          this.#sendControl(attempt, {type: "pong", id});
        } else {
          this.#hasPong = true;
          if (this.#heartbeat) this.#heartbeat.answered(id);
        }
      } else if (typeof type !== "string") {
        wrong("a control message has no type");
      }
    } catch (error) {
      this.#warn("control", failureOf(error, "protocol"));
      return;
    }
    this.#heard(attempt);
  }

  #sendControl(attempt, message) {
    const {control} = attempt;
    // Somebody who asks faster than he takes the answers gets no more of them.
    if (control.readyState !== "open" || control.bufferedAmount > LIMITS.control) return;
    try { control.send(JSON.stringify(message)); } catch (error) { this.#warn("control", failureOf(error)); }
  }

  #takeTicket(value, attempt) {
    const {options} = this.#inner;
    if (!options.tickets || !options.certificate) return;
    let ticket = null;
    try { ticket = value && parseTicket(value); } catch (error) { this.#warn("ticket", error); }
    this.#held.hold(ticket, attempt.fingerprint);
    if (ticket) this.#tell("ticket", {expires: ticket.expires});
  }

  #wavered(attempt, isInterrupted) {
    if (this.#live !== attempt) return;
    if (isInterrupted && this.#state === "connected") {
      this.#setState("interrupted", "ice");
      if (this.#heartbeat) this.#heartbeat.ask();
    } else if (!isInterrupted && this.#state === "interrupted" && attempt.peer.connectionState === "connected") {
      this.#setState("connected", attempt.mode);
    }
  }

  #lost(attempt, error) {
    if (this.#live !== attempt) return;
    this.#release();
    this.metrics.losses += 1;
    this.#setState("failed", error.kind);
    this.#tell("lost", {kind: error.kind, error});
    if (performance.now() - this.#liveSince > STABLE) this.#tries = 0;
    this.#schedule();
  }

  /** Lets go of what is under way, without an event. */
  #drop(kind) {
    clearTimeout(this.#retry);
    this.#retry = null;
    this.#tries = 0;
    const run = this.#run;
    if (run && !run.isOver) {
      run.isOver = true;
      for (const attempt of run.attempts) attempt.stop(kind);
    }
    const live = this.#live;
    if (live) {
      this.#touch();
      this.#release();
      live.release();
    }
  }

  #release() {
    this.#live = null;
    if (this.#heartbeat) this.#heartbeat.stop();
    this.#heartbeat = null;
    clearInterval(this.#touching);
    clearTimeout(this.#looking);
    this.#entry = this.#resave = null;
  }

  #schedule() {
    const plan = this.#options.reconnect;
    if (!plan || this.#isClosed) return;
    if (this.#tries >= plan.attempts) {
      this.#warn("reconnect", new ReconnectError("unreachable", `given up after ${this.#tries} attempts`));
      return;
    }
    // Full jitter: many clients of a server that was away shall not come at once.
    const wait = Math.random() * Math.min(plan.max, plan.base * 2 ** this.#tries);
    this.#tries += 1;
    this.#retry = setTimeout(() => this.connect().catch(() => {}), wait);
  }

  /* ---- The cache ------------------------------------------------------------------------------- */

  #loadCache() {
    const text = this.#item.get();
    let entry = null, reason = null, age = null;
    if (text === null || text === undefined) {
      reason = "no-cache";
    } else {
      try {
        entry = parseCacheEntry(text);
        age = Date.now() - entry.timestamp;
        if (age > this.#options.maxCacheAge) reason = "stale";
      } catch (error) {
        reason = "corrupt";
        this.#warn("cache", failureOf(error, "storage"));
      }
      if (reason) this.#item.remove();
    }
    this.metrics[reason ? "cacheMisses" : "cacheHits"] += 1;
    this.#tellCache("load", entry, reason, age);
    return {entry: reason ? null : entry, reason};
  }

  #saveCache(entry) {
    if (!this.#options.certificate || !isToken(entry.sessionId)) return;
    const order = [...GROUPS.map(([name]) => name), "lastSuccessfulProtocol", "timestamp", "sessionId", "lastConnectedIPv6"];
    this.#entry = Object.fromEntries(order.filter((name) => entry[name] !== undefined).map((name) => [name, entry[name]]));
    const isSaved = this.#item.set(JSON.stringify(this.#entry));
    if (!isSaved) this.#entry = null;
    this.#tellCache("save", entry, isSaved ? null : "storage", 0);
  }

  #clearCache(reason) {
    this.#item.remove();
    this.#tellCache("clear", null, reason, null);
  }

  /** The age of an entry counts from when the connection was last alive. */
  #touch() {
    if (!this.#live || !this.#entry) return;
    this.#entry.timestamp = Date.now();
    if (!this.#item.set(JSON.stringify(this.#entry))) this.#entry = null;
  }

  /** After a failure: whatever this attempt came with is of no use. */
  #discard(attempt) {
    if (attempt.isOpen || attempt.error && ["overtaken", "closed", "unreachable"].includes(attempt.error.kind)) return;
    if (attempt.ticket) {
      this.#held.hold(null);
    } else if (attempt.token) {
      this.#held.token = null;
      this.#held.hold(null);
      this.#clearCache(attempt.error ? attempt.error.kind : "failure");
    }
    this.#keepHeld();
  }

  /* ---- The page's life ------------------------------------------------------------------------- */

  #listen() {
    const {signal} = this.#listening;
    const on = (target, name, does) => { if (target && target.addEventListener) target.addEventListener(name, does, {signal}); };
    on(globalThis, "pagehide", () => this.#leave(true));
    on(globalThis, "pageshow", ({persisted}) => {
      if (persisted && this.#options.certificate) this.#held.claim();   // back from the browser's page cache
    });
    on(globalThis.document, "visibilitychange", () => {
      if (document.visibilityState === "hidden") this.#leave(false);
      else this.#returned();
    });
    on(globalThis, "online", () => this.#networkChanged());
    const network = globalThis.navigator && navigator.connection;
    let type = network && network.type;
    on(network, "change", () => {
      // It changes with every estimate of the bandwidth too.
      if (network.type !== type && type !== undefined) this.#networkChanged();
      type = network.type;
    });
  }

  #leave(forGood) {
    if (!this.#options.certificate) return;
    if (forGood) this.#touch();
    this.#held.leave(forGood);
  }

  #keepHeld() {
    if (this.#options.certificate && globalThis.document && document.visibilityState === "hidden") this.#held.leave(false);
  }

  #returned() {
    if (this.#options.certificate) this.#held.stay();
    if (this.#heartbeat) this.#heartbeat.ask();
  }

  #networkChanged() {
    const entry = this.#entry;
    if (entry || this.#item.get() !== null) this.#clearCache("network-change");
    this.#entry = null;
    this.#resave = this.#live ? entry : null;
    if (this.#heartbeat) this.#heartbeat.ask();
    if (this.#retry !== null) this.connect().catch(() => {});   // no use in waiting longer
  }

  /* ---- What is told ---------------------------------------------------------------------------- */

  #elapsed(run) { return performance.now() - run.start; }

  #tell(type, detail) { this.dispatchEvent(new CustomEvent(type, {detail})); }

  #setState(state, reason) {
    this.#state = state;
    this.#tell("state", {state, reason});
  }

  #tellAttempt(run, mode, state, reason, error = null) {
    const detail = {mode, state, reason, time: this.#elapsed(run), error};
    run.told.push(detail);
    this.#tell("attempt", detail);
  }

  #skip(run, mode, reason) { this.#tellAttempt(run, mode, "skipped", reason); }

  #countFallback(run, attempt, reason) {
    const counts = this.metrics.fallbacks[attempt.protocol];
    counts[reason] = (counts[reason] || 0) + 1;
    const protocol = attempt.protocol === "unknown" ? "none" : attempt.protocol;
    this.#logConnect(run, attempt.mode, this.#held.token, protocol, "fallback");
  }

  #warn(what, error) {
    if (++this.#warnings > 100) return;   // somebody who floods
    if (this.#unheard) this.#unheard.push({what, error});
    else this.#tell("warning", {what, error});
  }

  #tellCache(action, entry, reason, age) {
    const count = (family) => entry ? GROUPS.reduce((sum, [name, of]) => sum + (of === family && entry[name] ? entry[name].length : 0), 0) : 0;
    const detail = {action, valid: entry !== null && !reason, age, ipv6: count("ipv6"), ipv4: count("ipv4"),
      protocol: entry ? entry.lastSuccessfulProtocol : null, reason};
    this.#tell("cache", detail);
    this.#log(`[CACHE] Action=${action} Age=${Math.max(0, Math.floor((age || 0) / 1000))}s Valid=${detail.valid} `
      + `IPv6=${detail.ipv6} IPv4=${detail.ipv4} Protocol=${detail.protocol || "none"}`);
  }

  #logConnect(run, mode, token, protocol, result, time = this.#elapsed(run)) {
    // A token is shown by the first characters of its random part.
    const shown = token ? token.replace(/^session-/, "").slice(0, 8) : "none";
    this.#log(`[${mode === "normal" ? "NORMAL" : "FAST_RELOAD"}] Session=${shown} Mode=${mode} Protocol=${protocol} `
      + `Duration=${Math.round(time)}ms Result=${result}`);
  }

  #logCandidates(groups) {
    this.#log(`[CANDIDATE] IPv6 Host=${groups.ipv6HostCandidates.length} IPv6 srflx=${groups.ipv6SrflxCandidates.length} `
      + `IPv4 srflx=${groups.ipv4SrflxCandidates.length} IPv4 relay=${groups.ipv4RelayCandidates.length}`);
  }

  #log(line) {
    if (!this.#options.log) return;
    try { this.#options.log(line); } catch { /* the host's own affair */ }
  }
}

const reasonOf = (error) => error.timeout ? "timeout" : error.kind;
