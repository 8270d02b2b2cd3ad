"""In the machine: an incident, in which the host kills QEMU. What the webhook took is said on the console, for it.

Before it the journal gets more entries than the next boot begins with: journald flushes none of them, and numbers
others as it did these.
"""

from pathlib import Path

ENTRIES = 3000


def act(rig):
    def say(posts):
        post = posts[-1]
        if post["channel"] == "hook":
            data = post["body"]["data"]
            words = (post["headers"]["webhook-id"], post["body"]["type"], data["id"], sum(data["events"].values()))
            Path("/dev/console").write_text(f"\nTAKEN {' '.join(map(str, words))}\n")

    rig.keep_posts = say
    rig.listen()
    rig.run("logger", given="an entry that is gone after the cut\n" * ENTRIES)
    rig.burst(200, limit=64, until="")
    rig.wait_until_named()
    rig.stop("phones", "shop")
    rig.pause(600)
