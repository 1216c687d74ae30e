// Types of reconnect.js, the browser client of libreconnect. Formats: docs/formats.md.

/** How a connection was made: with a ticket and no signaling, with a known session, or from the start. */
export type Mode = "zero-signaling" | "fast" | "normal";

export type State = "idle" | "connecting" | "connected" | "interrupted" | "failed" | "closed";

export type Protocol = "ipv6" | "ipv4" | "both";

export type ErrorKind =
  | "unsupported"   // no RTCPeerConnection here
  | "busy"          // another Connection of this page has the key
  | "argument"      // an option or argument is wrong
  | "protocol"      // a message has a wrong type, shape or size
  | "unreachable"   // signaling brought no answer
  | "refused"       // the server, or the browser, refused the description
  | "ice"           // no path was found
  | "dtls"          // no secure connection over it
  | "channel"       // the channels did not open
  | "ended"         // the other side closed
  | "lost"          // nothing arrives any more
  | "overtaken"     // another attempt was connected first
  | "closed"        // this side closed
  | "storage"       // storage is off, full, or holds what cannot be used
  | "unexpected";

export class ReconnectError extends Error {
  constructor(kind: ErrorKind, detail?: string, options?: {cause?: unknown; timeout?: boolean});
  readonly name: "ReconnectError";
  readonly kind: ErrorKind;
  readonly detail: string;
  /** The step named by `kind` was not reached in time. */
  readonly timeout: boolean;
  readonly cause?: unknown;
}

// ---- Messages and what is kept

export interface Ticket {
  ufrag: string;
  pwd: string;
  fingerprint: string;
  candidates: string[];
  sctpPort: number;
  maxMessageSize: number;
  /** Unix time in milliseconds. */
  expires: number;
  derivedInit?: boolean;
}

export interface Offer {
  type: "offer";
  sdp: string;
  sessionToken?: string;
  ticket?: true;
}

export interface Answer {
  type: "answer";
  sdp: string;
  connectionMode: "fast" | "normal";
  sessionToken?: string;
  /** Judged on its own with parseTicket: a bad one is a warning, it does not cost the answer. */
  ticket?: unknown;
}

/** The object under `webrtc_connection_cache`. */
export interface CacheEntry {
  ipv6HostCandidates: RTCIceCandidateInit[];
  ipv6SrflxCandidates: RTCIceCandidateInit[];
  ipv4SrflxCandidates: RTCIceCandidateInit[];
  ipv4RelayCandidates: RTCIceCandidateInit[];
  ipv4HostCandidates?: RTCIceCandidateInit[];
  ipv6RelayCandidates?: RTCIceCandidateInit[];
  /** Of the path; "both": it is not known yet, or (with lastConnectedIPv6) IPv4 was used and IPv6 works too. */
  lastSuccessfulProtocol: Protocol;
  /** Unix time in milliseconds. */
  timestamp: number;
  sessionId: string;
  lastConnectedIPv6?: boolean;
}

export interface Candidate {
  foundation: string;
  component: number;
  transport: "udp" | "tcp";
  priority: number;
  address: string;
  port: number;
  type: "host" | "srflx" | "prflx" | "relay";
  family: "ipv6" | "ipv4";
}

/** Each throws a ReconnectError of kind "protocol" that says what is wrong. */
export function parseAnswer(value: unknown): Answer;
export function parseTicket(value: unknown): Ticket;
/** A candidate line without `a=`. Names (mDNS) are refused: a server offers addresses. */
export function parseCandidate(line: unknown): Candidate;
/** The text of storage. `now` is compared with the timestamp, which must not be in the future. */
export function parseCacheEntry(text: unknown, now?: number): CacheEntry;
/** Of a candidate message: the candidate, or null for the end of candidates. */
export function parseCandidateMessage(value: unknown): RTCIceCandidateInit | null;

/** The candidates of a description, sorted by family and type; ones that are not valid are left out. */
export function extractCandidates(sdp: string): Pick<CacheEntry,
  "ipv6HostCandidates" | "ipv6SrflxCandidates" | "ipv4SrflxCandidates" | "ipv4RelayCandidates"
  | "lastSuccessfulProtocol"> & {
    ipv4HostCandidates: RTCIceCandidateInit[];
    ipv6RelayCandidates: RTCIceCandidateInit[];
  };
/** All candidates of an entry in the order of their use: IPv6 host, IPv6 srflx, IPv4, relays last. */
export function orderedCandidates(entry: CacheEntry): RTCIceCandidateInit[];
/** The answer that a ticket stands for. */
export function descriptionOf(ticket: Ticket): string;

// ---- Signaling

export interface ExchangeContext {
  /** Aborted when the answer is no longer wanted. */
  signal: AbortSignal;
  /** Takes the server's candidates, null at their end. They may come before the answer. */
  onCandidate(candidate: RTCIceCandidateInit | null): void;
}

