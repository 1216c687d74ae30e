#!/usr/bin/env python3
"""Checks the link emulator with UDP packets: order, loss, seeds, rate, overtaking, its end.

    bench/emulator/check.py EMULATOR      (as root)

Nothing here asserts a time; `bench/netns.py EMULATOR` prints the emulator's accuracy.
"""

import os
import signal
import socket
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from netns import Link, LinkError, Namespace, Process, _ip

EMULATOR = None
PORT = 5000


def udp(family, address):
    endpoint = socket.socket(family, socket.SOCK_DGRAM)
    endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    endpoint.bind((address, PORT))
    return endpoint


class Emulator(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.link = Link(EMULATOR, seed=1, lifetime=120)

    @classmethod
    def tearDownClass(cls):
        cls.link.close()

    def setUp(self):
        self.link.shape(delay_ms=0, jitter_ms=0, loss=0, rate_kbps=0, queue_bytes=256000, reorder=0, seed=1)

    def send(self, count, size=100, family=socket.AF_INET, backwards=False):
        """Numbers in the order in which they arrived on the other side."""
        source, target = (self.link.b, self.link.a) if backwards else (self.link.a, self.link.b)
        address = (lambda side: side.ipv4) if family == socket.AF_INET else (lambda side: side.ipv6)
        with source.call(udp, family, address(source)) as sender, target.call(udp, family, address(target)) as receiver:
            receiver.settimeout(1)
            arrived = []
            for number in range(count):
                sender.sendto(number.to_bytes(4, "big") + bytes(size - 4), (address(target), PORT))
                if number % 50 == 49:
                    time.sleep(0.005)  # the sender's own queue must not overflow
            while True:
                try:
                    arrived.append(int.from_bytes(receiver.recv(2048)[:4], "big"))
                except TimeoutError:
                    return arrived

    def test_delivers_all_in_order_both_ways_and_in_both_families(self):
        self.link.shape(delay_ms=5)
        for family in (socket.AF_INET, socket.AF_INET6):
            for backwards in (False, True):
                self.assertEqual(self.send(500, family=family, backwards=backwards), list(range(500)))

    def test_loses_the_given_share_in_the_given_direction(self):
        self.link.shape(loss_ab=0.3)
        self.assertEqual(self.send(200, backwards=True), list(range(200)))
        arrived = len(self.send(2000))
        self.assertTrue(1250 < arrived < 1550, arrived)  # more than 7 standard deviations wide

    def test_loses_the_same_packets_with_the_same_seed(self):
        self.link.shape(loss=0.5, seed=7)
        first = self.send(200)
        self.link.shape(seed=7)
        self.assertEqual(self.send(200), first)
        self.link.shape(seed=8)
        self.assertNotEqual(self.send(200), first)

    def test_jitter_overtakes_only_if_allowed(self):
        self.link.shape(jitter_ms=20)
        self.assertEqual(self.send(500), list(range(500)))
        self.link.shape(reorder=1)
        arrived = self.send(500)
        self.assertEqual(sorted(arrived), list(range(500)))
        self.assertNotEqual(arrived, list(range(500)))

    def test_queue_of_a_slow_line_is_bounded(self):
        self.link.shape(rate_kbps=1000, queue_bytes=10000)
        before = self.link.counters()["ab"]["queue_full"]
        arrived = self.send(200, size=1000)
        dropped = self.link.counters()["ab"]["queue_full"] - before
        self.assertEqual(len(arrived) + dropped, 200)
        self.assertGreater(dropped, 50)
        self.assertGreater(len(arrived), 8)

    def test_refuses_nonsense(self):
        for setting in ({"loss": 2}, {"delay_ms": -1}, {"delay_ms": "x"}, {"colour": 1}, {"loss": ""}):
            with self.assertRaises(LinkError):
                self.link.shape(**setting)
        self.assertEqual(self.send(10), list(range(10)))


class End(unittest.TestCase):
    """Each end leaves neither the process nor its devices."""

    def start(self, *arguments, **options):
        space = Namespace()
        self.addCleanup(space.close)
        command = [EMULATOR, "--a", f"{space.name}:left", "--b", f"{space.name}:right", *arguments]
        process = Process(command, **options)
        self.addCleanup(process.end)
        return space, process

    def finish(self, space, process):
        self.assertEqual(process.child.wait(10), 0)
        self.assertNotIn("left", _ip("-n", space.name, "link"))

    def wait_for_devices(self, space):
        for _ in range(500):
            if "right" in _ip("-n", space.name, "link"):
                return
            time.sleep(0.01)

    def test_on_sigterm(self):
        space, process = self.start()
        self.wait_for_devices(space)
        os.kill(process.pid, signal.SIGTERM)
        self.finish(space, process)

    def test_after_its_lifetime(self):
        self.finish(*self.start("--lifetime", "0.2"))

    def test_when_its_controller_goes(self):
        reading, writing = os.pipe()
        space, process = self.start("--control", stdin=reading)
        os.close(reading)
        self.wait_for_devices(space)
        os.close(writing)
        self.finish(space, process)


if __name__ == "__main__":
    if len(sys.argv) < 2 or not os.path.exists(sys.argv[1]):
        sys.exit("usage: check.py EMULATOR [unittest options]")
    EMULATOR = os.path.abspath(sys.argv.pop(1))
    unittest.main()
