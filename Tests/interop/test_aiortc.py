"""aiortc as the offerer against an example host."""

import asyncio
import contextlib

import aioice.ice
import hosts
import pytest
from aiortc import RTCCertificate, RTCConfiguration, RTCPeerConnection, RTCSessionDescription

SIZES = [0, 1, 1200, 16384, 65535, 65536]
DEADLINE = 20


@pytest.fixture(autouse=True)
def address_of_the_host(monkeypatch):
    """aioice leaves loopback addresses out; these tests need no network beyond them."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda **_: [hosts.ADDRESS])


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario, 60))


class Client:
    """One peer connection to the host, with the negotiated channel 1."""

    def __init__(self, host, certificate=None):
        self.host = host
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        if certificate:
            # There is no public way to give a peer connection its certificate.
            self.peer._RTCPeerConnection__certificates = [certificate]
        self.channel = self.open("echo", negotiated=True, id=1)
        self.answer = None

    def open(self, label, **init):
        channel = self.peer.createDataChannel(label, **init)
        channel.got = asyncio.Queue()
        channel.opened = asyncio.Event()
        channel.ended = asyncio.Event()
        channel.on("message", channel.got.put_nowait)
        channel.on("open", channel.opened.set)
        channel.on("close", channel.ended.set)
        if channel.readyState == "open":
            channel.opened.set()
        return channel

    async def connect(self, token=None):
        await self.peer.setLocalDescription(await self.peer.createOffer())
        offer = {"type": "offer", "sdp": self.peer.localDescription.sdp}
        if token:
            offer["sessionToken"] = token
        status, text, _ = await asyncio.to_thread(self.host.post, "offer", offer)
        assert status == 200, text
        self.answer = hosts.json.loads(text)
        assert self.answer["type"] == "answer"
        await self.peer.setRemoteDescription(RTCSessionDescription(self.answer["sdp"], "answer"))
        await asyncio.wait_for(self.channel.opened.wait(), DEADLINE)
        return self.answer


async def next_of(channel):
    return await asyncio.wait_for(channel.got.get(), DEADLINE)


async def opened(channel):
    await asyncio.wait_for(channel.opened.wait(), DEADLINE)
    return channel


@contextlib.asynccontextmanager
async def connected(host, certificate=None, token=None):
    client = Client(host, certificate)
    try:
        await client.connect(token)
        yield client
    finally:
        await client.peer.close()


def text(size):
    return "aé€😀" * (size // 10) + "x" * (size % 10)


def binary(size):
    return bytes((i * 31 + size) & 0xFF for i in range(size))


@pytest.mark.parametrize("kind", ["negotiated", "in-band"])
def test_echoes_every_size(host, kind):
    async def scenario():
        async with connected(host) as client:
            channel = client.channel if kind == "negotiated" else client.open("sizes")
            await opened(channel)
            for size in SIZES:
                for message in (text(size), binary(size)):
                    channel.send(message)
                    assert await next_of(channel) == message, f"{type(message)} of {size}"

    run(scenario())


def test_keeps_the_order_of_many_messages(host):
    async def scenario():
        async with connected(host) as client:
            sent = [text(i * 37 % 5000) if i % 2 else binary(i * 53 % 9000) for i in range(300)]
            for message in sent:
                client.channel.send(message)
            assert [await next_of(client.channel) for _ in sent] == sent

    run(scenario())


def test_several_channels_with_labels_and_protocols(host):
    async def scenario():
        async with connected(host) as client:
            channels = [client.open(f"Größe {i}", protocol="p" * i) for i in range(20)]
            for i, channel in enumerate(channels):
                await opened(channel)
                channel.send(f"on {i}")
            for i, channel in enumerate(channels):
                assert await next_of(channel) == f"on {i}"

    run(scenario())


def test_unordered_channel_loses_nothing(host):
    async def scenario():
        async with connected(host) as client:
            channel = await opened(client.open("unordered", ordered=False))
            sent = [f"{i} " + text(i % 7 * 1000) for i in range(100)]
            for message in sent:
                channel.send(message)
            assert sorted([await next_of(channel) for _ in sent]) == sorted(sent)

    run(scenario())


def test_unreliable_channel_never_repeats(host):
    async def scenario():
        async with connected(host) as client:
            channel = await opened(client.open("unreliable", ordered=False, maxRetransmits=0))
            got = []
            for i in range(200):
                channel.send(str(i))
            # The last ones may be lost too: more are sent until one of those has come back.
            for i in range(200, 400):
                channel.send(str(i))
                with contextlib.suppress(asyncio.TimeoutError):
                    got.append(int(await asyncio.wait_for(channel.got.get(), 0.1)))
                while not channel.got.empty():
                    got.append(int(channel.got.get_nowait()))
                if got and max(got) >= 200:
                    break
            assert got and max(got) >= 200
            assert len(got) == len(set(got))

    run(scenario())


def test_closed_channel_closes_on_both_sides(host):
    async def scenario():
        async with connected(host) as client:
            channel = await opened(client.open("short"))
            channel.send("hello")
            assert await next_of(channel) == "hello"
            channel.close()  # "closed" comes when the host has reset its side too
            await asyncio.wait_for(channel.ended.wait(), DEADLINE)
            client.channel.send("the first channel lives")
            assert await next_of(client.channel) == "the first channel lives"

    run(scenario())


def test_comes_back_fast_with_token_and_certificate(host):
    async def scenario():
        certificate = RTCCertificate.generateCertificate()
        token = None
        for mode in ("normal", "fast", "fast"):
            async with connected(host, certificate, token) as client:
                assert client.answer["connectionMode"] == mode
                token = client.answer["sessionToken"]
                client.channel.send(mode)
                assert await next_of(client.channel) == mode
        async with connected(host, RTCCertificate.generateCertificate(), token) as thief:
            assert thief.answer["connectionMode"] == "normal"
            assert thief.answer["sessionToken"] != token

    run(scenario())


def test_returning_session_takes_over_from_the_one_before(host):
    async def scenario():
        certificate = RTCCertificate.generateCertificate()
        async with connected(host, certificate) as first:
            token = first.answer["sessionToken"]
            async with connected(host, certificate, token) as second:
                assert second.answer["connectionMode"] == "fast"
                second.channel.send("mine now")
                assert await next_of(second.channel) == "mine now"
                await asyncio.wait_for(first.channel.ended.wait(), DEADLINE)

    run(scenario())
