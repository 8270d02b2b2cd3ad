#!/bin/sh
# The life of the .deb: copy_of_host.sh DIRECTORY life_deb.sh ONE.deb TWO.deb
set -eu
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

# A user made once leaves /etc/passwd- and its like behind: made once before, they are no difference.
useradd --system sockmem-agent-before
userdel sockmem-agent-before
everything >/tmp/before

echo "== install"
# As a `make run` of root's may have left it.
mkdir -p /var/lib/sockmem-agent/incidents
touch /var/lib/sockmem-agent/cursor.json
(umask 077 && package --install "$1")
sockmem-agent --version
sockmem-agent config check
find /var/lib/sockmem-agent ! -user sockmem-agent
stat -c '%U:%G %a %n' /var/lib/sockmem-agent /run/sockmem-agent /etc/sockmem-agent/config.toml
echo $(id -nG sockmem-agent | tr ' ' '\n' | sort)
find $library -name '*.pyc' -not -perm -004

echo "== doctor"
chown root: /var/lib/sockmem-agent/cursor.json
chmod 600 /var/lib/sockmem-agent/cursor.json
sockmem-agent doctor | grep -A1 'state directory' || true
sockmem-agent doctor | tail -n 1
rm /var/lib/sockmem-agent/cursor.json

echo "== nobody"
setpriv --reuid=nobody --regid=nogroup --clear-groups sockmem-agent diagnose --json

echo "== upgrade"
echo '# mine' >>/etc/sockmem-agent/config.toml
echo kept >/var/lib/sockmem-agent/state
package --install "$2"
sockmem-agent --version
tail -n 1 /etc/sockmem-agent/config.toml
cat /var/lib/sockmem-agent/state
find $library -path '*gone*'

echo "== trigger"
find $library -name __pycache__ -prune -exec rm -rf {} +
echo "$(compiled) then"
/var/lib/dpkg/info/sockmem-agent.postinst triggered /usr/bin/python3.11
[ "$(compiled)" -gt 100 ] && echo "more than a hundred"

echo "== remove"
package --remove sockmem-agent
ls -d /usr/lib/sockmem-agent /usr/bin/sockmem-agent /run/sockmem-agent 2>/dev/null || true
cat /var/lib/sockmem-agent/state
tail -n 1 /etc/sockmem-agent/config.toml

echo "== purge"
package --install "$2"
mkdir -p /etc/systemd/system/multi-user.target.wants /etc/systemd/system/sockmem-agent.service.d
ln -s /usr/lib/systemd/system/sockmem-agent.service /etc/systemd/system/multi-user.target.wants/
echo secret >/etc/sockmem-agent/slack-url
package --purge sockmem-agent
everything >/tmp/after
diff /tmp/before /tmp/after || true
