"""Records real programs of a Debian machine: each is started, used and stopped, and labelled with its class.

    python -m benchmarks.behaviour.programs record --state-dir DIR [--only NAME ...] [--held-out] [--seconds 24] [--sessions 36]
    python -m benchmarks.behaviour.programs check --state-dir DIR

A recording is a state directory: `traces`, `labels.toml` (a configuration of nicety: a group for each program, with its class) and
`held_out.txt` (names of the groups that no model may be trained on). It has only processes that the recording started, but their
run-queue waits come from the whole machine. Nothing is installed without --install. `docs/behaviour-programs.md` has the table of the
programs; `list` prints it.
"""

# ruff: noqa: E501 -- command lines, configurations and a table read best in one line each

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from ctypes import CDLL
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nicety.models.identity import ProcId
from nicety.models.records import Class, Snapshot, Trait
from nicety.scheduler.config.sections import parse
from nicety.scheduler.observe.measure import Measurer
from nicety.scheduler.read.facts import probe
from nicety.scheduler.read.proc import ProcSource
from nicety.scheduler.store.traces import TraceWriter, read_traces

from .. import ROOT
from .acts import (
    DOWN,
    LEFT,
    PHP_PAGE,
    RIGHT,
    UP,
    Act,
    again,
    app,
    compile_c,
    database_queries,
    datagrams,
    dict_server,
    etcd,
    exporter,
    ftp,
    growing,
    influx,
    jack,
    job_queue,
    language_server,
    lines,
    mail_in,
    mail_out,
    mariadb,
    memcached,
    mosquitto,
    names,
    page,
    php_pool,
    piped,
    postgres,
    prometheus,
    proxy,
    redis,
    script,
    secure_shell,
    sound_server,
    stays,
    terminal_window,
    tunnel,
    typed,
    web,
    window,
    with_metrics,
    written,
)
from .stage import Stage

SHOWS = 0.0005
"""Least mean cores over a performance for a program to count as active. Chosen."""

CONTENTION = (0, 2, 4, 1, 0, 5, 3, 6)
"""Number of batch programs in the sessions, in turn. Chosen: the model must see programs alone and under contention."""

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER, include/uapi/linux/prctl.h: orphans become our children, so we can end all of them


@dataclass(frozen=True, slots=True)
class Program:
    """A row of the table."""

    name: str  # of its group
    class_: Class
    packages: str  # Debian's packages, separated by spaces
    program: str  # a glob for the name of its processes, as in a group of the configuration
    use: str  # how it is used, for people
    act: Act
    held_out: bool = False
    family: str = ""  # code base that it shares with other rows; "": none. A family is held out as a whole


# --- what scripts and applications of ours do -------------------------------------------------------------------------------------

_RUBY_WORK = "a = (1..400_000).map { |i| (i * 7919) % 100_003 }\n20.times { a = a.sort.reverse.map { |x| (x * 31) % 99_991 } }\n"
_PERL_WORK = (
    'my %h; for my $r (1 .. 30) { for my $i (1 .. 60000) { $h{"k$i"} += length("x" x ($i % 40)) } }\nprint scalar(%h), "\\n";\n'
)
_LUA_WORK = "local t = {}\nfor r = 1, 40 do for i = 1, 200000 do t[i] = (t[i] or 0) + math.sin(i) end table.sort(t) end\n"
_NODE_WORK = "let a = []; for (let i = 0; i < 1e6; i++) a.push((i * 7919) % 100003);\nfor (let r = 0; r < 12; r++) { a.sort((x, y) => x - y); a = a.map(x => (x * 31) % 99991); }\n"
_PHP_WORK = "<?php $h = []; for ($r = 0; $r < 60; $r++) for ($i = 0; $i < 60000; $i++) { $h[md5((string)$i)] = $r; }\n"
_PYTHON_WORK = "total = 0\nfor i in range(40_000_000):\n    total += i * i % 7\nprint(total)\n"
_NUMPY_WORK = "import numpy as np\na = np.random.rand(900, 900)\nfor _ in range(60):\n    a = a @ a\n    a /= np.abs(a).max()\n"
_SKLEARN_WORK = """import numpy as np
from sklearn.ensemble import RandomForestClassifier
x = np.random.rand(20000, 20)
RandomForestClassifier(60).fit(x, x[:, 0] + x[:, 1] > 1)
"""
_CRAWL = """import hashlib, http.server, threading
class Metrics(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "5"); self.end_headers(); self.wfile.write(b"n 17\\n")
    def log_message(self, *a): pass
threading.Thread(target=http.server.HTTPServer(("127.0.0.1", {port}), Metrics).serve_forever, daemon=True).start()
data = b"x" * 100000
while True:
    data = hashlib.sha256(data).digest() * 3000
"""
_SHARED = """import multiprocessing, random
def work(n, shared):
    a = sorted(random.random() for _ in range(300000))
    shared[n] = sum(a)
if __name__ == "__main__":
    with multiprocessing.Manager() as manager:
        shared = manager.dict()
        with multiprocessing.Pool(2) as pool:
            pool.starmap(work, [(n, shared) for n in range(60)])
"""
_RUBY_JOBS = """require "socket"
Thread.new { s = TCPServer.new("127.0.0.1", {port}); loop { c = s.accept; c.gets; c.print "HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok"; c.close } }
a = (1..200_000).to_a
loop { a = a.map { |x| (x * 7919) % 100_003 }.sort }
"""
_JOBS = """while true; do
  for f in /usr/share/doc/[a-f]*; do n=$(basename "$f" | tr a-z A-Z | wc -c); s=$((s + n)); done
done
"""
_R_WORK = "x <- matrix(runif(490000), 700); for (i in 1:12) { y <- solve(x); x <- x + 1e-3 * y }; print(sum(lm(x[,1] ~ x[,2:60])$residuals))\n"
_RUST = (
    "".join(
        f'fn f{i}<T: std::fmt::Debug + Clone>(x: &[T]) -> Vec<String> {{ x.iter().map(|v| format!("{{:?}}{i}", v.clone())).collect() }}\n'
        for i in range(250)
    )
    + "fn main() {\n"
    + "".join(f'    println!("{{:?}}", f{i}(&[{i}u8, 2]).len() + f{i}(&["a"]).len());\n' for i in range(250))
    + "}\n"
)
_GO = 'package main\n\nimport (\n\t"fmt"\n\t"net/http"\n)\n\nfunc main() {\n\tfmt.Println(http.StatusText(200), N)\n}\n\nconst N = 1\n'
_SCENE = """#include "colors.inc"
camera { location <0, 2, -6> look_at 0 } light_source { <9, 9, -9> White }
plane { y, -1 pigment { checker White Black } finish { reflection 0.3 } }
#declare I = 0; #while (I < 40) sphere { <sin(I) * 2, I / 20, cos(I) * 2>, 0.3 pigment { rgbt <1, I / 40, 0, 0.5> } interior { ior 1.4 } } #declare I = I + 1; #end
"""
_MODEL = """param n := 26; set I := 1..n; param w{i in I} := 13 + (i * 37) mod 41; param v{i in I} := 11 + (i * 53) mod 47;
var x{I, 1..6}, binary; maximize z: sum{i in I, k in 1..6} (v[i] + (i * k) mod 5) * x[i, k];
s.t. cap{k in 1..6}: sum{i in I} w[i] * x[i, k] <= 97 + k; s.t. once{i in I}: sum{k in 1..6} x[i, k] <= 1; solve; end;
"""
_SCHEME = """(define (fib n) (if (< n 2) n (+ (fib (- n 1)) (fib (- n 2)))))
(define (work n) (if (> n 0) (begin (sort (map (lambda (i) (modulo (* i 7919) 100003)) (iota 200000)) <) (work (- n 1)))))
(display (fib 27)) (work 20)
"""
_OCAML = "".join(
    f"type t{i} = A{i} of int | B{i} of t{i} list\nlet rec f{i} x = match x with A{i} n -> n * {i} | B{i} l -> List.fold_left (fun a y -> a + f{i} y) {i} l\n"
    for i in range(900)
)
_DOT = "graph g {\n" + "".join(f"n{i} -- n{(i * 7 + 3) % 400};\nn{i} -- n{(i * 13 + 5) % 400};\n" for i in range(400)) + "}\n"
_CHANCE = random.Random(5)
_CNF = "p cnf 300 1280\n" + "".join(
    " ".join(str(_CHANCE.choice((1, -1)) * variable) for variable in _CHANCE.sample(range(1, 301), 3)) + " 0\n" for _ in range(1280)
)
_WSGI = """import time
def application(environ, start_response):
    amount = 5 + hash(environ.get("REMOTE_PORT", "")) % 15
    end = time.thread_time() + amount / 1000
    while time.thread_time() < end:
        sum(range(500))
    start_response("200 OK", [("Content-Length", "3")])
    return [b"ok\\n"]
"""
_ASGI = """import time
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    end = time.thread_time() + 0.003
    while time.thread_time() < end:
        sum(range(500))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
    await send({"type": "http.response.body", "body": b"ok\\n"})
"""
_NODE = """const crypto = require("crypto");
require("http").createServer((q, r) => { let h = "x"; for (let i = 0; i < 400; i++) h = crypto.createHash("sha256").update(h).digest("hex");
r.setHeader("Content-Length", h.length); r.end(h); }).listen({port}, "127.0.0.1");
"""
_RUBY = """require "webrick"
s = WEBrick::HTTPServer.new(Port: {port}, BindAddress: "127.0.0.1", AccessLog: [], Logger: WEBrick::Log.new(File::NULL))
s.mount_proc("/") { |q, r| x = 0; 20000.times { |i| x += i * i }; r.body = x.to_s }
trap("TERM") { s.shutdown }
s.start
"""
_JAVA = """import com.sun.net.httpserver.*; import java.net.*; import java.util.concurrent.*;
public class Server { public static void main(String[] a) throws Exception {
HttpServer s = HttpServer.create(new InetSocketAddress("127.0.0.1", {port}), 50); s.setExecutor(Executors.newFixedThreadPool(8));
s.createContext("/", x -> { double d = 0; for (int i = 1; i < 60000; i++) d += Math.sin(i) / i; byte[] b = ("" + d).getBytes();
x.sendResponseHeaders(200, b.length); x.getResponseBody().write(b); x.close(); }); s.start(); } }
"""


