/** A room of router.py: a WebSocket that comes back by itself and says what was missed. No dependencies.

    const room = new Room({url: "ws://host/webrtc/rooms/lobby/socket", access: "..."});
    room.addEventListener("message", ({detail}) => ...);      // {sequence, from, to, kind, data, replayed}
    room.addEventListener("reconnection", ({detail}) => ...); // {disconnectDuration, missed, recovered, reason, verdict}
    room.addEventListener("state", ({detail}) => ...);        // {state, code, reason}
    room.connect();
    await room.send({any: "JSON"});                           // stored, once, also if the socket ends meanwhile

States: "connecting", "open", "waiting" (comes back by itself), "closed". */

const REPLACED = 4409;
const FINAL = new Set([4400, 4401, REPLACED]);
const ACK_INTERVAL = 1000;
const MAX_OUTBOX = 1000;

const identifier = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");

export class Room extends EventTarget {
  #url;
  #access;
  #storage;
  #key;
  #socket = null;
  #timer = null;
  #ackTimer = null;
  #acknowledged = null;
  #failures = 0;
  #outbox = new Map();   // id: {frame, resolve, reject}; what has no receipt yet, in order
  #missing = 0;          // of a replay, still to come

  /** `storage` (for example sessionStorage) keeps under `key` what is needed to come back after a reload. */
  constructor({url, access, storage = null, key = url}) {
    super();
    this.#url = url;
    this.#access = access;
    this.#storage = storage;
    this.#key = key;
    this.state = "closed";
    this.position = null;
    this.token = null;
    try {
      const kept = JSON.parse(storage?.getItem(key) ?? "null");
      if (kept) ({position: this.position, token: this.token} = kept);
    } catch { /* nothing that could be used */ }
  }

  connect() {
    clearTimeout(this.#timer);
    if (this.#socket) return;
    this.#become("connecting");
    const socket = this.#socket = new WebSocket(this.#url);
    socket.onopen = () => socket.send(JSON.stringify(
      {type: "join", access: this.#access, position: this.position ?? undefined, token: this.token ?? undefined}));
    socket.onmessage = ({data}) => {
      if (socket === this.#socket) this.#take(JSON.parse(data));
    };
    socket.onclose = ({code, reason}) => {
      if (socket === this.#socket) this.#ended(code, reason);
    };
  }

  /** Ends the socket, not the membership: connect() comes back. */
  cut() {
    const socket = this.#socket;
    clearTimeout(this.#timer);
    this.#socket = null;
    this.#stop();
    socket?.close(1000, "cut");
    this.#become("closed");
  }

  /** Leaves for good: there is nothing to come back to. */
  leave() {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify({type: "leave"}));
    this.cut();
    this.position = this.token = null;
    this.#storage?.removeItem(this.#key);
    for (const {reject} of this.#outbox.values()) reject(new Error("left"));
    this.#outbox.clear();
  }

  /** Promise of {sequence, duplicate}. While the room is away the message waits. */
  send(data, {to, kind, negotiation} = {}) {
    if (this.#outbox.size >= MAX_OUTBOX) return Promise.reject(new Error("too many messages wait"));
    const id = identifier();
    const frame = JSON.stringify({type: "message", id, to, kind, negotiation, data});
    return new Promise((resolve, reject) => {
      this.#outbox.set(id, {frame, resolve, reject});
      if (this.state === "open") this.#socket.send(frame);
    });
  }

  #take(frame) {
    switch (frame.type) {
      case "joined":
        this.token = frame.token;
        if (frame.position) this.#stand(frame.position);
        if (this.state !== "open") {
          this.#failures = 0;
          this.#become("open");
          this.#ackTimer = setInterval(() => this.#acknowledge(), ACK_INTERVAL);
          // Stored once, however often they are sent.
          for (const {frame: waiting} of this.#outbox.values()) this.#socket.send(waiting);
        }
        break;
      case "reconnection-detected": {
        const {disconnect_duration: disconnectDuration, missed_message_count: missed, recovered, reason, verdict} = frame;
        this.#missing = missed;
        // With missed messages the last of them brings the position: a cut in between costs nothing.
        if (missed === 0) this.#stand(frame.position);
        this.#tell("reconnection", {disconnectDuration, missed, recovered, reason, verdict});
        break;
      }
      case "messages":
        for (const message of frame.messages) {
          const replayed = this.#missing > 0;
          if (replayed) this.#missing -= 1;
          this.#tell("message", {...message, replayed});
        }
        if (frame.position) this.#stand(frame.position);
        break;
      case "position":
        this.#stand(frame.position);
        break;
      case "sent": {
        this.#outbox.get(frame.id)?.resolve({sequence: frame.sequence, duplicate: frame.duplicate});
        this.#outbox.delete(frame.id);
        break;
      }
      case "error":
        if (frame.error === "TOO_MANY" && this.#outbox.has(frame.id)) {
          const {frame: waiting} = this.#outbox.get(frame.id);
          const socket = this.#socket;
          setTimeout(() => { if (socket === this.#socket) socket.send(waiting); }, 1000 * frame.retry_after + 50);
          break;
        }
        this.#outbox.get(frame.id)?.reject(new Error(frame.detail || frame.error));
        this.#outbox.delete(frame.id);
        this.#tell("error", frame);
        break;
      case "retry":
        this.retryAfter = 1000 * frame.retry_after;
        break;
    }
  }

  #ended(code, reason) {
    this.#socket = null;
    this.#stop();
    if (FINAL.has(code)) {
      this.#become("closed", code, reason);
      return;
    }
    this.#become("waiting", code, reason);
    // Each one at another time: a herd comes back spread out.
    const backoff = Math.min(15000, 250 * 2 ** this.#failures) * (0.5 + Math.random() / 2);
    const delay = Math.max(this.retryAfter ?? 0, code === 4410 ? 0 : backoff);
    this.retryAfter = 0;
    this.#failures += 1;
    this.#timer = setTimeout(() => this.connect(), delay);
  }

  #stop() {
    clearInterval(this.#ackTimer);
    this.#missing = 0;
  }

  #stand(position) {
    this.position = position;
    this.#storage?.setItem(this.#key, JSON.stringify({position, token: this.token}));
  }

  #acknowledge() {
    if (this.position === this.#acknowledged) return;
    this.#acknowledged = this.position;
    this.#socket.send(JSON.stringify({type: "ack", position: this.position}));
  }

  #become(state, code, reason) {
    this.state = state;
    this.#tell("state", {state, code, reason});
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, {detail}));
  }
}
