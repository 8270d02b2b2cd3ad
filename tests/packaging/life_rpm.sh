#!/bin/sh
# The life of the .rpm, by Debian's rpm: copy_of_host.sh DIRECTORY life_rpm.sh ONE.rpm TWO.rpm
set -eu
library=/usr/lib/sockmem-agent/site-packages

# Dependencies are the distribution's matter and not this host's.
package() {
    rpm --nodeps "$@" >/tmp/log 2>&1 || { cat /tmp/log; exit 1; }
    # A script that fails is a warning to rpm.
    grep -i 'warning: %\|scriptlet failed' /tmp/log || true
}

echo "== install"
# As a `make run` of root's may have left it.
mkdir -p /var/lib/sockmem-agent/incidents
touch /var/lib/sockmem-agent/cursor.json
(umask 077 && package --install "$1")
sockmem-agent --version
sockmem-agent config check
find /var/lib/sockmem-agent ! -user sockmem-agent
stat -c '%U:%G %a %n' /var/lib/sockmem-agent /run/sockmem-agent /etc/sockmem-agent/config.toml
find $library -name '*.pyc' -not -perm -004

echo "== upgrade"
echo '# mine' >>/etc/sockmem-agent/config.toml
echo kept >/var/lib/sockmem-agent/state
(umask 077 && package --upgrade "$2")
sockmem-agent --version
tail -n 1 /etc/sockmem-agent/config.toml
cat /var/lib/sockmem-agent/state
find $library -path '*cli*doctor*' -o -name '*.pyc' -not -perm -004
[ "$(find $library -name '*.pyc' | wc -l)" -gt 100 ] && echo "more than a hundred"

echo "== remove"
package --erase sockmem-agent
ls -d /usr/lib/sockmem-agent /usr/bin/sockmem-agent /run/sockmem-agent /usr/lib/systemd/system/sockmem-agent.service 2>/dev/null || true
cat /var/lib/sockmem-agent/state
find /etc/sockmem-agent -type f | sort
tail -n 1 /etc/sockmem-agent/config.toml.rpmsave

echo "== again"
package --install "$2"
sockmem-agent --version
stat -c '%U:%G %a %n' /var/lib/sockmem-agent
