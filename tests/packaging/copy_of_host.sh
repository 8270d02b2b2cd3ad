#!/bin/sh
# Run a script in a copy of this very host that goes away: an overlay over / in a mount namespace.
#   copy_of_host.sh DIRECTORY SCRIPT FILE...
# The script is given the files' names in the copy. Each of its steps prints "== NAME" and then what there is to see.
set -eu
directory=$1
shift
mount -t tmpfs none "$directory"
cd "$directory"
mkdir upper work root
mount -t overlay none -o lowerdir=/,upperdir=upper,workdir=work root
mount -t proc none root/proc
mount --bind /dev root/dev
mkdir -p root/tmp/given
for file; do
    cp "$file" root/tmp/given
    set -- "$@" "/tmp/given/${file##*/}"
    shift
done

PATH=/usr/sbin:/usr/bin:/sbin:/bin
DEBIAN_FRONTEND=noninteractive
export PATH DEBIAN_FRONTEND
# This host may have the agent already, from a package or by `make run`; its copy begins without.
chroot root sh -eu <<'INSIDE'
if dpkg --status sockmem-agent >/dev/null 2>&1; then
    dpkg --no-triggers --purge sockmem-agent >/dev/null 2>&1
fi
rm -rf /var/lib/sockmem-agent /etc/sockmem-agent /etc/systemd/system/*/sockmem-agent.service*
if getent passwd sockmem-agent >/dev/null; then
    userdel sockmem-agent
fi
INSIDE
exec chroot root sh "$@"
