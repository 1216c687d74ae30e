"""A server's and a client's network namespace, joined by a virtual cable. The server's addresses are a test's affair.

with Cable() as cable, cable.addresses("10.99.0.1/24"):
    hosts.Host("c", address=None, inside=cable.server)
"""

import contextlib
import importlib.util
import subprocess

import hosts

_spec = importlib.util.spec_from_file_location("netns", hosts.ROOT / "bench/netns.py")
netns = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(netns)


def missing():
    """One sentence about what is missing, or None."""
    return netns.missing()


class Cable:
    # The client's stay: Firefox gathers nothing any more after it has lost its own.
    CLIENT = ("10.99.0.100/24", "10.99.1.100/24", "fd99::100/64")

    def __init__(self):
        netns.clean()
        self.server = netns.Namespace()
        self.client = None
        try:
            self.client = netns.Namespace()
            self._ip(self.server, "link", "add", "cable", "type", "veth", "peer", "cable", "netns", self.client.name)
            for side in (self.server, self.client):
                self._ip(side, "link", "set", "cable", "up")
            for address in self.CLIENT:
                self._ip(self.client, "address", "add", address, "dev", "cable", *self._flags(address))
            for family in ("-4", "-6"):
                self._route(self.client, family)
        except BaseException:
            self.end()
            raise

    def _ip(self, side, *arguments):
        subprocess.run(["ip", "-n", side.name, *arguments], check=True, capture_output=True, text=True)

    @staticmethod
    def _flags(address):
        return ["nodad"] if ":" in address else []  # usable at once

    def _route(self, side, family):
        self._ip(side, family, "route", "replace", "default", "dev", "cable")

    def add(self, address):
        self._ip(self.server, "address", "add", address, "dev", "cable", *self._flags(address))
        self._route(self.server, "-6" if ":" in address else "-4")  # it has gone with the last one

    def remove(self, address):
        self._ip(self.server, "address", "delete", address, "dev", "cable")

    @contextlib.contextmanager
    def addresses(self, *addresses):
        """What the server has for a while; the test may have removed them itself."""
        for address in addresses:
            self.add(address)
        try:
            yield
        finally:
            for address in addresses:
                with contextlib.suppress(subprocess.CalledProcessError):
                    self.remove(address)

    def block(self, address):
        """What the server sends to this address of the client is lost without a word: the next hop is nobody's."""
        self._ip(
            self.server,
            "neighbour",
            "replace",
            address,
            "lladdr",
            "02:00:00:00:00:99",
            "dev",
            "cable",
            "nud",
            "permanent",
        )

    def unblock(self, address):
        self._ip(self.server, "neighbour", "delete", address, "dev", "cable")

    def end(self):
        for side in (self.server, self.client):
            if side:
                side.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.end()
