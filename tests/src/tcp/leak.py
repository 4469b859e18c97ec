"""A server that forgets to close what its peers have closed, accepting in threads.

Says its port, and for each connection the port of the peer and its own descriptor.
It ends when its input is closed.
"""
import socket
import sys
import threading

THREADS = 4
held = []
saying = threading.Lock()


def handle_client(listener):
    while True:
        connection, peer = listener.accept()
        connection.recv(100)
        held.append(connection)
        with saying:
            print(peer[1], connection.fileno(), flush=True)


listener = socket.create_server(("127.0.0.1", 0), backlog=128)
print(listener.getsockname()[1], flush=True)
for _ in range(THREADS):
    threading.Thread(target=handle_client, args=(listener,), daemon=True).start()
sys.stdin.read()
