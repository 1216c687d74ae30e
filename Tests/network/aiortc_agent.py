"""One end of a connection with aiortc, driven as agent.py is. aiortc has no trickling of its own: its description has all
its candidates."""

import asyncio
import contextlib
import json
import sys
import time

from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.sdp import candidate_from_sdp


def tell(event, **members):
    print(json.dumps({"event": event, "at": time.monotonic(), **members}), flush=True)


class End:
    def __init__(self, settings):
        # It takes no IPv6 address in a URL, and needs no server for that where there is no NAT.
        servers = [RTCIceServer(urls=url) for url in settings["stun"] if "[" not in url]
        # It takes one TURN server: the last one named is the one that gets through most.
        for server in settings["turn"][-1:]:
            servers.append(RTCIceServer(server["url"], server["username"], server["password"]))
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self.channel = self.peer.createDataChannel("stream", negotiated=True, id=0)
        self.channel.on("open", lambda: tell("open"))
        self.channel.on("close", lambda: tell("channel closed"))
        self.channel.on("message", self.take)
        self.peer.on("connectionstatechange", lambda: tell("state", state=self.peer.connectionState))
        self.sent = self.received = self.expected = 0
        self.sending = None
        self.early = []

    async def describe(self, description):
        await self.peer.setLocalDescription(description)
        local = self.peer.localDescription
        tell("signal", message={"type": local.type, "sdp": local.sdp})

    async def signal(self, message):
        if "sdp" in message:
            await self.peer.setRemoteDescription(RTCSessionDescription(message["sdp"], message["type"]))
            for candidate in self.early:
                await self.peer.addIceCandidate(candidate)
            if message["type"] == "offer":
                await self.describe(await self.peer.createAnswer())
        elif message["candidate"]:
            line = message["candidate"]["candidate"].removeprefix("candidate:")
            if not line:
                return
            candidate = candidate_from_sdp(line)
            candidate.sdpMid, candidate.sdpMLineIndex = "0", 0
            if self.peer.remoteDescription is None:
                self.early.append(candidate)
            else:
                await self.peer.addIceCandidate(candidate)

    async def send(self, rate):
        while True:
            self.sent += 1
            self.channel.send(str(self.sent))
            await asyncio.sleep(1 / rate)

    def take(self, text):
        if text != str(self.received + 1):
            tell("problem", text=f"message {text} came after {self.received}")
        self.received += 1
        self.check()

    def check(self):
        if self.expected and self.received >= self.expected:
            self.expected = 0
            tell("reached", received=self.received)

    async def obey(self, command):
        what = command["do"]
        if what == "begin":
            await self.describe(await self.peer.createOffer())
        elif what == "signal":
            await self.signal(command["message"])
        elif what == "send":
            self.sending = asyncio.create_task(self.send(command["rate"]))
        elif what == "halt":
            self.sending.cancel()
            tell("halted", sent=self.sent)
        elif what == "expect":
            self.expected = command["count"]
            self.check()
        elif what == "statistics":
            tell("statistics", **self.figures())

    def figures(self):
        ice = self.peer.sctp.transport.transport._connection
        with contextlib.suppress(KeyError, AttributeError):
            pair = ice._nominated[1]
            local, remote = pair.local_candidate, pair.remote_candidate
            return {"local_type": local.type, "remote_type": remote.type, "transport": "udp", "relay_transport": ""}
        return {"local_type": "", "remote_type": "", "transport": "", "relay_transport": ""}


async def run(settings):
    end = End(settings)
    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tell("ready")
    while line := await reader.readline():
        await end.obey(json.loads(line))
    await end.peer.close()


asyncio.run(run(json.loads(sys.argv[1])))
