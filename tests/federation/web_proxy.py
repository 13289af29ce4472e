"""A hospital's web proxy on loopback: CONNECT and nothing else, with a password if it is given one."""

import base64
import socket
import threading
from contextlib import suppress


class WebProxy:
    """Knows no name but those of this machine: every host that it is asked for is 127.0.0.1. It notes what is asked."""

    def __init__(self, password: str = "") -> None:
        self.asked: list[str] = []
        self.passed = 0  # bytes, both ways
        self._password = password
        self._listening = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listening.getsockname()[1]}"

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near = self._listening.accept()[0]
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (more := near.recv(4096)):
                    return
                head += more
            method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
            secret = base64.b64encode(self._password.encode())
            if self._password and b"\r\nproxy-authorization: basic " + secret.lower() not in head.lower():
                near.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            assert method == "CONNECT"
            self.asked.append(target)
            with socket.create_connection(("127.0.0.1", int(target.rpartition(":")[2]))) as far:
                near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=self._pass_on, args=(far, near), daemon=True)
                back.start()
                self._pass_on(near, far)
                back.join()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while block := source.recv(65536):
                target.sendall(block)
                self.passed += len(block)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