export interface Exchange {
  answer: Promise<Answer>;
  /** Sends a candidate of the page, null at their end. Missing if they are not carried. */
  sendCandidate?(candidate: RTCIceCandidateInit | null): void;
}

/** What carries the messages. One exchange at a time; `answer` rejects with a ReconnectError. */
export interface Signaling {
  exchange(offer: Offer, context: ExchangeContext): Exchange;
  /** Opens what can be opened before there is an offer. */
  warm?(): void;
  close?(): void;
}

export interface FetchSignalingInit extends RequestInit {
  /** Where candidates of the page are posted; without it they are not sent: a server of this library learns
      addresses from the connectivity checks. */
  candidates?: string | URL;
  /** Milliseconds to the answer; default 10000. */
  timeout?: number;
}

/** POSTs the offer, takes the answer from the response. */
export function fetchSignaling(url: string | URL, init?: FetchSignalingInit): Signaling;

export interface WebSocketSignalingInit {
  protocols?: string | string[];
  /** Milliseconds to the answer, opening included; default 10000. */
  timeout?: number;
  /** Open it now. Otherwise the first exchange, or warm(), does. */
  warm?: boolean;
}

/** Keeps the socket open between exchanges; opens another one when it has closed. A socket of the caller's may carry other
    messages too: they are left alone, and it is neither reopened nor closed. */
export function webSocketSignaling(target: string | URL | WebSocket, init?: WebSocketSignalingInit): Signaling;

// ---- Storage

export type TextStorage = Pick<Storage, "getItem" | "setItem" | "removeItem">;

export interface CertificateStorage {
  get(): Promise<unknown>;
  put(certificate: RTCCertificate): Promise<unknown>;
  delete(): Promise<unknown>;
}

/** Everything that outlives the page. Any of them may throw. */
export interface ConnectionStorage {
  /** Default window.localStorage. */
  local?: TextStorage;
  /** Default window.sessionStorage. */
  session?: TextStorage;
  certificates?: CertificateStorage;
}

/** In IndexedDB; the browser lets a certificate be kept, its private key is never readable. */
export function certificateStorage(database?: string, key?: string): CertificateStorage;

// ---- The connection

export interface ChannelOptions extends RTCDataChannelInit {
  label: string;
  /** With an id the channel is negotiated: both sides open it without an announcement. Without, it is announced. */
  id?: number;
}

export interface HeartbeatOptions {
  /** Milliseconds between pings; default 5000. */
  interval?: number;
  /** Unanswered pings until the connection counts as lost; default 3. */
  misses?: number;
  /** After a miss ask again at once, within a time learned from the answers so far; default false. */
  adaptive?: boolean;
}

export interface ReconnectOptions {
  /** Milliseconds; each try waits a random part of base * 2^n, at most max. Default 250 and 5000. */
  base?: number;
  max?: number;
  /** Default 10. */
  attempts?: number;
}

export interface ConnectionOptions {
  signaling: Signaling;
  /** Names the server in storage; default "default". One open Connection per key in a page. */
  key?: string;
  /** Made before the offer. The connection is open when all of them are. Default none. */
  channels?: ChannelOptions[];
  iceServers?: RTCIceServer[];
  iceTransportPolicy?: RTCIceTransportPolicy;
  /** Milliseconds for a fast attempt, from its answer, and for a ticket, from its start; default 2000. */
  fastTimeout?: number;
  /** Milliseconds for a normal attempt from its answer; default 20000. */
  normalTimeout?: number;
  /** Milliseconds by which IPv6 is tried before IPv4 where the last connection has shown that it works, 0 to 1000; default 50.
      0: all at once. */
  headStart?: number;
  /** Milliseconds; default 300000. */
  maxCacheAge?: number;
  /** "race" (default): the normal exchange starts with the ticket attempt. "fallback": after it has failed. */
  policy?: "race" | "fallback";
  /** Take and use tickets; default true. */
  tickets?: boolean;
  /** Keep the DTLS certificate while there is a session to come back to; default true. With false the page cannot be
      recognised, and every connect is normal. */
  certificate?: boolean;
  /** Fast reload on; default true. */
  enabled?: boolean;
  /** Default false. true is adaptive, every 5 s. */
  heartbeat?: boolean | HeartbeatOptions;
  /** Connect again after a loss; default false. */
  reconnect?: boolean | ReconnectOptions;
  /** Default: the browser's. */
  storage?: ConnectionStorage;
  /** Gets lines of the form of docs/formats.md. */
  log?(line: string): void;
  /** Makes the peer connections; default `new RTCPeerConnection(configuration)`. */
  createPeer?(configuration: RTCConfiguration): RTCPeerConnection;
}

/** Milliseconds from the start of the connect. */
export interface Timings {
  fallback?: number;
  prepared?: number;
  answer?: number;
  ice?: number;
  dtls?: number;
  open?: number;
}

