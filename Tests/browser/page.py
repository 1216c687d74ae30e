"""The example page in a tab, and a small library for the bodies that tests run in it."""


class Page:
    """A tab on the example page of a host. Without `tickets` a page that comes back is answered fast; with them it
    needs no answer."""

    def __init__(self, tab, url, tickets=False):
        self.tab = tab
        self.url = url
        self.tickets = tickets

    def open(self, query=""):
        if not self.tickets:
            query += ("&" if query else "?") + "tickets=no"
        self.tab.navigate(self.url + query)

    def run(self, body, *args, timeout=60):
        return self.tab.evaluate(LIBRARY + body, *args, timeout=timeout)

    def ready(self):
        """The result of the current connect."""
        return self.run("return await reconnectDemo.ready")

    def reload(self):
        self.tab.reload()
        return self.ready()

    def leave(self):
        """Goes to an empty page as by a link: when WebDriver navigates, Firefox cancels scripts of the page that leaves."""
        self.run("setTimeout(() => { location.href = 'about:blank'; }, 0)")

    def wait_for_what_is_left(self):
        """Until another tab of the same origin, which goes to another page, has left its session."""
        self.run(
            """await within((async () => {
                 while (localStorage.getItem("webrtc_connection_session") === null) await new Promise((next) => setTimeout(next, 20));
               })(), "what the page leaves")"""
        )

    def token(self):
        return self.run("return reconnectDemo.session.token")

    def echo(self, text):
        return self.run("return await reconnectDemo.send(args[0])", text)


# For the bodies that tests run in the page.
LIBRARY = """
  const bytes = (size) => {          // another pattern for each size
    const made = new Uint8Array(size);
    let state = (size * 2654435761 >>> 0) || 1;
    for (let i = 0; i < size; i++) {
      state ^= state << 13; state ^= state >>> 17; state ^= state << 5;
      made[i] = state;
    }
    return made;
  };
  // Of `size` bytes in UTF-8, with characters of one to four bytes.
  const text = (size) => "a\\u00e9\\u20ac\\u{1f600}".repeat(Math.floor(size / 10)) + "x".repeat(size % 10);
  const same = (sent, got) => {
    if (typeof sent === "string" || typeof got === "string") return sent === got;
    const view = new Uint8Array(got);
    return view.length === sent.length && view.every((byte, i) => byte === sent[i]);
  };
  const describe = (data) => typeof data === "string" ? `text of ${data.length} characters`
    : `${data.byteLength} bytes`;
  // Rejects when nothing happens: every wait has an end.
  const within = (promise, what, milliseconds = 20000) => {
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error("waited too long for " + what)), milliseconds);
    });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
  };
  const event = (target, name, milliseconds) => within(
    new Promise((resolve) => target.addEventListener(name, resolve, {once: true})), name, milliseconds);
  const echo = async (channel, data) => {
    const answer = event(channel, "message");
    channel.send(data);
    return (await answer).data;
  };
  // Sends everything at once, resolves with the echoes in the order of their arrival.
  const echoes = (channel, messages) => within(new Promise((resolve) => {
    const got = [];
    channel.addEventListener("message", function listen({data}) {
      if (got.push(data) < messages.length) return;
      channel.removeEventListener("message", listen);
      resolve(got);
    });
    for (const message of messages) channel.send(message);
  }), messages.length + " echoes", 50000);
"""