# --- the table ------------------------------------------------------------------------------------------------------------------

L, B, N = Class.INTERACTIVE, Class.BATCH, Class.EXEMPT

_GREP = "grep -rEc '(def|class) [a-z]+_[a-z]+.*:$' {in}/tree"
_TEXT = "{in}/text"
_PROSE = "Somebody wrote a few words, and then some more.\r"
_SH = (
    "ls -l /usr/lib | head -300\r",
    "echo some words\r",
    "cat /etc/services\r",
    "for i in 1 2 3; do echo $i; done\r",
    "\x10\x10\r",
)
_APACHE = """ServerRoot {dir}
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {dir}/pid
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
User nobody
Group nogroup
ErrorLog {dir}/errors
DocumentRoot {dir}/www
"""
_NGINX = """daemon off; worker_processes 2; pid {dir}/pid; error_log /dev/null; events {} http { access_log off; client_body_temp_path {dir}/1;
proxy_temp_path {dir}/2; fastcgi_temp_path {dir}/3; uwsgi_temp_path {dir}/4; scgi_temp_path {dir}/5;
server { listen 127.0.0.1:{port}; root {dir}/www; } }
"""
_HAPROXY = """global
  maxconn 500
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend f
  bind 127.0.0.1:{port}
  default_backend b
backend b
  server s 127.0.0.1:{back}
"""
_SQUID = """http_port 127.0.0.1:{port}
http_access allow all
cache deny all
pid_filename {dir}/squid.pid
access_log none
cache_log {dir}/log
coredump_dir {dir}
icp_port 0
shutdown_lifetime 1 seconds
"""
_UNBOUND = """server:
  interface: 127.0.0.1@{port}
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "{dir}"
  pidfile: "{dir}/pid"
  use-syslog: no
  local-zone: "test." static
  local-data: "www.test. A 127.0.0.2"
remote-control:
  control-enable: no
"""
_ZONE = "$TTL 60\n@ IN SOA ns a ( 1 60 60 60 60 )\n@ IN NS ns\nns IN A 127.0.0.1\nwww IN A 127.0.0.2\n"
_NAMED = """options { directory "{dir}"; listen-on port {port} { 127.0.0.1; }; listen-on-v6 { none; }; recursion no; pid-file "{dir}/pid";
session-keyfile "{dir}/key"; dnssec-validation no; lock-file none; };
controls { }; zone "test" { type master; file "{dir}/zone"; };
"""
_NSD = """server:
  ip-address: 127.0.0.1@{port}
  username: ""
  zonesdir: "{dir}"
  pidfile: "{dir}/pid"
  database: ""
  xfrdfile: "{dir}/xfrd"
  zonelistfile: "{dir}/list"
  xfrdir: "{dir}"
  server-count: 2
remote-control:
  control-enable: no
zone:
  name: test
  zonefile: zone
"""
_IRC = """[Global]
Name = irc.test.net
Info = here
Ports = {port}
Listen = 127.0.0.1
MotdPhrase = hello
[Limits]
MaxConnectionsIP = 0
MaxPenaltyTime = 0
[Options]
Ident = no
DNS = no
PAM = no
"""
_SNMP = bytes.fromhex("302602010104067075626c6963a0190201010201000201 00300e300c06082b060102010101000500".replace(" ", ""))
_SNMP_MANY = bytes.fromhex("302602010104067075626c6963a5190201010201000201 14300e300c06082b060102010101000500".replace(" ", ""))
_STUN = bytes.fromhex("000100002112a442") + b"abcdefghijkl"
_COLLECTD = """BaseDir "{dir}"
PIDFile "{dir}/pid"
Interval 2
LoadPlugin cpu
LoadPlugin load
LoadPlugin memory
LoadPlugin processes
LoadPlugin csv
<Plugin csv>
  DataDir "{dir}/csv"
</Plugin>
"""
_RSYSLOG = 'module(load="imfile")\ninput(type="imfile" File="{dir}/log" Tag="x")\nglobal(workDirectory="{dir}")\n*.* action(type="omfile" File="{dir}/out")\n'
_SUPERVISOR = "[supervisord]\nnodaemon=true\nuser=root\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={dir}/pid\n[program:a]\ncommand=sleep 3\nstartsecs=0\nautorestart=true\n"

