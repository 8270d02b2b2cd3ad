#!/bin/sh
# The life of a package on this very host, in a copy of it that goes away: an overlay over / in a mount namespace.
#   lifecycle.sh DIRECTORY ONE.deb TWO.deb
# Each step prints "== NAME" and then what there is to see.
set -eu
mount -t tmpfs none "$1"
cd "$1"
mkdir upper work root
mount -t overlay none -o lowerdir=/,upperdir=upper,workdir=work root
mount -t proc none root/proc
mount --bind /dev root/dev
mkdir -p root/tmp
cp "$2" root/tmp/one.deb
cp "$3" root/tmp/two.deb
exec chroot root sh -eu <<'INSIDE'
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH DEBIAN_FRONTEND=noninteractive
library=/usr/lib/sockmem-agent/site-packages

# Dependencies are the distribution's matter and not this host's; other packages' triggers only take time.
package() {
    dpkg --force-depends --force-confold --no-triggers "$@" >/tmp/log 2>&1 || { cat /tmp/log; exit 1; }
}

compiled() {
    find $library -name '*.pyc' | wc -l
}

everything() {
    find /etc /usr /opt /srv /var -xdev -path /var/lib/dpkg -prune -o -path /var/log -prune -o -print | sort
    cat /etc/passwd /etc/group
}

# This host may have the agent already, from a package or by `make run`; its copy begins without.
if dpkg --status sockmem-agent >/dev/null 2>&1; then
    package --purge sockmem-agent
fi
rm -rf /var/lib/sockmem-agent /etc/sockmem-agent /etc/systemd/system/*/sockmem-agent.service*
if getent passwd sockmem-agent >/dev/null; then
    userdel sockmem-agent
fi
# A user made once leaves /etc/passwd- and its like behind: made once before, they are no difference.
useradd --system sockmem-agent-before
userdel sockmem-agent-before
everything >/tmp/before

echo "== install"
(umask 077 && package --install /tmp/one.deb)
sockmem-agent --version
sockmem-agent config check
stat -c '%U:%G %a %n' /var/lib/sockmem-agent /etc/sockmem-agent/config.toml
echo $(id -nG sockmem-agent | tr ' ' '\n' | sort)
find $library -name '*.pyc' -not -perm -004

echo "== nobody"
setpriv --reuid=nobody --regid=nogroup --clear-groups sockmem-agent diagnose --json

echo "== upgrade"
echo '# mine' >>/etc/sockmem-agent/config.toml
echo kept >/var/lib/sockmem-agent/state
package --install /tmp/two.deb
sockmem-agent --version
tail -n 1 /etc/sockmem-agent/config.toml
cat /var/lib/sockmem-agent/state
find $library -path '*gone*'

echo "== trigger"
find $library -name __pycache__ -prune -exec rm -rf {} +
echo "$(compiled) then"
/var/lib/dpkg/info/sockmem-agent.postinst triggered /usr/bin/python3
[ "$(compiled)" -gt 100 ] && echo "more than a hundred"

echo "== remove"
package --remove sockmem-agent
ls -d /usr/lib/sockmem-agent /usr/bin/sockmem-agent 2>/dev/null || true
cat /var/lib/sockmem-agent/state
tail -n 1 /etc/sockmem-agent/config.toml

echo "== purge"
package --install /tmp/two.deb
mkdir -p /etc/systemd/system/multi-user.target.wants /etc/systemd/system/sockmem-agent.service.d
ln -s /usr/lib/systemd/system/sockmem-agent.service /etc/systemd/system/multi-user.target.wants/
echo secret >/etc/sockmem-agent/slack-url
package --purge sockmem-agent
everything >/tmp/after
diff /tmp/before /tmp/after || true
INSIDE
