"""A Redis server of a test's own: nothing kept, ended by its id.

with Redis() as redis:
    redis.url                   # redis://127.0.0.1:PORT
    redis.end()                 # it is away
    redis.start()               # and back, on the same port, empty
"""

import shutil
import socket
import tempfile

import drivers


class Redis:
    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="reconnect-redis-")
        self.process = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        self.start()

    def start(self):
        settings = {"bind": "127.0.0.1", "port": self.port, "save": "", "appendonly": "no", "dir": self.folder}
        command = [drivers.find("redis-server")]
        for name, value in settings.items():
            command += [f"--{name}", str(value)]
        self.process = drivers.Process(command)
        self.process.wait_for("Ready to accept connections", 20)

    def end(self):
        if self.process:
            self.process.end()
        self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.end()
        shutil.rmtree(self.folder, ignore_errors=True)