export type AttemptState = "started" | "won" | "failed" | "stopped" | "skipped";

export interface AttemptDetail {
  mode: Mode;
  state: AttemptState;
  /** Of a failure its kind, or "timeout"; "session-unknown"; of a start what it follows; of a skip what was missing:
      "disabled", "no-ticket", "expired", "certificate", ... */
  reason: string | null;
  /** Milliseconds from the start of the connect. */
  time: number;
  error: ReconnectError | null;
}

export interface ConnectedDetail {
  mode: Mode;
  timings: Timings;
  /** Why the attempt before failed: null if there was none or it was only slower. */
  fallback: ErrorKind | null;
  /** A session token was sent. */
  tokenSent: boolean;
  certificate: "kept" | "new" | "not kept" | "off";
  /** Of the page, as in SDP. */
  fingerprint: string;
  /** Of the server, for people: "udp 192.0.2.1:4000, ...". */
  address: string;
  protocol: Protocol;
  attempts: AttemptDetail[];
}

export interface StateDetail { state: State; reason: string | null; }
export interface StepDetail { mode: Mode; step: keyof Timings; time: number; timings: Timings; }
export interface LostDetail { kind: ErrorKind; error: ReconnectError; }
export interface WarningDetail { error: ReconnectError; what: string; }
export interface CacheDetail {
  action: "load" | "save" | "clear";
  valid: boolean;
  age: number | null;
  ipv6: number;
  ipv4: number;
  protocol: Protocol | null;
  reason: string | null;
}
export interface TicketDetail { expires: number; }

export interface ConnectionEventMap {
  state: CustomEvent<StateDetail>;
  attempt: CustomEvent<AttemptDetail>;
  step: CustomEvent<StepDetail>;
  connected: CustomEvent<ConnectedDetail>;
  lost: CustomEvent<LostDetail>;
  warning: CustomEvent<WarningDetail>;
  cache: CustomEvent<CacheDetail>;
  ticket: CustomEvent<TicketDetail>;
  /** A channel that the server has announced. */
  datachannel: CustomEvent<{channel: RTCDataChannel}>;
}

export interface Metrics {
  cacheHits: number;
  cacheMisses: number;
  /** By mode, then by protocol. */
  attempts: Record<Mode, Record<Protocol | "unknown", number>>;
  /** By protocol, then by reason. */
  fallbacks: Record<Protocol | "unknown", Record<string, number>>;
  connections: Record<Mode, number>;
  /** The last 64. */
  connectionTimes: {mode: Mode; protocol: Protocol; milliseconds: number}[];
  failures: number;
  losses: number;
  /** null until a connection has told. */
  ipv6Available: boolean | null;
  /** Milliseconds of the last heartbeat, null without one. */
  roundTripTime: number | null;
}

export class Connection extends EventTarget {
  /** Throws "argument", and "busy" while another open Connection has the key. */
  constructor(options: ConnectionOptions);
  readonly key: string;
  readonly state: State;
  /** Of the live connection. */
  readonly mode: Mode | null;
  readonly peer: RTCPeerConnection | null;
  /** The channels of the options that are open, by label. */
  readonly channels: ReadonlyMap<string, RTCDataChannel>;
  readonly metrics: Metrics;
  readonly enabled: boolean;
  readonly session: {
    readonly token: string | null;
    readonly ticket: Ticket | null;
    readonly certificate: "kept" | "new" | "not kept" | "off";
    readonly fingerprint: string | null;
  };
  /** Connects the fastest way that works; while connecting or connected, what is there already. Resolves a little after
      the `connected` event, when a new certificate has been kept. */
  connect(): Promise<ConnectedDetail>;
  /** Closes the peer and connects again. */
  reconnect(): Promise<ConnectedDetail>;
  /** Announced to the server. Needs a live connection. */
  createDataChannel(label: string, init?: RTCDataChannelInit): RTCDataChannel;
  /** The kill switch. What is kept stays, unused; a live connection is left alone. */
  setEnabled(enabled: boolean): void;
  /** Drops session, ticket, cache and certificate. A live connection is left alone. */
  forget(): Promise<void>;
  /** Closes the peer. connect() works again. */
  disconnect(): void;
  /** For good: closes the peer and frees the key. */
  close(): void;

  addEventListener<K extends keyof ConnectionEventMap>(type: K,
    listener: (this: Connection, event: ConnectionEventMap[K]) => unknown,
    options?: boolean | AddEventListenerOptions): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions): void;
  removeEventListener<K extends keyof ConnectionEventMap>(type: K,
    listener: (this: Connection, event: ConnectionEventMap[K]) => unknown,
    options?: boolean | EventListenerOptions): void;
  removeEventListener(type: string, listener: EventListenerOrEventListenerObject | null,
    options?: boolean | EventListenerOptions): void;
}
