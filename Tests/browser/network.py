"""A server's and a client's network namespace, joined by a virtual cable whose addresses a test changes.

    with Cable() as cable:
        cable.add(cable.server, "10.99.0.1/24")
        hosts.Host("c", address=None, inside=cable.server)
"""

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
    def __init__(self):
        netns.clean()
        self.server = netns.Namespace()
        self.client = None
        try:
            self.client = netns.Namespace()
            self._ip(self.server, "link", "add", "cable", "type", "veth", "peer", "cable", "netns", self.client.name)
            for side in (self.server, self.client):
                self._ip(side, "link", "set", "cable", "up")
                self.route(side, "add", "-4")
        except BaseException:
            self.end()
            raise

    def _ip(self, side, *arguments):
        subprocess.run(["ip", "-n", side.name, *arguments], check=True, capture_output=True, text=True)

    def route(self, side, action, family):
        self._ip(side, family, "route", action, "default", "dev", "cable")

    def add(self, side, address):
        """An address with its prefix length, at once usable."""
        self._ip(side, "address", "add", address, "dev", "cable", *(["nodad"] if ":" in address else []))

    def remove(self, side, address):
        self._ip(side, "address", "delete", address, "dev", "cable")

    def end(self):
        for side in (self.server, self.client):
            if side:
                side.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.end()
