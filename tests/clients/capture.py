#!/usr/bin/env python3
"""Makes the captures beside it: the Content-Type and the body of a form as each client sends it.

    python3 -m venv V && V/bin/pip install requests httpx aiohttp urllib3
    apt-get install chromium curl nodejs default-jdk-headless libhttpmime-java libokhttp-java \
        mono-mcs mono-runtime libmono-system-net-http4.0-cil golang-go
    V/bin/python capture.py [NAME...]

A client that is not installed is passed over, with a line on standard error. Each capture is a line
of Content-Type, then the body. The form holds the field `note` and the file `file`, which is
../bodies/dot.png; browsers send a file input that was left empty besides.
"""
import http.server
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).parent.resolve()
SOURCES = HERE / "src"
FILE = HERE.parent / "bodies" / "dot.png"
JARS = ":".join(f"/usr/share/java/{jar}.jar" for jar in ("httpmime", "httpclient", "httpcore", "commons-logging", "okhttp", "okio"))
FORM = """<!doctype html><meta charset=utf-8><form method=post enctype=multipart/form-data action=/capture>
<input name=note value=hi><input name=file type=file><input name=empty type=file></form><script type=module>
const picture = await (await fetch("/dot.png")).blob();
const file = new File([picture], "käse 1.png", {type: "image/png"});
const form = document.querySelector("form");
const files = new DataTransfer();
files.items.add(file);
form.elements.file.files = files.files;
"""
PAGES = {
    "/form": FORM + "form.submit()</script>",
    "/fetch": FORM + "const data = new FormData(); data.append('note', 'hi'); data.append('file', picture);"
    "await fetch('/capture', {method: 'POST', body: data})</script>",
}


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen = None

    def answer(self, body=b"", kind="text/html"):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def do_GET(self):
        if self.path == "/dot.png":
            return self.answer(FILE.read_bytes(), "image/png")
        self.answer(PAGES.get(self.path, "").encode())

    def do_POST(self):
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        Server.seen = self.headers["Content-Type"].encode() + b"\n" + body
        self.answer()

    def log_message(self, *_):
        pass


def clients(url, work):
    """The name of each capture, and the commands that make its client send the form."""
    page = url.removesuffix("/capture")
    python = [sys.executable, SOURCES / "clients.py", url, FILE]
    utf8 = work / "käse 1.png"
    utf8.write_bytes(FILE.read_bytes())
    for name in ("form", "fetch"):
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={work}/{name}", "--virtual-time-budget=10000", "--dump-dom"]
        yield f"chromium_{name}", [["chromium", *flags, f"{page}/{name}"]]
    yield "curl", [["curl", "-s", "-F", "note=hi", "-F", f"file=@{FILE}", url]]
    yield "curl_utf8", [["curl", "-s", "-F", f"file=@{utf8}", url]]
    yield "undici", [["node", SOURCES / "undici.mjs", url, FILE]]
    for name in ("requests", "requests_typed", "requests_utf8", "requests_utf8_typed", "httpx", "httpx_utf8", "urllib3", "aiohttp", "aiohttp_utf8"):
        yield name, [[*python, name]]
    java = lambda name, *more: [["java", "-Dfile.encoding=UTF-8", "-cp", JARS, SOURCES / f"{name}.java", url, FILE, *more]]
    yield "java_jdk", java("JdkHttpClient")
    yield "java_apache", java("ApacheHttpClient", "strict")
    yield "java_apache_browser", java("ApacheHttpClient", "browser")
    yield "java_okhttp", java("OkHttp")
    dotnet = work / "dotnet.exe"
    build = ["mcs", "-r:System.Net.Http.dll", f"-out:{dotnet}", SOURCES / "DotNet.cs"]
    yield "dotnet", [build, ["mono", dotnet, url, FILE, "dot.png"]]
    yield "dotnet_utf8", [build, ["mono", dotnet, url, FILE, "käse 1.png"]]
    yield "go", [["go", "run", SOURCES / "go.go", url, FILE]]


def run(command, environment):
    """To its end, or until the form is here: a browser stays."""
    with tempfile.TemporaryFile() as said, subprocess.Popen(command, env=environment, stdout=said, stderr=said) as client:
        end = time.monotonic() + 60
        while client.poll() is None and Server.seen is None and time.monotonic() < end:
            time.sleep(0.05)
        client.terminate()
        if Server.seen is None and client.wait() != 0:
            said.seek(0)
            print(said.read().decode()[-600:], file=sys.stderr)


def main(wanted):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/capture"
    with tempfile.TemporaryDirectory() as work:
        environment = dict(os.environ, LC_ALL="C.UTF-8", GOCACHE=f"{work}/go", HOME=work)
        for name, commands in clients(url, pathlib.Path(work)):
            if wanted and name not in wanted:
                continue
            Server.seen = None
            try:
                for command in commands:
                    run(command, environment)
            except OSError as error:
                print(f"{name}: {error}", file=sys.stderr)
            if Server.seen is None:
                print(f"{name}: sent nothing", file=sys.stderr)
                continue
            (HERE / f"{name}.http").write_bytes(Server.seen)


main(sys.argv[1:])
