"""A suite of tracing_guest: more programs, on one kernel alone."""

import socket
import ssl
import threading

from programs import fetch, nginx, serving
from suites import MANY_VECTORS, PACKAGES, ROOT, VECTOR_BYTES, VECTOR_CALLS

PYTHON = "/usr/bin/python3"
HAPROXY_OPTIONS = ("", "option splice-auto", "option splice-response")
HAPROXY = """
global
    maxconn 100
defaults
    mode tcp
    timeout connect 60s
    timeout client 60s
    timeout server 60s
    {option}
listen here
    bind 127.0.0.1:{port}
    server there 127.0.0.1:{to}
"""


def drain():
    """A port whose connections are read to their ends."""
    listener = socket.create_server(("127.0.0.1", 0))

    def read():
        while True:
            connection, _ = listener.accept()
            with connection:
                while connection.recv(1 << 18):
                    pass

    threading.Thread(target=read, daemon=True).start()
    return listener.getsockname()[1]


def haproxy(port, to, option):
    configuration = ROOT / f"haproxy-{port}"
    configuration.write_text(HAPROXY.format(port=port, to=to, option=option))
    return serving(["haproxy", "-db", "-f", configuration], f"http://127.0.0.1:{port}/payload")


def everything(programs):
    payload = programs.folders["ext4"] / "payload"
    copy = programs.folders["ext4"] / "copied"
    programs.command("dd", "dd", f"if={payload}", f"of={copy}", "bs=64k")
    for name, size in (("small", "8k"), ("large", "256k")):
        own = [f"if={payload}", f"of={copy}", f"bs={size}"]
        programs.command(f"dd in {name} pieces", "dd", *own)
    programs.command("gzip", "sh", "-c", f"gzip -1 <{payload} >{copy}")
    programs.command("pv to a device", "pv", "-q", payload)
    programs.command("pv to a pipe", "sh", "-c", f"pv -q {payload} | cat")
    programs.command("socat", "socat", "-u", f"FILE:{payload}", f"TCP:127.0.0.1:{drain()}")
    text = f"import shutil; shutil.copyfile('{payload}', '{copy}')"
    programs.command("copyfile", PYTHON, "-I", "-c", text)
    text = (
        f"import socket; socket.create_connection(('127.0.0.1', {drain()}))"
        f".sendfile(open('{payload}', 'rb'))"
    )
    programs.command("socket.sendfile", PYTHON, "-I", "-c", text)
    text = (
        f"import mmap, socket; file = open('{payload}', 'rb'); "
        "mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ); "
        f"socket.create_connection(('127.0.0.1', {drain()})).sendall(mapped)"
    )
    programs.command("a mapped file", PYTHON, "-I", "-c", text)
    for name, vectors in (("many vectors", MANY_VECTORS), ("one vector", 1)):
        text = (
            f"import os; file = os.open('{copy}', os.O_WRONLY | os.O_CREAT); "
            f"vectors = [bytes({VECTOR_BYTES * MANY_VECTORS // vectors})] * {vectors}; "
            f"[os.writev(file, vectors) for _ in range({VECTOR_CALLS})]"
        )
        programs.command(name, PYTHON, "-I", "-c", text)
    java = "java", "-Xint", "-cp", PACKAGES / "classes", "Relay"
    for how in ("stream", "channel"):
        programs.command(f"Java by {how}", *java, how, payload, drain())
    url = "http://127.0.0.1:{}/payload".format
    own = ["--bind", "127.0.0.1", "--directory", payload.parent, "8100"]
    with serving([PYTHON, "-m", "http.server", *own], url(8100)) as pid:
        programs.attached("http.server", lambda: fetch(url(8100)), pids=(pid,))
    trusting = ssl.create_default_context(cafile=PACKAGES / "certificate")
    trusting.check_hostname = False
    tls = f"ssl_certificate {PACKAGES}/certificate; ssl_certificate_key {PACKAGES}/key;"
    with nginx(payload.parent, 8101, "on", tls=tls, context=trusting) as pid:
        programs.attached(
            "nginx with TLS",
            lambda: fetch("https://127.0.0.1:8101/payload", trusting),
            pids=(pid,),
        )
    with nginx(payload.parent, 8102, "on"):
        for port, option in enumerate(HAPROXY_OPTIONS, start=8103):
            with haproxy(port, 8102, option) as pid:
                programs.attached(
                    f"haproxy {option}".strip(), lambda port=port: fetch(url(port)), pids=(pid,)
                )