PROGRAMS: tuple[Program, ...] = (
    # Interactive, for training.
    Program("redis", L, "redis-server", "redis-*", "GET, SET and list commands, 1-200 in a pipeline", redis),
    Program("nginx", L, "nginx-light", "nginx", "small and large files", web("nginx -p {dir} -c {dir}/conf -e /dev/null", _NGINX)),
    Program("lighttpd", L, "lighttpd", "lighttpd", "small and large files", web(
        "lighttpd -D -f conf", 'server.document-root = "{dir}/www"\nserver.bind = "127.0.0.1"\nserver.port = {port}\n', 20, 1200)),
    Program("webfsd", L, "webfs", "webfsd", "small and large files", web("webfsd -F -4 -i 127.0.0.1 -p {port} -r {dir}/www", "", 20, 800)),
    Program("postgres", L, "postgresql", "postgres", "pgbench at a fixed rate, reads or TPC-B", postgres),
    Program("http-server", L, "python3", "python3 -m http.server", "directory listings", dict_server, family="python"),
    Program("gunicorn", L, "gunicorn", "python3 gunicorn", "5-20 ms of CPU a request, three workers", app(
        "app.py", _WSGI, "/usr/bin/python3 /usr/bin/gunicorn -w 3 -b 127.0.0.1:{port} app:application", 2, 60), family="python"),
    Program("uvicorn", L, "uvicorn", "python3 uvicorn", "3 ms of CPU a request, asyncio", app(
        "app.py", _ASGI, "/usr/bin/python3 /usr/bin/uvicorn --port {port} --log-level error app:app", 5, 200), family="python"),
    Program("node-server", L, "nodejs", "node server.js", "1 ms of CPU a request", app(
        "server.js", _NODE, "node server.js", 10, 400), family="node"),
    Program("dnsmasq", L, "dnsmasq-base", "dnsmasq", "queries for known and unknown names", names(
        "dnsmasq -k -p {port} --listen-address=127.0.0.1 --bind-interfaces --no-resolv --no-hosts --address=/www.test/127.0.0.2 "
        "--local=/test/ --conf-file=/dev/null --user=root --pid-file={dir}/pid")),
    Program("beanstalkd", L, "beanstalkd", "beanstalkd", "jobs put, statistics asked", lines(
        "beanstalkd -l 127.0.0.1 -p {port}", "", ((b"put 0 0 60 5\r\nhello\r\n", b"INSERTED"), (b"stats\r\n", b"id: ")), 50, 3000)),
    Program("sshd", L, "openssh-server openssh-client", "sshd", "two logins, commands typed", secure_shell),
    Program("squid", L, "squid", "squid", "forward proxy without a cache", proxy(
        "squid -N -f {dir}/conf", _SQUID, 20, 400, user="proxy", absolute=True)),
    Program("tinyproxy", L, "tinyproxy-bin", "tinyproxy", "forward proxy", proxy(
        "tinyproxy -d -c {dir}/conf", "Port {port}\nListen 127.0.0.1\nMaxClients 50\nTimeout 60\n", 10, 300, absolute=True)),
    Program("stunnel", L, "stunnel4", "stunnel4", "TLS before a web server", tunnel),
    Program("java-server", L, "openjdk-17-jdk-headless", "java Server", "1 ms of CPU a request, eight threads", app(
        "Server.java", _JAVA, "java -cp . Server", 10, 400, compile_with="javac Server.java"), family="jdk"),
    Program("chronyd", L, "chrony", "chronyd", "time queries", datagrams(
        "chronyd -x -d -U -u root -f {dir}/conf", "port {port}\nbindaddress 127.0.0.1\nallow 127.0.0.1\nlocal stratum 8\ncmdport 0\n"
        "bindcmdaddress {dir}/cmd\npidfile {dir}/pid\n", [b"\x23" + b"\0" * 39 + b"abcdefgh"], 100, 4000)),
    Program("prometheus", L, "prometheus", "prometheus", "queries and its own metrics", prometheus),
    Program("node-exporter", L, "prometheus-node-exporter", "prometheus-node-exporter", "metrics of the machine asked for", exporter),
    Program("ngircd", L, "ngircd", "ngircd", "pings and lists of a chat", lines(
        "ngircd -n -f {dir}/conf", _IRC, ((b"PING x\r\nLUSERS\r\nPING end\r\n", b":end\r\n"), (b"VERSION\r\nPING end\r\n", b":end\r\n")),
        50, 1500, hello=(b"NICK a{id}\r\nUSER a 0 * :a\r\nPING end\r\n", b":end\r\n"))),
    Program("bash", L, "bash", "bash", "commands typed", typed("bash --norc -i", *_SH), family="bash"),
    Program("nano", L, "nano", "nano", "prose typed, moved about in", typed(
        "nano -I {dir}/text", _PROSE, DOWN * 4, UP * 5, "\x0b", text="words of a text\n" * 300)),
    Program("less", L, "less", "less", "a long text paged and searched", typed("less {in}/text", " ", " ", "b", "/class\r", "n", DOWN * 5, "G", "g")),
    Program("htop", L, "htop", "htop", "the list scrolled and sorted", typed("htop -d 10", DOWN * 3, UP * 2, "P", "M", "t")),
    Program("tmux", L, "tmux", "tmux", "commands typed in two windows", typed(
        "tmux -L s{dir} -f /dev/null new bash --norc".replace("s{dir}", "stage"), *_SH, "\x02c", "\x02n", "\x02%")),
    Program("python-prompt", L, "python3", "python3", "expressions typed", typed(
        "/usr/bin/python3 -q", "sum(range(3000000))\r", "sorted(str(x) for x in range(99999))[:9]\r", "import json, re\r", "[x*x for x in range(900)]\r"),
        family="python"),
    Program("Xvfb", L, "xvfb xterm xdotool", "Xvfb", "a terminal window typed into", terminal_window, family="x"),
    Program("xterm", L, "xvfb xterm xdotool", "xterm", "commands typed", terminal_window, family="x"),
    Program("xeyes", L, "xvfb x11-apps xdotool", "xeyes", "the pointer moved", window(
        "xeyes", keys=(("mousemove", "100", "100"), ("mousemove", "500", "300"), ("mousemove", "90", "700"))), family="x"),
    Program("mpv", L, "mpv", "mpv", "a film played without end", again(
        "mpv --no-config --really-quiet --vo=null --ao=null --loop=inf {in}/film.mkv")),
    Program("jackd", L, "jackd2", "jackd", "a sound graph with a deadline", jack),
    Program("irssi", L, "irssi", "irssi", "commands typed", typed("irssi --home={dir}/irssi", "/help\r", "/set\r", "some words\r", "\x1b[5~")),
    Program("gnugo", L, "gnugo", "gnugo", "moves asked for through a pipe", piped(
        "gnugo --mode gtp --level 4", "genmove black", "genmove white", "showboard", "clear_board", pause=2.0)),
    # Interactive, held out.
    Program("memcached", L, "memcached", "memcached", "gets and sets, 1-100 at a time", memcached, True),
    Program("apache2", L, "apache2-bin", "apache2", "small and large files", web("apache2 -DFOREGROUND -f {dir}/conf", _APACHE, 20, 1200), True),
    Program("h2o", L, "h2o", "h2o", "small and large files", web(
        "h2o -c {dir}/conf", "user: root\nlisten:\n  host: 127.0.0.1\n  port: {port}\nhosts:\n  default:\n    paths:\n      /:\n        file.dir: {dir}/www\n"),
        True),
    Program("caddy", L, "caddy", "caddy", "small and large files", web(
        "caddy run --adapter caddyfile --config {dir}/conf", "{\n\tadmin off\n}\nhttp://127.0.0.1:{port} {\n\troot * {dir}/www\n\tfile_server\n}\n", 20, 800),
        True),
    Program("haproxy", L, "haproxy", "haproxy", "before a web server", proxy("haproxy -db -f {dir}/conf", _HAPROXY), True),
    Program("varnish", L, "varnish gcc", "varnishd", "a cache before a web server", proxy(
        "varnishd -F -j none -a 127.0.0.1:{port} -b 127.0.0.1:{back} -n {dir}/v -s malloc,32m", "", 30, 1200), True),
    Program("mariadb", L, "mariadb-server-core mariadb-client-core", "mariadbd", "selects, inserts and updates", mariadb, True),
    Program("php-server", L, "php-cli", "php router.php", "1 ms of CPU a request", app(
        "router.php", PHP_PAGE, "php -S 127.0.0.1:{port} router.php", 10, 300), True, "php"),
    Program("php-fpm", L, "php-fpm", "php-fpm*", "1 ms of CPU a request, a dynamic pool", php_pool, True, "php"),
    Program("webrick", L, "ruby-webrick", "ruby server.rb", "1 ms of CPU a request, threads", app(
        "server.rb", _RUBY, "ruby server.rb", 5, 200), True, "ruby"),
    Program("unbound", L, "unbound", "unbound", "queries for known and unknown names", names("unbound -d -c {dir}/conf", _UNBOUND), True),
    Program("named", L, "bind9", "named", "queries for known and unknown names", names("named -f -c {dir}/conf", _NAMED, _ZONE), True),
    Program("mosquitto", L, "mosquitto", "mosquitto", "messages published and delivered", mosquitto, True),
    Program("nats", L, "nats-server", "nats-server", "messages published and delivered", lines(
        "nats-server -a 127.0.0.1 -p {port}", "", ((b"PUB t 5\r\nhello\r\nPING\r\n", b"PONG\r\n"), (b"PUB t 5\r\nhello\r\n" * 50 + b"PING\r\n", b"PONG\r\n")),
        20, 800, b"INFO", (b'CONNECT {"verbose":false}\r\nSUB t 1\r\nPING\r\n', b"PONG\r\n")), True),
    Program("vsftpd", L, "vsftpd", "vsftpd", "files fetched, folders listed", ftp, True),
    Program("exim", L, "exim4-daemon-light", "exim4", "letters taken in", mail_in, True),
    Program("dovecot", L, "dovecot-imapd", "imap*", "letters fetched and searched", mail_out, True),
    Program("etcd", L, "etcd-server", "etcd", "keys written and read", etcd, True),
    Program("influxd", L, "influxdb", "influxd", "points written and queried", influx, True),
    Program("snmpd", L, "snmpd", "snmpd", "single values and tables asked for", datagrams(
        "snmpd -f -Lf /dev/null -C -c {dir}/conf --persistentDir={dir} udp:127.0.0.1:{port}", "rocommunity public 127.0.0.1\n", [_SNMP, _SNMP_MANY], 20, 1500), True),
    Program("turnserver", L, "coturn", "turnserver", "addresses asked for", datagrams(
        "turnserver -n -z -L 127.0.0.1 -p {port} --no-tls --no-dtls --no-cli --log-file=stdout --pidfile={dir}/pid --userdb={dir}/db", "", [_STUN], 100, 3000), True),
    Program("vim", L, "vim", "vim*", "prose typed, searched and changed", typed(
        "vim -u NONE -n {dir}/text", "iSome words more.\r\x1b", "/words\r", "ddp", "5j", "4k", ":%s/of/OF/g\ru", text="words of a text\n" * 3000), True),
    Program("emacs", L, "emacs-nox", "emacs*", "code typed and moved about in", typed(
        "emacs -nw -Q --eval '(setq native-comp-deferred-compilation nil)' {dir}/code.py", "def f(x):\rreturn x + 1\r", "\x0e" * 6, "\x10" * 4, "\x1bf" * 3, "\x0b", code_py="def g():\n    pass\n" * 200), True),
    Program("mc", L, "mc", "mc", "folders walked through", typed("mc -d -u /usr/share", DOWN * 5, UP * 2, "\r", "\t", DOWN * 12, "ls\r"), True),
    Program("w3m", L, "w3m", "w3m", "a long page read", typed(
        "w3m {dir}/page.html", " ", "b", DOWN * 6, "/word\r", "n", "\t\t", page_html="<h1>words</h1><p>some <a href=x>word</a> more " * 4000), True),
    Program("nethack", L, "nethack-console", "nethack*", "played", typed(
        "nethack -u Anna -n", "y", " ", "hjkl", "s", "i", "\x1b", "yubn", ".", "l" * 5, "j" * 4), True),
    Program("bastet", L, "bastet", "bastet", "played", typed("bastet", "\r", LEFT, RIGHT, DOWN * 3, UP, " "), True),
    Program("lnav", L, "lnav", "lnav", "a long log opened, scrolled and searched", typed(
        "lnav -q {in}/app.log", DOWN * 6, UP * 3, " ", "b", "/late\r", "n", "e"), True),
    Program("mutt", L, "mutt", "mutt", "a large mailbox opened, letters read and sorted", typed(
        "mutt -n -R -F /dev/null -f {in}/box", DOWN * 4, "\r", " ", "q", UP * 2, "os", "od", "/letter\r"), True),
    Program("visidata", L, "visidata", "python3 vd", "a table opened, sorted and scrolled", typed(
        "/usr/bin/python3 /usr/bin/vd {in}/rows.csv", DOWN * 6, UP * 3, "\x06", "\x02", "[", "]", RIGHT), True),
    Program("ipython", L, "python3-ipython ipython3", "python3 ipython3", "expressions typed, names completed", typed(
        "/usr/bin/python3 /usr/bin/ipython3 --no-banner --simple-prompt", "sum(range(300000))\r", "import json, re, math\r", "json.\t\x15",
        "x = [i * i for i in range(2000)]\r", "max(x)\r", "%timeit -n 3 -r 2 sorted(x)\r"), True),
    Program("chromium", L, "chromium xvfb", "chromium", "an animated page looked at", window(
        "chromium", "--no-sandbox", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir={dir}/profile", "--app=file://{dir}/page.html",
        keys=(("mousemove", "300", "300"), ("mousemove", "400", "200")), prepare=page), True),
    Program("mupdf", L, "mupdf xvfb xdotool ghostscript", "mupdf*", "a document paged and zoomed", window(
        "/usr/lib/mupdf/mupdf-x11", "{in}/paper.pdf", keys=(("key", "space"), ("key", "b"), ("key", "plus"), ("key", "minus"), ("key", "Down"))), True),
    Program("ffplay", L, "ffmpeg", "ffplay", "a film played without end", again(
        "ffplay -loglevel error -loop 0 {in}/film.mkv", env={"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy"}), True, "ffmpeg"),
    Program("pulseaudio", L, "pulseaudio pulseaudio-utils", "pulseaudio", "one to three sounds mixed", sound_server, True),
    Program("aspell", L, "aspell aspell-en", "aspell", "words asked for through a pipe", piped(
        "aspell -a", "somebody rote a few werds and then som more", "wich are lookd at one bye one", "thiss lin is long " * 40, pause=0.4), True),
    # Interactive, held out, added when there was a rule for programs that get requests through a pipe.
    Program("phalanx", L, "phalanx", "phalanx", "moves asked for through a pipe", piped("phalanx -l- -b-", "new", "level 0 0:20 1", "go", "go", "remove", pause=1.0), True),
    Program("espeak", L, "espeak-ng", "espeak-ng", "words spoken that come through a pipe", piped(
        "espeak-ng --stdout", "Somebody wrote a few words, and then some more.", "which are spoken, one by one", "this line is long " * 40, pause=0.5), True),
    Program("clangd", L, "clangd g++", "clangd", "names completed, a file changed, as an editor asks", language_server, True, "llvm"),
    # Interactive, held out, added when all other rules and features were final.
    Program("hunspell", L, "hunspell hunspell-en-us", "hunspell", "words asked for through a pipe", piped(
        "hunspell -a -d en_US", "somebody rote a few werds and then som more", "wich are lookd at one bye one", "thiss lin is long " * 40, pause=0.4), True),
    Program("ispell", L, "ispell iamerican", "ispell", "words asked for through a pipe", piped(
        "ispell -a", "somebody rote a few werds and then som more", "wich are lookd at one bye one", "thiss lin is long " * 40, pause=0.3), True),
    Program("xpdf", L, "xpdf xvfb xdotool ghostscript", "xpdf*", "a document paged and zoomed", window(
        "xpdf", "{in}/paper.pdf", keys=(("key", "space"), ("key", "BackSpace"), ("key", "plus"), ("key", "minus"), ("key", "Down"))), True),
    Program("zathura", L, "zathura zathura-pdf-poppler xvfb xdotool ghostscript", "zathura", "a document paged and zoomed", window(
        "zathura", "{in}/paper.pdf", keys=(("key", "space"), ("key", "J"), ("key", "K"), ("key", "plus"), ("key", "minus"), ("key", "j"))), True),
    Program("feh", L, "feh xvfb xdotool imagemagick", "feh", "a picture zoomed and turned", window(
        "feh", "{in}/picture.png", keys=(("key", "Up"), ("key", "Down"), ("key", "greater"), ("key", "less"), ("key", "r"))), True),
    Program("nsd", L, "nsd", "nsd", "queries for known and unknown names", names("nsd -d -c {dir}/conf", _NSD, _ZONE), True),
    Program("privoxy", L, "privoxy", "privoxy", "a proxy before a web server", proxy(
        "privoxy --no-daemon {dir}/conf", "listen-address 127.0.0.1:{port}\nconfdir /etc/privoxy\nlogdir {dir}\ntoggle 0\nkeep-alive-timeout 30\n", 10, 200, absolute=True), True),
    Program("nghttpx", L, "nghttp2-proxy", "nghttpx", "before a web server", proxy(
        "nghttpx -f127.0.0.1,{port};no-tls -b127.0.0.1,{back} --accesslog-file=/dev/null --errorlog-file=/dev/null --workers=2 --conf=/dev/null"), True),
    Program("mini-httpd", L, "mini-httpd", "mini*httpd", "small and large files", web("mini_httpd -D -h 127.0.0.1 -p {port} -d {dir}/www", "", 10, 300), True),
    Program("joe", L, "joe", "joe", "prose typed, moved about in", typed("joe {dir}/text", _PROSE, DOWN * 4, UP * 5, "\x19", text="words of a text\n" * 3000), True),
    Program("micro", L, "micro", "micro", "code typed, moved about in", typed("micro {dir}/code.py", "def f(x):\rreturn x + 1\r", DOWN * 4, UP * 5, "\x0b", code_py="def g():\n    pass\n" * 900), True),
    Program("links", L, "links", "links", "a long page read", typed(
        "links {dir}/page.html", " ", "b", DOWN * 6, "/word\r", "n", page_html="<h1>words</h1><p>some <a href=x>word</a> more " * 4000), True),
    Program("maxima", L, "maxima", "maxima*", "sums, integrals and roots asked for", typed(
        "maxima --very-quiet", "integrate(x^3 * sin(x), x);\r", "factor(2^67 - 1);\r", "expand((a + b)^60)$\r", "solve(x^3 + x = 1, x);\r", "sum(i^3, i, 1, 9000);\r"), True),
    Program("mplayer", L, "mplayer", "mplayer", "a film played without end", again("mplayer -really-quiet -noconsolecontrols -vo null -ao null -loop 0 {in}/film.mkv"), True),
    # Batch, for training.
    Program("gzip", B, "gzip", "gzip", "text packed", again(f"gzip -9 -c {_TEXT} > {{dir}}/out{{n}}", f"gzip -1 -c {_TEXT} > /dev/null"), family="packers"),
    Program("bzip2", B, "bzip2", "bzip2", "text packed", again(f"bzip2 -c {_TEXT} > {{dir}}/out{{n}}"), family="packers"),
    Program("xz", B, "xz-utils", "xz", "text packed, one and two threads", again(f"xz -1 -c {_TEXT} > {{dir}}/out{{n}}", f"xz -T2 -5 -c {_TEXT} > /dev/null"), family="packers"),
    Program("zstd", B, "zstd", "zstd", "text packed, one and two threads", again(f"zstd -q -12 -c {_TEXT} > {{dir}}/out{{n}}", f"zstd -q -T2 -9 -c {_TEXT} > /dev/null"), family="packers"),
    Program("pigz", B, "pigz", "pigz", "text packed by threads", again(f"pigz -p 3 -c {_TEXT} > {{dir}}/out{{n}}"), family="packers"),
    Program("7z", B, "7zip", "7z*", "a tree packed", again("7zz a -bd -mx=3 {dir}/out{n}.7z {in}/tree"), family="packers"),
    Program("mksquashfs", B, "squashfs-tools", "mksquashfs", "a tree packed", again("mksquashfs {in}/tree {dir}/out{n} -noappend -quiet -no-progress"), family="packers"),
    Program("dpkg-deb", B, "dpkg", "dpkg-deb", "a package built", written(
        {"p/DEBIAN/control": "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: x\n"},
        "sh -c 'cp -r {in}/tree p/x{n}; exec dpkg-deb -Zxz -z3 --build p out{n}.deb'"), family="packers"),
    Program("tar", B, "tar", "tar", "a tree packed and unpacked", again("tar cf {dir}/out{n}.tar {in}/tree", "tar cf - --sort=name {in}/tree {in}/tree > {dir}/o{n}")),
    Program("cc1", B, "gcc make", "cc1", "C compiled by make", compile_c("gcc", "c"), family="gcc"),
    Program("cc1plus", B, "g++ make", "cc1plus", "C++ compiled by make", compile_c("g++", "cc"), family="gcc"),
    Program("go-compile", B, "golang-go", "compile", "Go compiled, without a cache", written(
        {"m/main.go": _GO, "m/go.mod": "module x\n"}, "sh -c 'cd m; exec go build -a -o ../out .'"), family="go"),
    Program("cppcheck", B, "cppcheck", "cppcheck", "C checked", written(
        {"a.c": "".join(f"int f{i}(int x) {{ int a[9]; if (x > {i}) a[x % 9] = x; return a[x & 3] / (x - {i}); }}\n" for i in range(700))}, "cppcheck -q --enable=all a.c")),
    Program("python-loop", B, "python3", "python3 loop.py", "arithmetic", script("loop.py", _PYTHON_WORK, "/usr/bin/python3 loop.py"), family="python"),
    Program("numpy", B, "python3-numpy", "python3 matrix.py", "matrix products, threads of BLAS", script("matrix.py", _NUMPY_WORK, "/usr/bin/python3 matrix.py"), family="python"),
    Program("sklearn", B, "python3-sklearn", "python3 train.py", "a forest trained", script("train.py", _SKLEARN_WORK, "/usr/bin/python3 train.py"), family="python"),
    Program("job-worker", B, "python3", "python3 worker.py", "jobs from a spool folder", job_queue, family="python"),
    Program("metrics-worker", B, "python3", "python3 crawl.py", "sums in a loop, its figures on a port", with_metrics("crawl.py", _CRAWL, "/usr/bin/python3"), family="python"),
    Program("pool-map", B, "python3", "python3 shared.py", "a pool of processes and a manager's socket", script("shared.py", _SHARED, "/usr/bin/python3 shared.py"), family="python"),
    Program("perl", B, "perl", "perl count.pl", "words counted", script("count.pl", _PERL_WORK, "perl count.pl"), family="perl"),
    Program("gawk", B, "gawk", "gawk", "a text's words counted", again(f"gawk '{{ for (i = 1; i <= NF; i++) n[$i]++ }} END {{ for (w in n) print n[w], w }}' {_TEXT}")),
    Program("node-script", B, "nodejs", "node sort.js", "numbers sorted", script("sort.js", _NODE_WORK, "node sort.js"), family="node"),
    Program("bash-jobs", B, "bash", "bash jobs.sh", "short commands, thousands of them", script("jobs.sh", _JOBS, "bash jobs.sh"), family="bash"),
    Program("sort", B, "coreutils", "sort", "a text sorted", again(f"sort -S 40M {_TEXT} > {{dir}}/out{{n}}", f"sort --parallel=2 -u {_TEXT} > /dev/null"), family="coreutils"),
    Program("sha256sum", B, "coreutils", "sha256sum", "files summed", again("sha256sum {in}/text {in}/text {in}/text {in}/sound.wav"), family="coreutils"),
    Program("factor", B, "coreutils", "factor", "numbers factored", again("sh -c 'seq 100000000000000 100000000400000 | factor > /dev/null'"), family="coreutils"),
    Program("grep", B, "grep", "grep", "a tree searched", again(_GREP, _GREP + " {in}/tree {in}/tree")),
    Program("stress-ng", B, "stress-ng", "stress-ng*", "cpu, vm, io, hdd, matrix, switch, fork in turn", again(
        *(f"stress-ng -q --temp-path {{dir}} -t 6 --{kind}" for kind in ("cpu 2", "vm 1 --vm-bytes 128M", "io 2", "hdd 1 --hdd-bytes 64M", "matrix 1", "switch 1", "fork 1", "cpu 1 --cpu-load 60")))),
    Program("convert", B, "imagemagick", "convert*", "a picture scaled and blurred", again("convert {in}/picture.png -resize 150% -blur 0x3 {dir}/out{n}.png")),
    Program("optipng", B, "optipng", "optipng", "a picture packed", again("optipng -quiet -force -o3 {in}/picture.png -out {dir}/out{n}.png")),
    Program("lame", B, "lame", "lame", "sound encoded", again("lame --quiet -q 2 {in}/sound.wav {dir}/out{n}.mp3")),
    Program("flac", B, "flac", "flac", "sound encoded", again("flac -s -f -8 -o {dir}/out{n}.flac {in}/sound.wav")),
    Program("gnuplot", B, "gnuplot-nox", "gnuplot*", "surfaces drawn", written(
        {"plot": "set terminal dumb\nset isosamples 250\nset samples 250\n" + "splot sin(x) * cos(y) + sin(x * y)\n" * 6}, "gnuplot plot > out")),
    Program("sqlite3", B, "sqlite3", "sqlite3", "a table joined and grouped", database_queries),
    Program("updatedb", B, "plocate", "updatedb.plocate", "a data base of file names", again("updatedb.plocate -l 0 -o {dir}/names{n}.db -U /usr --prune-bind-mounts 0", pause=0.2)),
    Program("troff", B, "groff", "troff", "a manual set", again("sh -c 'zcat /usr/share/man/man1/*.gz | head -c 4000000 | groff -Tps -man > out 2> /dev/null || :'")),
    Program("xsltproc", B, "xsltproc", "xsltproc", "a document transformed", written(
        {"d.xml": "<r>" + "<a b='1'><c>text</c></a>" * 60000 + "</r>", "s.xsl": "<xsl:stylesheet version='1.0' xmlns:xsl='http://www.w3.org/1999/XSL/Transform'>"
         "<xsl:template match='*'><xsl:copy><xsl:apply-templates select='@*|node()'/></xsl:copy></xsl:template></xsl:stylesheet>"}, "xsltproc s.xsl d.xml > out")),
    Program("jq", B, "jq", "jq", "a document sorted and grouped", written(
        {"d.json": json.dumps([{"a": i * 7919 % 10007, "b": f"t{i % 97}"} for i in range(60000)])}, "jq 'group_by(.b) | map({k: .[0].b, n: length, s: (map(.a) | add)})' d.json > out")),
    # Batch, held out.
    Program("ffmpeg", B, "ffmpeg", "ffmpeg", "a film encoded", again(
        "ffmpeg -nostdin -loglevel error -y -i {in}/film.mkv -c:v mpeg4 -vf scale=960:540 {dir}/out{n}.avi", "ffmpeg -nostdin -loglevel error -y -i {in}/film.mkv -threads 1 -c:v libvpx {dir}/o.webm"), True, "ffmpeg"),
    Program("x264", B, "x264", "x264", "a film encoded", again("x264 --quiet --preset medium -o {dir}/out{n}.mkv {in}/film.y4m"), True),
    Program("aomenc", B, "aom-tools", "aomenc", "a film encoded", again("aomenc --quiet --cpu-used=8 --limit=60 -o {dir}/out{n}.ivf {in}/film.y4m"), True),
    Program("oggenc", B, "vorbis-tools", "oggenc", "sound encoded", again("oggenc -Q -q 6 -o {dir}/out{n}.ogg {in}/sound.wav"), True),
    Program("sox", B, "sox", "sox", "sound made louder, slower, reverberating", again("sox {in}/sound.wav {dir}/out{n}.wav rate -v 96000 reverb tempo 0.9"), True),
    Program("openssl", B, "openssl", "openssl", "speed measured, files encrypted", again(
        "openssl speed -seconds 1 sha256 aes-128-cbc", "openssl speed -seconds 1 -multi 2 rsa2048", "openssl enc -aes-256-cbc -pbkdf2 -k x -in {in}/text -out {dir}/out{n}"), True),
    Program("gpg", B, "gnupg", "gpg", "files encrypted", again("gpg --batch --yes --pinentry-mode loopback --passphrase x --s2k-count 1000000 -o {dir}/out{n} --symmetric {in}/text"), True),
    Program("sysbench", B, "sysbench", "sysbench", "cpu, memory and threads", again("sysbench cpu --time=7 --threads=2 run", "sysbench memory --time=5 run", "sysbench threads --time=5 run"), True),
    Program("fio", B, "fio", "fio", "files written and read at random", again(
        "fio --name=j --directory={dir} --size=48M --rw=randrw --bs=4k --time_based --runtime=8 --output=/dev/null", "fio --name=k --directory={dir} --size=64M --rw=write --bs=64k --numjobs=2 --output=/dev/null"), True),
    Program("rsync", B, "rsync", "rsync", "a tree copied, then compared", again("rsync -a --delete {in}/tree/ {dir}/copy{n}/", "rsync -ac {in}/tree/ {dir}/copy0/"), True),
    Program("git", B, "git", "git", "a repository packed anew", again(
        "sh -c 'test -d r || { git init -q r; cp -r {in}/tree r; cd r; git add .; git -c user.name=a -c user.email=a@b commit -qm x; cd ..; }; cd r; exec git repack -adfq --window=60'"), True),
    Program("borg", B, "borgbackup", "python3 borg", "a tree saved", again(
        "sh -c 'test -d r{n} || borg init -e none r{n}; exec borg create -C zstd r{n}::$$ {in}/tree {in}/text'", env={"BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}), True),
    Program("restic", B, "restic", "restic", "a tree saved", again(
        "sh -c 'test -d r{n} || restic init -q -r r{n}; exec restic backup -q -r r{n} --no-cache {in}/tree {in}/text'", env={"RESTIC_PASSWORD": "x"}), True),
    Program("gs", B, "ghostscript", "gs", "pages drawn", again("gs -q -dNOPAUSE -dBATCH -dSAFER -sDEVICE=png16m -r150 -sOutputFile={dir}/out%d.png {in}/paper.pdf"), True),
    Program("pdftoppm", B, "poppler-utils", "pdftoppm", "pages drawn", again("pdftoppm -r 200 -png {in}/paper.pdf {dir}/out"), True),
    Program("cwebp", B, "webp", "cwebp", "a picture packed", again("cwebp -quiet -m 6 -q 80 {in}/picture.png -o {dir}/out{n}.webp"), True),
    Program("tesseract", B, "tesseract-ocr", "tesseract", "letters read", again("tesseract {in}/scan.png {dir}/out{n}"), True),
    Program("octave", B, "octave", "octave-cli*", "equations solved", written({"w.m": "a = rand(500); for i = 1:60, a = a / norm(a) + inv(a + eye(500)); s = svd(a(1:150, 1:150)); end\n"}, "octave-cli -qf w.m"), True),
    Program("R", B, "r-base-core", "R", "equations solved, models fitted", script("w.R", _R_WORK, "R --vanilla --slave -f w.R"), True),
    Program("gp", B, "pari-gp", "gp-*", "numbers factored", script("w.gp", "for(i = 1, 60, factor(10^45 + 7 * i)); quit\n", "gp -q w.gp"), True),
    Program("bc", B, "bc", "bc", "digits of pi", script("w.bc", "scale = 2500\n4 * a(1)\nquit\n", "bc -l w.bc"), True),
    Program("glpsol", B, "glpk-utils", "glpsol", "an integer programme solved", script("m.mod", _MODEL, "glpsol --tmlim 8 --math m.mod"), True),
    Program("minisat", B, "minisat", "minisat", "a formula decided", written({"f.cnf": _CNF}, "sh -c 'minisat -verb=0 -rnd-seed=$$.5 -rnd-freq=0.05 f.cnf; exit 0'"), True),
    Program("stockfish", B, "stockfish", "stockfish", "chess positions searched", again("stockfish bench 16 1 11", "stockfish bench 16 2 11"), True),
    Program("povray", B, "povray povray-includes", "povray", "a scene traced", script("s.pov", _SCENE, "povray +Is.pov +Oout.png +W500 +H400 -D +A0.2"), True),
    Program("doxygen", B, "doxygen", "doxygen", "sources documented", again("sh -c 'cd {dir}; printf \"INPUT={in}/tree\\nRECURSIVE=YES\\nQUIET=YES\\nWARNINGS=NO\\nGENERATE_LATEX=NO\\n\" > D; exec doxygen D'"), True),
    Program("dot", B, "graphviz", "neato", "a graph laid out", written({"g.dot": _DOT}, "neato -Tsvg g.dot -o out.svg"), True),
    Program("pandoc", B, "pandoc", "pandoc", "a text converted", written({"t.md": "# Head\n\nSome *words* and [a link](http://x).\n\n- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n" * 500}, "pandoc t.md -t html -o out.html", "pandoc t.md -t docx -o out.docx"), True),
    Program("rustc", B, "rustc", "rustc", "Rust compiled", written({"main.rs": _RUST}, "rustc -O main.rs", "rustc main.rs"), True),
    Program("ruby", B, "ruby", "ruby sort.rb", "numbers sorted", script("sort.rb", _RUBY_WORK, "ruby sort.rb"), True, "ruby"),
    Program("ruby-worker", B, "ruby", "ruby jobs.rb", "numbers sorted, its figures on a port", with_metrics("jobs.rb", _RUBY_JOBS, "ruby"), True, "ruby"),
    Program("php", B, "php-cli", "php count.php", "sums made", script("count.php", _PHP_WORK, "php -d memory_limit=1G count.php"), True, "php"),
    Program("lua", B, "lua5.4", "lua*", "numbers sorted", script("sort.lua", _LUA_WORK, "lua5.4 sort.lua"), True),
    Program("ag", B, "silversearcher-ag", "ag", "a tree searched by threads", again("ag -c --workers 2 '(def|class) [a-z]+_[a-z]+' {in}/tree", "ag --nonumbers 'import .*' {in}/tree"), True),
    # Batch, held out, added when all other rules and features were final.
    Program("clang", B, "clang make", "clang", "C compiled by make", compile_c("clang", "c"), True, "llvm"),
    Program("rg", B, "ripgrep", "rg", "a tree searched by threads", again("rg -c '(def|class) [a-z]+_[a-z]+.*:$' {in}/tree", "rg -j 2 -o 'import [a-z]+' {in}/tree"), True),
    Program("guile", B, "guile-3.0", "guile*", "sums made", script("w.scm", _SCHEME, "guile --no-auto-compile w.scm"), True),
    Program("z3", B, "z3", "z3", "a formula decided", written({"f.cnf": _CNF}, "sh -c 'z3 -T:8 sat.random_seed=$$ -dimacs f.cnf; exit 0'"), True),
    Program("tidy", B, "tidy", "tidy", "a page put in order", written({"a.html": "<p><b>words<table><tr><td>and <i>more" * 9000}, "sh -c 'tidy -q -o out.html a.html; exit 0'"), True),
    Program("hashdeep", B, "hashdeep", "hashdeep", "files summed", again("hashdeep -c md5,sha256 -r {in}/tree"), True),
    Program("ocamlopt", B, "ocaml-nox", "ocamlopt*", "OCaml compiled", written({"a.ml": _OCAML}, "ocamlopt -O3 -c a.ml"), True),
    Program("john", B, "john", "john", "speed of ciphers measured", again("john --test=1 --format=md5crypt", "john --test=2 --format=descrypt"), True),
    Program("qpdf", B, "qpdf ghostscript", "qpdf", "a document packed anew", again("qpdf --recompress-flate --compression-level=9 --object-streams=generate {in}/paper.pdf {dir}/out{n}.pdf"), True),
    Program("mawk", B, "mawk", "mawk", "a text's words counted", again("mawk '{ for (i = 1; i <= NF; i++) n[$i]++ } END { for (w in n) s += n[w]; print s }' {in}/text"), True),
    Program("opusenc", B, "opus-tools", "opusenc", "sound encoded", again("opusenc --quiet {in}/sound.wav {dir}/out{n}.opus"), True),
    Program("ent", B, "ent", "ent", "randomness of a text measured", again("ent -c {in}/text", "ent -b {in}/text"), True),
    # Exempt, for training.
    Program("rsyslogd", N, "rsyslog", "rsyslogd", "a log file followed", growing("rsyslogd", "-n", "-f", "{dir}/conf", "-i", "{dir}/pid", conf=_RSYSLOG)),
    Program("tail", N, "coreutils", "tail", "a log file followed", growing("tail", "-f", "{dir}/log"), family="coreutils"),
    Program("watch", N, "procps", "watch", "a command each second", stays("watch", "-n", "1", "ls /usr/lib"), family="procps"),
    Program("top", N, "procps", "top", "the list of processes each two seconds", stays("top", "-b", "-d", "2"), family="procps"),
    Program("vmstat", N, "procps", "vmstat", "a line each second", stays("vmstat", "1"), family="procps"),
    Program("sadc", N, "sysstat", "sadc", "a sample each second", stays("/usr/lib/sysstat/sadc", "1", "{dir}/sa")),
    Program("supervisord", N, "supervisor", "python3 supervisord", "a child that ends each three seconds", stays("supervisord", "-c", "{dir}/conf", conf=_SUPERVISOR), family="python"),
    Program("heartbeat", N, "python3", "python3 heartbeat.py", "a file written each half second", stays(
        "/usr/bin/python3", "heartbeat.py", heartbeat_py="import time, pathlib\nwhile True:\n    pathlib.Path('beat').write_text(str(time.time()))\n    sum(range(50000))\n    time.sleep(0.5)\n"), family="python"),
    Program("perl-agent", N, "perl", "perl agent.pl", "/proc looked at each second", stays(
        "perl", "agent.pl", agent_pl='while (1) { for my $f (glob("/proc/[0-9]*/stat")) { open(my $h, "<", $f) or next; my $x = <$h>; } sleep 1 }\n'), family="perl"),
    Program("pulse", N, "dash", "dash pulse.sh", "a command each second", stays("dash", "pulse.sh", pulse_sh="while true; do date > now; sleep 1; done\n")),
    Program("xclock", N, "xvfb x11-apps", "xclock", "a hand moved each second", window("xclock", "-update", "1"), family="x"),
    Program("dbus-daemon", N, "dbus-daemon", "dbus-daemon", "left alone", stays("dbus-daemon", "--session", "--nofork", "--nopidfile")),
    # Exempt, held out.
    Program("inotifywait", N, "inotify-tools", "inotifywait", "a folder watched", growing("inotifywait", "-m", "-r", "{dir}"), True),
    Program("collectd", N, "collectd-core", "collectd", "samples each two seconds", stays("collectd", "-f", "-C", "{dir}/conf", conf=_COLLECTD), True),
    Program("monit", N, "monit", "monit", "checks each two seconds", stays(
        "sh", "-c", "chmod 600 {dir}/conf; exec monit -I -c {dir}/conf", conf="set daemon 2\nset pidfile {dir}/pid\nset idfile {dir}/id\nset statefile {dir}/state\ncheck system host\n  if memory > 99% then alert\ncheck filesystem root with path /\n  if space usage > 99% then alert\n"), True),
    Program("earlyoom", N, "earlyoom", "earlyoom", "memory looked at each second", stays("earlyoom", "--dryrun", "-r", "1"), True),
    Program("ruby-agent", N, "ruby", "ruby agent.rb", "/proc looked at each second", stays("ruby", "agent.rb", agent_rb='loop { Dir.glob("/proc/[0-9]*/stat") { |f| File.read(f) rescue 0 }; sleep 1 }\n'), True, "ruby"),
    Program("runsvdir", N, "runit", "runsv*", "services watched", stays("sh", "-c", "mkdir -p s/a; printf '#!/bin/sh\\nexec sleep 2\\n' > s/a/run; chmod 755 s/a/run; exec runsvdir s"), True),
    Program("multitail", N, "multitail", "multitail", "a log file followed", growing("multitail", "{dir}/log"), True),
    # Exempt, held out, added when all other rules and features were final.
    Program("atop", N, "atop", "atop", "samples each second", stays("atop", "-w", "{dir}/raw", "1"), True),
    Program("fswatch", N, "fswatch", "fswatch", "a folder watched", growing("fswatch", "-r", "{dir}"), True),
    Program("conky", N, "conky-std xvfb", "conky", "figures shown each second", window("conky", "-c", "/etc/conky/conky.conf", "-u", "1"), True),
)  # fmt: skip

BY_NAME = {program.name: program for program in PROGRAMS}

# --- the runner -----------------------------------------------------------------------------------------------------------------


def missing(programs: Sequence[Program]) -> list[str]:
    """Debian packages that the programs need and that are not installed."""
    wanted = sorted({package for program in programs for package in program.packages.split()})
    found = subprocess.run(
        ["dpkg-query", "-W", "-f=${Package} ${db:Status-Status}\n", *wanted], capture_output=True, text=True, check=False
    ).stdout
    there = {line.split()[0] for line in found.splitlines() if line.endswith(" installed")}
    return [package for package in wanted if package not in there]


def labels(programs: Sequence[Program]) -> str:
    """The configuration that names each program's group and its class."""
    return "".join(
        f"[groups.{program.name}]\nprogram = {json.dumps(program.program)}\nclass = {json.dumps(program.class_.value)}\n\n"
        for program in programs
    )


def make_inputs(folder: Path) -> None:
    """Make the inputs of batch programs and players. They are the same on machines with the same packages."""
    folder.mkdir()
    sources = [source for library in sorted(Path("/usr/lib").glob("python3*")) for source in sorted(library.rglob("*.py"))]
    for number, source in enumerate(sources[:3000]):
        target = folder / "tree" / str(number // 100) / f"{number}-{source.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    with (folder / "text").open("wb") as text:
        for path in sorted((folder / "tree").rglob("*.py")):
            text.write(path.read_bytes())
    rng = np.random.default_rng(1)
    seconds = np.arange(44_100 * 60) / 44_100
    wave_ = 9000 * np.sin(2 * np.pi * seconds * (300 + 200 * np.sin(seconds))) + rng.normal(0, 900, len(seconds))
    data = np.repeat(wave_.astype("<i2"), 2).tobytes()
    head = b"RIFF" + (36 + len(data)).to_bytes(4, "little") + b"WAVEfmt \x10\0\0\0\1\0\2\0"
    rates = (44_100).to_bytes(4, "little") + (176_400).to_bytes(4, "little") + b"\4\0\x10\0"
    (folder / "sound.wav").write_bytes(head + rates + b"data" + len(data).to_bytes(4, "little") + data)
    y, x = np.mgrid[0:900, 0:1400]
    picture = np.stack([(x * y // 300) % 256, (x + y) % 256, rng.integers(0, 60, x.shape) + 90], axis=2).astype(np.uint8)
    (folder / "picture.ppm").write_bytes(b"P6 1400 900 255\n" + picture.tobytes())
    _try("convert", folder / "picture.ppm", folder / "picture.png")
    page_ = "%!PS\n/Helvetica findfont 11 scalefont setfont\n" + "".join(
        "".join(
            f"40 {760 - 14 * row} moveto (Line {row} of page {number}: words that somebody may read) show\n" for row in range(50)
        )
        + "0 1 60 { dup 4 mul 200 add 300 3 -1 roll 0 360 arc stroke } for\nshowpage\n"
        for number in range(12)
    )
    (folder / "paper.ps").write_text(page_)
    (folder / "app.log").write_text(
        "".join(
            f"2026-11-02 {i // 3600 % 24:02}:{i // 60 % 60:02}:{i % 60:02} {'ERROR late' if i % 50 == 7 else 'INFO done'} "
            f"request {i * 7919 % 99991}\n"
            for i in range(120_000)
        )
    )
    (folder / "rows.csv").write_text(
        "a,b,c,d\n" + "".join(f"{i},{i * 7919 % 99991},{i * 31 % 97},word{i % 89}\n" for i in range(150_000))
    )
    letter = "From a@b Mon Nov  2 08:00:00 2026\nFrom: a{}@b\nSubject: letter {}\nMessage-ID: <{}@b>\n\n" + "words " * 70 + "\n\n"
    (folder / "box").write_text("".join(letter.format(i % 97, i * 7919 % 9973, i) for i in range(15_000)))
    _try("gs", "-q", "-dNOPAUSE", "-dBATCH", "-sDEVICE=pdfwrite", f"-sOutputFile={folder}/paper.pdf", folder / "paper.ps")
    _try(
        "gs",
        "-q",
        "-dNOPAUSE",
        "-dBATCH",
        "-sDEVICE=pnggray",
        "-r150",
        "-dLastPage=1",
        f"-sOutputFile={folder}/scan.png",
        folder / "paper.ps",
    )
    film = ["-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25:duration=12", "-f", "lavfi", "-i", "sine=frequency=300:duration=12"]
    _try("ffmpeg", "-nostdin", "-loglevel", "error", "-y", *film, "-c:v", "mpeg4", "-q:v", "4", "-c:a", "flac", folder / "film.mkv")
    _try("ffmpeg", "-nostdin", "-loglevel", "error", "-y", *film[:4], "-pix_fmt", "yuv420p", folder / "film.y4m")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _try(*argv: str | Path) -> None:
    """Make an input if the program for it is installed. If not, the programs that need the input fail and are reported."""
    try:
        subprocess.run([str(word) for word in argv], check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"no input: {error}", file=sys.stderr)


def plan(programs: Sequence[Program], sessions: int, seed: int) -> list[list[Program]]:
    """The programs of each session, dealt from shuffled decks, so that all programs of a class come equally often."""
    rng = random.Random(seed)
    decks: dict[Class, list[Program]] = {class_: [] for class_ in Class}
    of_class = {class_: [program for program in programs if program.class_ is class_] for class_ in Class}

    def deal(class_: Class, count: int, chosen: list[Program]) -> None:
        for _ in range(min(count, len(of_class[class_]))):
            deck = decks[class_]
            if not any(program not in chosen for program in deck):
                deck.extend(rng.sample(of_class[class_], len(of_class[class_])))
            program = next(program for program in deck if program not in chosen)
            deck.remove(program)
            chosen.append(program)

    result = []
    for number in range(sessions):
        chosen: list[Program] = []
        for class_, twice in ((Class.INTERACTIVE, 2), (Class.EXEMPT, 2)):
            total = twice * len(of_class[class_])
            deal(class_, (number + 1) * total // sessions - number * total // sessions, chosen)
        deal(Class.BATCH, CONTENTION[number % len(CONTENTION)], chosen)
        result.append(chosen)
    return result


class Ours:
    """Reduces snapshots to this process and those that it started."""

    def __init__(self) -> None:
        self._known: set[ProcId] = set()

    def only(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot without the rest of the machine."""
        table = snapshot.table
        ids = list(map(ProcId, table["pid"].tolist(), table["start_ticks"].tolist()))
        parents = dict(zip(table["pid"].tolist(), table["ppid"].tolist(), strict=True))
        me = os.getpid()

        def started_here(pid: int) -> bool:
            for _ in range(100):
                if pid == me:
                    return True
                pid = parents.get(pid, 0)
            return False

        self._known = {id_ for id_ in ids if id_ in self._known or started_here(id_.pid)}
        mine = np.array([id_ in self._known for id_ in ids], dtype=np.bool_)
        identities = {id_: identity for id_, identity in snapshot.identities.items() if id_ in self._known}
        return replace(snapshot, table=table[mine], identities=identities)


def record_session(programs: Sequence[Program], state: Path, inputs: Path, seconds: int, seed: int) -> list[str]:
    """Record one session; names of the programs that were never ready."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="behaviour-") as scratch:
        Path(scratch).chmod(0o755)
        performers: dict[str, subprocess.Popen[str]] = {}
        for program in programs:
            folder = Path(scratch) / program.name
            folder.mkdir()
            with (state / "errors" / f"{program.name}.txt").open("a") as errors:
                performers[program.name] = subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "benchmarks.behaviour.programs",
                        "perform",
                        program.name,
                        str(folder),
                        str(inputs),
                        str(rng.randrange(1 << 30)),
                    ],
                    cwd=ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    start_new_session=True,
                )
        failed = [
            name for name, performer in performers.items() if performer.stdout is None or performer.stdout.readline() != "ready\n"
        ]
        try:
            _record([performers[name] for name in performers if name not in failed], state, seconds, rng)
        finally:
            for performer in performers.values():
                if performer.stdin is not None:
                    performer.stdin.close()  # tells it to stop
            deadline = time.monotonic() + 10
            for performer in performers.values():
                try:
                    performer.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    performer.kill()
                    performer.wait()
                if performer.stdout is not None:
                    performer.stdout.close()
            _end_orphans()
    return failed


def _record(performers: Sequence[subprocess.Popen[str]], state: Path, seconds: int, rng: random.Random) -> None:
    writer = TraceWriter(state, boot_id=probe().boot_id, session=secrets.token_hex(4), budget_bytes=1 << 30, interval=1.0)
    source, ours = ProcSource(), Ours()
    began = time.monotonic()
    entrances = sorted((began + rng.uniform(0.2, 3.5), number) for number in range(len(performers)))
    try:
        for tick in range(seconds + 1):
            while entrances and entrances[0][0] < began + tick:
                at, number = entrances.pop(0)
                time.sleep(max(0.0, at - time.monotonic()))
                entering = performers[number].stdin
                assert entering is not None
                try:
                    entering.write("go\n")
                    entering.flush()
                except BrokenPipeError:
                    pass  # it failed while it prepared; its errors say why
            time.sleep(max(0.0, began + tick - time.monotonic()))
            writer.append(ours.only(source.read(time.monotonic_ns(), time.time_ns(), ())))
    finally:
        source.close()
        writer.close()


def _end_orphans() -> None:
    """End what is left of a session: as subreaper we are its parent."""
    for _ in range(50):
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        if not children:
            return
        for child in map(int, children):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        time.sleep(0.02)


def perform(name: str, directory: Path, inputs: Path, seed: int) -> None:
    """Run in a performer's process: prepare, report that, wait for the start, then use the program until the end of the session."""

    def begin() -> None:
        print("ready", flush=True)
        if not sys.stdin.readline():
            raise SystemExit(0)
        threading.Thread(target=await_end, args=(stage,), daemon=True).start()

    stage = Stage(directory, inputs, seed, begin)
    try:
        BY_NAME[name].act(stage)
        stage.over.wait()
    finally:
        stage.close()


def await_end(stage: Stage) -> None:
    sys.stdin.read()
    stage.over.set()


def backend(port: int) -> None:
    """The web server behind proxies: an answer of `size` bytes, kept alive."""
    server = socket.create_server(("127.0.0.1", port), backlog=200)

    def serve(connection: socket.socket) -> None:
        data = b""
        with connection:
            while True:
                while b"\r\n\r\n" not in data:
                    try:
                        more = connection.recv(65536)
                    except ConnectionError:
                        return
                    if not more:
                        return
                    data += more
                head, _, data = data.partition(b"\r\n\r\n")
                size = int(head.split(b"size=")[1].split()[0]) if b"size=" in head else 200
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)

    while True:
        connection, _ = server.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


@dataclass
class _Seen:
    """What a recording has of a program."""

    sessions: int = 0
    ticks: int = 0
    cpu: float = 0.0  # sum over ticks
    wait: float = 0.0
    serves: bool = False
    terminal: int = 0  # ticks


def check(state: Path) -> dict[str, _Seen]:
    """Read a recording as a model does, and print a row for each program."""
    config = parse((state / "labels.toml").read_text(), "labels.toml")
    seen = {name: _Seen() for name in config.groups}
    session, measurer, present = "", Measurer(config), set[str]()
    for recording, snapshot in read_traces(state):
        if recording.id != session:
            session, measurer, present = recording.id, Measurer(config), set()
        measured = measurer.measure(snapshot)
        if measured is None:
            continue
        traits = dict.fromkeys(config.groups, 0)
        for row, member in enumerate(measured.members):
            if member in traits:
                traits[member] |= int(snapshot.table["traits"][row])
        for name, processes, cpu, wait in zip(
            measured.groups, measured.processes.tolist(), measured.cpu.tolist(), measured.wait.tolist(), strict=True
        ):
            if name in seen and processes:
                one = seen[name]
                one.sessions += name not in present
                present.add(name)
                one.ticks, one.cpu, one.wait = one.ticks + 1, one.cpu + cpu, one.wait + wait
                one.serves |= bool(traits[name] & (Trait.SERVES | Trait.SERVES_LOCALLY))
                one.terminal += bool(traits[name] & Trait.TERMINAL)
    print(f"{'program':<18} class    sessions ticks   cpu    wait  serves terminal")
    for name, one in seen.items():
        ticks = max(one.ticks, 1)
        class_ = config.groups[name].class_ or Class.EXEMPT
        weak = one.cpu / ticks < SHOWS and class_ is not Class.EXEMPT
        word = "NOT SEEN" if not one.ticks else "NO WORK" if weak else ""
        print(
            f"{name:<18} {class_.value:<8} {one.sessions:>6} {one.ticks:>6} {one.cpu / ticks:>7.3f} {one.wait / ticks:>6.3f}"
            f" {one.serves:>5} {one.terminal:>7}  {word}"
        )
    return seen


def record(arguments: argparse.Namespace) -> None:
    chosen = [BY_NAME[name] for name in arguments.only] if arguments.only else list(PROGRAMS)
    if arguments.held_out:
        chosen = [program for program in chosen if program.held_out]
    lacking = missing(chosen)
    if lacking:
        install = ["apt-get", "install", "-y", "--no-install-recommends", *lacking]
        if not arguments.install:
            raise SystemExit(
                f"{len(lacking)} packages are missing; install them (or add --install, or choose with --only):\n{' '.join(install)}"
            )
        subprocess.run(install, check=True, env={**os.environ, "RUNLEVEL": "1", "DEBIAN_FRONTEND": "noninteractive"})
    if CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0):
        raise SystemExit("the kernel does not let this process take orphans in (prctl PR_SET_CHILD_SUBREAPER); Linux 3.4 can")
    state: Path = arguments.state_dir
    (state / "errors").mkdir(parents=True, exist_ok=True)
    state.chmod(0o700)
    (state / "labels.toml").write_text(labels(PROGRAMS))
    (state / "held_out.txt").write_text("".join(f"{program.name}\n" for program in PROGRAMS if program.held_out))
    with tempfile.TemporaryDirectory(prefix="behaviour-inputs-") as scratch:
        Path(scratch).chmod(0o755)
        inputs = Path(scratch) / "inputs"
        make_inputs(inputs)
        sessions = plan(chosen, arguments.sessions, arguments.seed)
        for number, programs in enumerate(sessions):
            print(f"{number + 1}/{len(sessions)}: {' '.join(program.name for program in programs)}", flush=True)
            failed = record_session(programs, state, inputs, arguments.seconds, arguments.seed * 1000 + number)
            if failed:
                print(f"  not ready: {' '.join(failed)}; see {state}/errors", flush=True)
    check(state)


def table() -> str:
    """The table of programs in docs/behaviour-programs.md."""
    rows = [
        f"| {program.name} | {program.class_.value} | `{program.program}` | {program.use} | {'held out' if program.held_out else 'training'} |"
        for program in PROGRAMS
    ]
    return "\n".join(["| group | class | program | how it is used | part |", "|---|---|---|---|---|", *rows]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    recorder = commands.add_parser("record", help="start the programs and record them")
    recorder.add_argument("--state-dir", type=Path, required=True)
    recorder.add_argument("--only", nargs="+", choices=sorted(BY_NAME), metavar="NAME", help="only these programs")
    recorder.add_argument("--held-out", action="store_true", help="only programs that no model is trained on")
    recorder.add_argument("--seconds", type=int, default=22, help="of each session")
    recorder.add_argument("--sessions", type=int, default=36)
    recorder.add_argument("--seed", type=int, default=1)
    recorder.add_argument("--install", action="store_true", help="install missing packages by apt-get; starts no service")
    commands.add_parser("check", help="read a recording back").add_argument("--state-dir", type=Path, required=True)
    commands.add_parser("list", help="print the table")
    performer = commands.add_parser("perform", help="for `record`: be one performer")
    performer.add_argument("name")
    performer.add_argument("directory", type=Path)
    performer.add_argument("inputs", type=Path)
    performer.add_argument("seed", type=int)
    backer = commands.add_parser("backend", help="for `record`: be the server behind a proxy")
    backer.add_argument("kind")
    backer.add_argument("port", type=int)
    arguments = parser.parse_args()
    if arguments.command == "record":
        record(arguments)
    elif arguments.command == "check":
        check(arguments.state_dir)
    elif arguments.command == "list":
        print(table(), end="")
    elif arguments.command == "perform":
        perform(arguments.name, arguments.directory, arguments.inputs, arguments.seed)
    else:
        backend(arguments.port)


if __name__ == "__main__":
    main()
