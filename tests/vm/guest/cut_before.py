"""In the machine: an incident, in which the host kills QEMU. What the webhook took is said on the console, for it."""

from pathlib import Path


def act(rig):
    def say(posts):
        post = posts[-1]
        if post["channel"] == "hook":
            data = post["body"]["data"]
            words = (post["headers"]["webhook-id"], post["body"]["type"], data["id"], sum(data["events"].values()))
            Path("/dev/console").write_text(f"\nTAKEN {' '.join(map(str, words))}\n")

    rig.keep_posts = say
    rig.listen()
    rig.burst(200, limit=64, until="")
    rig.wait_until_named()
    rig.stop("phones", "shop")
    rig.pause(600)
