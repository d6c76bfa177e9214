"""A Kafka broker, and a client of it that does as it is told. Standard library.

Runs where it is imported: in a guest, or anywhere for a try. Whatever is started ends with
its context manager, and all files are in one folder.
"""

import re
import secrets
import socket
import struct
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

HERE = Path(__file__).resolve().parent
PORT, TLS_PORT = 9092, 9094
_OPTIONS = (
    "-Xms256m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    # What is compiled is compiled soon: an emulated machine has no time for better code.
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
    # No files in /tmp.
    "-XX:-UsePerfData",
    "-XX:+DisableAttachMechanism",
    "-XX:ErrorFile=/dev/null",
    "-XX:-CreateCoredumpOnCrash",
)
_START_SECONDS, _SAY_SECONDS, _END_SECONDS = 600, 30, 60


_PRODUCE, _FETCH, _API_VERSIONS = 0, 1, 18
"""Numbers of kinds of requests: https://kafka.apache.org/protocol."""
_ASK_SECONDS = 60


def _ask(kind, version, body=b""):
    """One request to the broker; its answer, or nothing if it hangs up."""
    name = b"zctrace"
    request = struct.pack(">hhih", kind, version, 1, len(name)) + name + body
    with socket.create_connection(("127.0.0.1", PORT), _ASK_SECONDS) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        with connection.makefile("rb") as answer, suppress(ConnectionResetError):
            size = answer.read(4)
            return answer.read(*struct.unpack(">i", size)) if size else b""
    return b""


class KafkaError(Exception):
    """A part of it did not do what it is for; says which, and its last words."""


class Kafka:
    """Its storage in ``folder``, formatted, with a certificate; nothing runs yet.

    ``home`` has the jars in ``libs`` and the client's class in ``classes``; ``java`` is the
    folder of a JDK.
    """

    def __init__(self, home, java, folder):
        self._home, self._java, self.folder = Path(home), Path(java), Path(folder)
        self.logs = self.folder / "logs"
        self._log = self.folder / "output"
        self._password = secrets.token_hex(16)
        self._store = self.folder / "store.p12"
        self._properties = self.folder / "server.properties"
        (self.folder / "tmp").mkdir(parents=True)

    def prepare(self):
        """Make the certificate, and format the storage."""
        self._tool(
            self._java / "bin" / "keytool",
            *("-J-XX:-UsePerfData", "-genkeypair", "-alias", "broker", "-keyalg", "RSA"),
            *("-keysize", "2048", "-validity", "2", "-dname", "CN=localhost"),
            *("-ext", "SAN=IP:127.0.0.1", "-storetype", "PKCS12"),
            *("-keystore", self._store, "-storepass", self._password),
        )
        own = {"log.dirs": self.logs}
        for store in ("keystore", "truststore"):
            own |= {
                f"ssl.{store}.location": self._store,
                f"ssl.{store}.type": "PKCS12",
                f"ssl.{store}.password": self._password,
            }
        own["ssl.key.password"] = self._password
        text = (HERE / "server.properties").read_text()
        self._properties.write_text(
            text + "".join(f"{name}={value}\n" for name, value in own.items())
        )
        # A cluster's name is 16 bytes in base64; any will do.
        cluster = "zctraceAAAAAAAAAAAAAAA"
        self._tool(
            *self._command("kafka.tools.StorageTool"),
            *("format", "-t", cluster, "-c", self._properties),
        )

    @contextmanager
    def broker(self, say):
        """A broker that listens; yields the number of its process.

        Ends in good order, else killed. ``say`` gets a word now and then until it listens.
        """
        with self._process(*self._command("kafka.Kafka"), self._properties) as process:
            self._listens(process, say)
            yield process.pid

    @contextmanager
    def client(self):
        """Something to call with the words of a command; returns how many bytes it moved."""
        command = self._command("Client")
        arguments = [PORT, TLS_PORT, self._store, self._password]
        with self._process(
            *command, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:

            def perform(*words):
                process.stdin.write(" ".join(map(str, words)) + "\n")
                process.stdin.flush()
                word, _, rest = process.stdout.readline().strip().partition(" ")
                if word != "ok":
                    raise KafkaError(f"{' '.join(map(str, words))}: {rest}: {self._said()}")
                return int(rest)

            yield perform

    def log_bytes(self, topic):
        """Of the one segment that the topic's log consists of."""
        (segment,) = (self.logs / f"{topic}-0").glob("*.log")
        return segment.stat().st_size

    def mapped(self, process):
        """Files of the log's folder that the process has mapped, with the bytes of each."""
        found = {}
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            span, *_, path = line.split(maxsplit=5)
            if path.startswith(f"{self.logs}/"):
                start, end = (int(address, 16) for address in span.split("-"))
                name = path.removeprefix(f"{self.logs}/")
                found[name] = found.get(name, 0) + end - start
        return found

    def opened(self, process):
        """Files of the log's folder that the process has a descriptor of."""
        links = Path(f"/proc/{process}/fd").iterdir()
        paths = {str(link.readlink()) for link in links if link.exists()}
        return sorted(
            path.removeprefix(f"{self.logs}/")
            for path in paths
            if path.startswith(f"{self.logs}/")
        )

    def versions(self):
        """Of the requests to produce and to fetch, which versions it says it answers."""
        answer = _ask(_API_VERSIONS, 0)
        # Which question it answers, what went wrong, and how many kinds there are.
        _, error, kinds = struct.unpack_from(">ihi", answer)
        if error:
            raise KafkaError(f"the broker does not tell its versions: error {error}")
        rows = [struct.unpack_from(">hhh", answer, 10 + 6 * row) for row in range(kinds)]
        known = {key: [least, most] for key, least, most in rows}
        return {"produce": known[_PRODUCE], "fetch": known[_FETCH]}

    def answers_fetch(self, version):
        """Whether it answers a request of version 3 or 4, to fetch nothing."""
        isolation = b"\0" if version == 4 else b""
        nothing = struct.pack(">iiii", -1, 100, 1, 1 << 20) + isolation + bytes(4)
        return bool(_ask(_FETCH, version, nothing))

    def _command(self, name):
        return [
            self._java / "bin" / "java",
            *_OPTIONS,
            f"-Djava.io.tmpdir={self.folder / 'tmp'}",
            f"-Dkafka.logs.dir={self.folder}",
            "-Dlog4j2.configurationFile=" + str(HERE / "log4j2.properties"),
            *("-cp", f"{self._home / 'classes'}:{self._home / 'libs'}/*", name),
        ]

    def _tool(self, *command):
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        if done.returncode:
            raise KafkaError(f"{command[0]}: {done.stdout[-400:]} {done.stderr[-400:]}")

    @contextmanager
    def _process(self, *command, **options):
        with self._log.open("a") as output:
            options = {"stdin": subprocess.DEVNULL, "stdout": output} | options
            process = subprocess.Popen(list(map(str, command)), stderr=output, **options)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()

    def _listens(self, process, say):
        began = time.monotonic()
        told = 0
        while (waited := time.monotonic() - began) < _START_SECONDS:
            with suppress(OSError), socket.create_connection(("127.0.0.1", TLS_PORT)):
                return
            if process.poll() is not None:
                raise KafkaError(f"the broker ended with {process.returncode}: {self._said()}")
            if waited >= told:
                say("waiting for the broker")
                told += _SAY_SECONDS
            time.sleep(0.2)
        raise KafkaError(f"no broker after {_START_SECONDS} s: {self._said()}")

    def _said(self):
        return re.sub(r"\s+", " ", self._log.read_text(errors="replace"))[-600:]
