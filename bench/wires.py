"""Emulated networks between namespaces that are there, as many as a scenario needs."""

import subprocess

from netns import Link, LinkError, Process


class Wire(Link):
    """An emulated network between two namespaces that are there: one address at each end."""

    def __init__(self, emulator, a, b, device, number, rtt_ms, seed=1):
        self.a, self.b = a, b
        self.DEVICE = device
        self.number = number
        command = [emulator, "--a", f"{a.name}:{device}", "--b", f"{b.name}:{device}"]
        command += ["--seed", str(seed), "--control"]
        self.emulator = Process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        if self.emulator.child.stdout.readline().strip() != "ready":
            raise LinkError("the link emulator did not start")
        self.shape(delay_ms=rtt_ms / 2, loss=0)
        self.hosts = [1, 2]
        for side, host in zip((a, b), self.hosts):
            side.run(["ip", "addr", "add", self.address(host), "dev", device])

    def address(self, host):
        return f"10.78.{self.number}.{host}/24"

    def renumber(self, sides):
        """Another address for these sides (0, 1), and the old one is gone."""
        for index in sides:
            old, new = self.hosts[index], self.hosts[index] + 2
            self.hosts[index] = new
            commands = (
                f"addr del {self.address(old)} dev {self.DEVICE}\naddr add {self.address(new)} dev {self.DEVICE}\n"
            )
            commands += f"route add default dev {self.DEVICE}\n"
            (self.a, self.b)[index].run(["ip", "-batch", "-"], input=commands, text=True)

    def close(self):
        self.emulator.end()
