#!/usr/bin/env python3
"""TLS in front of a host, so that a page's own set-up costs what it costs outside: one round trip for TCP, one for
TLS 1.3, one for each request.

    front.py --listen HOST:PORT --to HOST:PORT --certificate FILE --key FILE

Prints one line `listening on https://HOST:PORT/`. SIGUSR1 closes all connections: the next page begins cold.
"""

import argparse
import asyncio
import signal
import socket
import ssl


def address(text):
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


async def carry(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--listen", "--to", "--certificate", "--key"):
        parser.add_argument(name, required=True)
    options = parser.parse_args()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.certificate, options.key)
    opened = set()

    async def serve(reader, writer):
        opened.add(writer)
        try:
            writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            further_reader, further_writer = await asyncio.open_connection(*address(options.to))
            await asyncio.gather(carry(reader, further_writer), carry(further_reader, writer))
        except OSError:
            writer.transport.abort()
        finally:
            opened.discard(writer)

    def close_all():
        for writer in opened:
            writer.transport.abort()

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, close_all)
    server = await asyncio.start_server(serve, *address(options.listen), ssl=context)
    print(f"listening on https://{options.listen}/", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
