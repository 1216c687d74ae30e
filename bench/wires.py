"""Emulated networks between namespaces that are there, as many as a scenario needs."""

import ctypes
import errno
import os
import socket
import struct

from netns import Emulator, LinkError

# rtnetlink(7)
RTM_NEWADDR, RTM_DELADDR, RTM_NEWROUTE = 20, 21, 24
REQUEST, ACK, EXCLUSIVE, CREATE = 0x1, 0x4, 0x200, 0x400
IFA_ADDRESS, IFA_LOCAL, RTA_OIF = 1, 2, 4
TABLE_MAIN, PROTOCOL_BOOT, SCOPE_LINK, UNICAST = 254, 3, 253, 1
NLMSG_ERROR = 2


class Wire(Emulator):
    """An emulated network between two namespaces that are there: one address at each end."""

    def __init__(self, program, a, b, device, number, rtt_ms):
        super().__init__(program, (a, device), (b, device))
        self.sides = (a, b)
        self.device = device
        self.number = number
        self.shape(delay_ms=rtt_ms / 2, loss=0)
        self.hosts = [1, 2]
        for side, host in zip(self.sides, self.hosts):
            side.run(["ip", "addr", "add", f"{self.address(host)}/24", "dev", device])
        self.kernels = [side.call(Kernel, device) for side in self.sides]

    def address(self, host):
        return f"10.78.{self.number}.{host}"

    def renumber(self, sides):
        """Another address for these sides (0, 1), and the old one is gone; at once, in a tenth of a millisecond."""
        orders = []
        for index in sides:
            old, new = self.hosts[index], self.hosts[index] + 2
            self.hosts[index] = new
            orders.append((self.kernels[index], self.address(old), self.address(new)))
        for kernel, old, new in orders:
            kernel.send(kernel.delete(old), kernel.add(new), kernel.default_route())
        for kernel, *_ in orders:
            kernel.confirm(3)

    def close(self):
        for kernel in self.kernels:
            kernel.close()
        self.end()


class Kernel:
    """Changes addresses of one device in the namespace in which it was made."""

    def __init__(self, device):
        # From the C library: Python's own function asks in the namespace of the process's first thread.
        self.index = ctypes.CDLL(None).if_nametoindex(device.encode())
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self.socket.settimeout(5)

    def delete(self, address):
        return self._address(RTM_DELADDR, REQUEST | ACK, address)

    def add(self, address):
        return self._address(RTM_NEWADDR, REQUEST | ACK | CREATE | EXCLUSIVE, address)

    def _address(self, kind, flags, address):
        packed = socket.inet_aton(address)
        body = struct.pack("=BBBBI", socket.AF_INET, 24, 0, 0, self.index)
        return message(kind, flags, body + attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed))

    def default_route(self):
        body = struct.pack(
            "=BBBBBBBBI", socket.AF_INET, 0, 0, 0, TABLE_MAIN, PROTOCOL_BOOT, SCOPE_LINK, UNICAST, 0
        ) + attribute(RTA_OIF, struct.pack("=I", self.index))
        return message(RTM_NEWROUTE, REQUEST | ACK | CREATE | EXCLUSIVE, body)

    def send(self, *messages):
        self.socket.send(b"".join(messages))

    def confirm(self, count):
        """Reads that many answers, and raises the first error among them."""
        while count > 0:
            data = self.socket.recv(65536)
            while data:
                length, kind = struct.unpack_from("=IH", data)
                if kind == NLMSG_ERROR:
                    (number,) = struct.unpack_from("=i", data, 16)
                    if number not in (0, -errno.EEXIST):
                        raise LinkError(f"the kernel refuses another address: {os.strerror(-number)}")
                    count -= 1
                data = data[(length + 3) & ~3 :]

    def close(self):
        self.socket.close()


def message(kind, flags, body):
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 0, 0) + body


def attribute(kind, value):
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)
