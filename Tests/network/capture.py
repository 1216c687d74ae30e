"""Every packet of a host, as AF_PACKET shows it.

with Capture(site.host) as capture:
    ...
for packet in capture.packets: packet.source, packet.target, packet.protocol, ...
"""

import ipaddress
import select
import socket
import struct
import threading
from dataclasses import dataclass

ETH_P_ALL = 3
ARP, IPV4, IPV6 = 0x0806, 0x0800, 0x86DD
ICMP, ICMPV6, TCP, UDP = 1, 58, 6, 17


@dataclass(frozen=True)
class Packet:
    device: str
    is_outgoing: bool
    kind: str
    """"arp", "nd" (RFC 4861) or "ip"."""
    protocol: int = 0
    source: tuple = ()
    target: tuple = ()
    """Address and port, 0 where there is none."""

    @property
    def other(self):
        """The end that is not the host."""
        return self.target if self.is_outgoing else self.source


def parse(device, is_outgoing, frame):
    kind = int.from_bytes(frame[12:14], "big")
    body = frame[14:]
    if kind == IPV4:
        protocol, size = body[9], (body[0] & 15) * 4
        source, target = (str(ipaddress.ip_address(body[at : at + 4])) for at in (12, 16))
    elif kind == IPV6:
        protocol, size = body[6], 40
        if protocol == 0:  # hop-by-hop options: multicast listener reports have them
            protocol, size = body[40], 48 + body[41] * 8
        source, target = (str(ipaddress.ip_address(body[at : at + 16])) for at in (8, 24))
    else:
        return Packet(device, is_outgoing, "arp" if kind == ARP else hex(kind))
    ports = struct.unpack_from("!HH", body, size) if protocol in (TCP, UDP) else (0, 0)
    # Neighbours, routers, listeners: RFC 4861 and 3810.
    is_nd = protocol == ICMPV6 and (130 <= body[size] <= 137 or body[size] == 143)
    return Packet(device, is_outgoing, "nd" if is_nd else "ip", protocol, (source, ports[0]), (target, ports[1]))


class Capture:
    def __init__(self, space):
        self.packets = []
        self._socket = space.call(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._stop, self._stopping = socket.socketpair()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        while True:
            ready = select.select([self._socket, self._stop], [], [])[0]
            if self._socket in ready:
                frame, (device, _, kind, *_) = self._socket.recvfrom(65535)
                self.packets.append(parse(device, kind == socket.PACKET_OUTGOING, frame))
            elif ready:
                return

    def close(self):
        """Ends when all that was captured has been read."""
        self._stopping.send(b"x")
        self._reader.join()
        for endpoint in (self._socket, self._stop, self._stopping):
            endpoint.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()
