"""Stands for Nova's metadata service: believes who is signed, as nova.api.metadata.handler does."""

import hashlib
import hmac
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import socket

SECRET = sys.argv[2].encode()
PASSWORDS = {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, text, kind="text/plain; charset=UTF-8"):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def is_believed(self):
        instance = self.headers.get("X-Instance-ID", "")
        expected = hmac.new(SECRET, instance.encode(), hashlib.sha256).hexdigest()
        names = ["X-Instance-ID", "X-Instance-ID-Signature", "X-Tenant-ID", "X-Forwarded-For"]
        once = all(len(self.headers.get_all(name, [])) == 1 for name in names)
        return once and hmac.compare_digest(expected, self.headers["X-Instance-ID-Signature"])

    def do_GET(self):
        if not self.is_believed():
            return self.answer(403, "Invalid proxy request signature.")
        instance = self.headers["X-Instance-ID"]
        if self.path == "/openstack/latest/meta_data.json":
            told = {
                "uuid": instance,
                "project_id": self.headers["X-Tenant-ID"],
                "address": self.headers["X-Forwarded-For"],
            }
            return self.answer(200, json.dumps(told), "application/json")
        if self.path == "/openstack/latest/password":
            return self.answer(200, PASSWORDS.get(instance, ""))
        if self.path == "/long":
            return self.answer(200, "0123456789" * 20_000)
        return self.answer(404, "no such document")

    def do_POST(self):
        if not self.is_believed():
            return self.answer(403, "Invalid proxy request signature.")
        length = int(self.headers.get("Content-Length", "0"))
        PASSWORDS[self.headers["X-Instance-ID"]] = self.rfile.read(length).decode()
        return self.answer(200, "")

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6


Server(("::1", int(sys.argv[1])), Handler).serve_forever()
