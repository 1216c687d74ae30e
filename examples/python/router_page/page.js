/* The page of two panes.

   window.routerDemo, for tests and for the console: `panes`, by user: {room, send(text), cut(), connect(), leave(),
   messages, returns}; `ready`, a promise of all panes being open. ?room=NAME names the room, ?host=HOST:PORT another
   router for the second pane. */
import {Room} from "./room.js";

const by = (id) => document.getElementById(id);
const element = (name, className, text) => {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};
const options = new URLSearchParams(location.search);
const roomName = options.get("room") || `demo-${Math.random().toString(36).slice(2, 8)}`;

const STATES = {connecting: ["connecting", ""], open: ["connected", "open"], waiting: ["coming back", "away"], closed: ["cut off", "away"]};
const ENDS = {
  4400: "The host did not understand this page.", 4401: "The host does not know this access token.",
  4409: "Connected from somewhere else: the newest connection counts.",
};
const REASONS = {
  epoch: "the room has been renewed", trimmed: "too much was said meanwhile", expired: "it is too long ago",
  limit: "it was too much at once", store: "the store did not answer", degraded: "the store was away",
};
const duration = (seconds) => seconds < 10 ? `${seconds.toFixed(1)} s` : seconds < 120 ? `${Math.round(seconds)} s`
  : `${Math.round(seconds / 60)} min`;
const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

function addPane(user, access, host) {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const url = `${scheme}://${host}/webrtc/rooms/${encodeURIComponent(roomName)}/socket`;
  const room = new Room({url, access, storage: sessionStorage, key: `router ${roomName} ${user}`});
  const section = by("pane").content.firstElementChild.cloneNode(true);
  const find = (selector) => section.querySelector(selector);
  const [chip, toggle, talk, form, input, back] = [".chip", ".switch", ".talk", "form", "input", ".return"].map(find);
  section.setAttribute("aria-label", user);
  find("h2").textContent = user;
  input.setAttribute("aria-label", `Message of ${user}`);
  talk.setAttribute("aria-label", `What ${user} sees`);
  by("panes").append(section);
  const pane = {room, messages: [], returns: [], section};

  // By number; what has none yet waits at the end.
  const add = (item, sequence = Infinity) => {
    const atEnd = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 40;
    item.dataset.sequence = sequence;
    let next = null;
    for (let last = talk.lastElementChild; last && Number(last.dataset.sequence) > sequence; last = last.previousElementSibling) next = last;
    talk.insertBefore(item, next);
    while (talk.children.length > 500) talk.firstChild.remove();
    if (atEnd) talk.scrollTop = talk.scrollHeight;
  };
  const note = (text) => {
    const item = element("li", "note", text);
    add(item);
    item.dataset.sequence = -1;   // nothing goes before it afterwards
  };

  pane.send = async (text) => {
    const item = element("li", "own waiting", text);
    const below = element("span", "small", "waits");
    item.append(below);
    add(item);
    try {
      const {sequence} = await room.send(text);
      item.classList.remove("waiting");
      add(item, sequence);
      below.textContent = `no. ${sequence}`;
      return sequence;
    } catch (error) {
      below.textContent = `not sent: ${error.message}`;
      throw error;
    }
  };
  pane.cut = () => room.cut();
  pane.connect = () => room.connect();
  pane.leave = () => room.leave();

  room.addEventListener("message", ({detail}) => {
    pane.messages.push(detail);
    const text = typeof detail.data === "string" ? detail.data : JSON.stringify(detail.data);
    const item = element("li", detail.replayed ? "replayed" : "", text);
    item.append(element("span", "small number", `${detail.from}, no. ${detail.sequence}${detail.replayed ? ", missed" : ""}`));
    add(item, detail.sequence);
  });
  room.addEventListener("reconnection", ({detail}) => {
    pane.returns.push(detail);
    const {recovered, missed, disconnectDuration, reason} = detail;
    back.hidden = false;
    back.className = `return ${recovered ? "good" : "bad"}`;
    find(".verdict dd").textContent = recovered ? "recovered" : "lost";
    find(".missed dd").textContent = recovered ? count(missed, "message") : "unknown";
    find(".duration dd").textContent = duration(disconnectDuration);
    note(recovered ? `back after ${duration(disconnectDuration)}` : `lost: ${REASONS[reason] || reason}`);
    by("title").textContent = recovered ? `${user} is back, complete` : `${user} is back, not complete`;
    by("lead").textContent = recovered
      ? `Away for ${duration(disconnectDuration)}. ${missed ? `${count(missed, "message")} came meanwhile and ${missed === 1 ? "is" : "are"} here now, in order.` : "Nothing was said meanwhile."}`
      : `The host cannot prove that nothing is missing (${REASONS[reason] || reason}), and says so: a WebRTC client would now negotiate anew.`;
  });
  room.addEventListener("state", ({detail: {state, code, reason}}) => {
    const [label, className] = STATES[state];
    const final = state === "closed" && ENDS[code];
    chip.textContent = final ? "ended" : label;
    chip.className = `chip ${final ? "closed" : className}`;
    toggle.textContent = state === "closed" ? "Come back" : "Cut off";
    toggle.classList.toggle("first", state === "closed");
    if (state === "closed") note(final || "cut off");
    if (final) by("lead").textContent = `${user}: ${ENDS[code]}`;
    if (state === "waiting" && code !== undefined) chip.title = `${code} ${reason}`;
  });
  room.addEventListener("error", ({detail}) => note(detail.detail || detail.error));
  toggle.onclick = () => {
    if (room.state === "closed") room.connect();
    else {
      room.cut();
      by("title").textContent = `${user} is cut off`;
      by("lead").textContent = "Write something in the other pane, then come back.";
    }
  };
  form.onsubmit = (event) => {
    event.preventDefault();
    const text = input.value;
    if (!text) return;
    input.value = "";
    pane.send(text).catch(() => {});
  };
  pane.open = new Promise((resolve) => {
    room.addEventListener("state", function listen({detail: {state}}) {
      if (state !== "open") return;
      room.removeEventListener("state", listen);
      resolve();
    });
  });
  room.connect();
  return pane;
}

async function start() {
  const response = await fetch("demo");
  if (response.ok) {
    const {users} = await response.json();
    const hosts = [location.host, options.get("host") || location.host];
    Object.entries(users).slice(0, 2).forEach(([user, access], index) => {
      demo.panes[user] = addPane(user, access, hosts[index]);
    });
    await Promise.all(Object.values(demo.panes).map(({open}) => open));
    return;
  }
  by("login").hidden = false;
  by("room").value = roomName;
  by("lead").textContent = "This router has its own users. Join a room with your access token, in two windows.";
  by("login").onsubmit = (event) => {
    event.preventDefault();
    by("login").hidden = true;
    demo.panes.you = addPane("you", by("access").value, location.host);
  };
}

const demo = window.routerDemo = {panes: {}, room: roomName};
demo.ready = start();
demo.ready.catch((error) => {
  by("remedy").hidden = false;
  by("remedy").textContent = `The host does not answer (${error.message}). Is the program that served this page still running? Start it again, then reload.`;
});
