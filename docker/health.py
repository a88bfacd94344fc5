#!/usr/bin/python3 -IS
"""`afterlive-health PORT [PATH]`: exit status 0 where this container's own server answers 200 (PATH: /healthz).

What an image's health check runs, every few seconds: no more of Python than that needs.
"""

import http.client
import sys


def main(port: str, path: str = "/healthz") -> int:
    """0 where it is well, else 1 with what it said."""
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=4)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        said = answer.read(200).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        print(error)
        return 1
    finally:
        connection.close()
    print(said)
    return 0 if answer.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
