"""In the machine: write records to /dev/kmsg, as a daemon in trouble does, and print how many a second it were.

flood.py RECORDS_A_SECOND SECONDS
"""

import os
import sys
import time

GUST = 200
# Debug, of the facility user: not the kernel's own, and not for the console.
RECORD = b"<15>flood: nothing that anybody wants to know\n"


def main() -> None:
    rate, seconds = float(sys.argv[1]), float(sys.argv[2])
    kmsg = os.open("/dev/kmsg", os.O_WRONLY)
    begun, written = time.monotonic(), 0
    while (passed := time.monotonic() - begun) < seconds:
        if written > passed * rate:
            time.sleep(0.005)
            continue
        for _ in range(GUST):
            os.write(kmsg, RECORD)
        written += GUST
    print(round(written / passed))  # noqa: T201


if __name__ == "__main__":
    main()
