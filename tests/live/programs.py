"""A suite of tracing_guest: programs that run on every kernel that is tested."""

import subprocess
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from suites import ENVIRONMENT, ROOT, SIZE

NGINX = """
worker_processes 1;
daemon off;
pid {folder}/pid;
error_log {folder}/error;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    sendfile {sendfile};
    {tls}
    server {{ listen 127.0.0.1:{port} {ssl}; root {root}; }}
}}
"""


def fetch(url, context=None):
    got = 0
    with urllib.request.urlopen(url, context=context) as answer:
        while piece := answer.read(1 << 16):
            got += len(piece)
    assert got == SIZE, got


@contextmanager
def serving(command, url, context=None, cgroup=None):
    """The number of a server's process that is warm; in a cgroup, where there is one."""
    process = subprocess.Popen(
        list(map(str, command)),
        env=ENVIRONMENT,
        preexec_fn=cgroup and (lambda: (cgroup / "cgroup.procs").write_text("0")),
    )
    try:
        for _ in range(600):
            try:
                fetch(url, context)
                break
            except OSError:
                assert process.poll() is None, command
                time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def nginx(folder, port, sendfile, cgroup=None, tls="", context=None):
    """Serving ``folder``; with ``tls``, its settings."""
    own = ROOT / f"nginx-{port}"
    own.mkdir(mode=0o777)
    configuration = own / "conf"
    configuration.write_text(
        NGINX.format(
            folder=own, port=port, root=folder, sendfile=sendfile, tls=tls,
            ssl="ssl" if tls else "",
        )
    )  # fmt: skip
    return serving(
        ["nginx", "-c", configuration, "-e", f"{own}/error"],
        f"http{'s' if tls else ''}://127.0.0.1:{port}/payload",
        context,
        cgroup,
    )


def everything(programs):
    ext4, xfs = programs.folders["ext4"], programs.folders["xfs"]
    programs.command("cp", "cp", ext4 / "payload", ext4 / "copy")
    programs.command("cp --reflink", "cp", "--reflink=always", xfs / "payload", xfs / "copy")
    never = xfs / "payload", xfs / "copied"
    programs.command("cp --reflink=never", "cp", "--reflink=never", *never)
    programs.command("cat", "cat", ext4 / "payload")
    programs.command("shell", "sh", "-c", f"cat {ext4}/payload | wc -c; exit 7")
    programs.command("alone", "sh", "-c", f"cat {ext4}/payload >/dev/null; true", follow=False)
    programs.command("time", "sleep", "1000", seconds=0.5)
    for port, sendfile in ((8001, "on"), (8002, "off")):
        with nginx(ext4, port, sendfile) as pid:
            programs.attached(
                f"nginx, sendfile {sendfile}",
                lambda port=port: fetch(f"http://127.0.0.1:{port}/payload"),
                pids=(pid,),
            )
    own = Path("/sys/fs/cgroup/nginx")
    own.mkdir()
    with nginx(ext4, 8003, "off", own):
        programs.attached(
            "nginx, by its cgroup",
            lambda: fetch("http://127.0.0.1:8003/payload"),
            cgroup=str(own),
        )
