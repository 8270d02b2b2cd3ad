#!/bin/sh
# Create .venv and install the distribution packages it needs; called by the Makefile.
#
#   contrib/setup.sh make    make itself, for contrib/run and contrib/test
#   contrib/setup.sh run     what `make run` needs: Python 3.10 or newer with venv, the headers for systemd-python, the agent
#   contrib/setup.sh package also what `make deb` and `make rpm` need
#   contrib/setup.sh test    also the development tools and the real programs that the tests start
#   contrib/setup.sh fuzz    also what `make fuzz` needs; fails where there is none for this Python and machine
#   contrib/setup.sh vm      only the programs that boot kernels for `make vm-test`
#   contrib/setup.sh bench   only the programs that `make bench` measures beside the agent
#
# Missing packages are installed with apt-get, as root or with sudo; without those, one line says what to install. PYTHON
# sets the interpreter; the default is the first of python3, python3.14 ... python3.10 that is new enough.
set -eu
cd "$(dirname "$0")/.."
purpose=${1:?make, run, package, test, fuzz, vm or bench}
venv=.venv

die() {
    echo "setup: $*" >&2
    exit 1
}

# have PROGRAM: on the PATH, or where Debian puts daemons, which is not on a user's PATH.
have() {
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/usr/lib/systemd/$1" ]
}

# install PACKAGE...: with apt-get, without questions; on failure the caller reports the consequence.
install() {
    have apt-get || return 1
    as_root=
    if [ "$(id -u)" != 0 ]; then
        have sudo || return 1
        as_root=sudo
    fi
    echo "setup: installing with apt-get: $*"
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq </dev/null &&
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null
}

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
}

find_python() {
    for python in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python3.10}; do
        new_enough "$python" && return
    done
    [ -z "${PYTHON:-}" ] || die "PYTHON=$PYTHON is not Python 3.10 or newer; use one that is, for example PYTHON=python3.12"
    for python in python3 python3.11; do
        install "$python" "$python-venv" "$python-dev" && new_enough "$python" && return
    done
    die "Python 3.10 or newer is required: install it and run 'make PYTHON=/path/to/python3.11 $purpose'"
}

# Debian names an interpreter's packages after it: python3-venv, python3.12-venv.
missing_for_python() {
    name=$(basename "$python")
    "$python" -c 'import venv, ensurepip' 2>/dev/null || echo "$name-venv"
    "$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || echo "$name-dev"
    have cc || echo gcc libc6-dev
    have pkg-config || echo pkg-config
    have pkg-config && pkg-config --exists libsystemd || echo libsystemd-dev
}

missing_for_tests() {
    have git || echo git
    have ip || echo iproute2
    have rsyslogd || echo rsyslog
    have logrotate || echo logrotate
    have journalctl && have systemd-analyze || echo systemd
    have systemd-journal-remote || echo systemd-journal-remote
    have exim4 || echo exim4-daemon-light
    have socat || echo socat
    have jq || echo jq
    have curl || echo curl
    have chromium || echo chromium
    have rpm || echo rpm
    have man || echo man-db
    have shellcheck || echo shellcheck
    have lintian || echo lintian
    have promtool || echo prometheus
    have amtool || echo prometheus-alertmanager
    have prometheus-node-exporter || echo prometheus-node-exporter
    have ansible-lint || echo ansible-lint
    have buildah && [ -x /usr/lib/podman/netavark ] || echo buildah netavark
    have runc || echo runc
    have debootstrap || echo debootstrap
    [ -x /usr/lib/nagios/plugins/negate ] || echo monitoring-plugins-common
}

missing_for_machines() {
    have qemu-system-x86_64 || echo qemu-system-x86
    have qemu-img || echo qemu-utils
    have debootstrap || echo debootstrap
    have cpio || echo cpio
    have mke2fs || echo e2fsprogs
    have depmod || echo kmod
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || echo debian-archive-keyring
}

missing_for_bench() {
    have sec || echo sec
    have fail2ban-server || echo fail2ban python3-pyinotify
    have mtail || echo mtail
    have swatchdog || echo swatch
    have rg || echo ripgrep
    have ss || echo iproute2
    have curl || echo curl
    have bzip2 || echo bzip2
    have xz || echo xz-utils
}

if [ "$purpose" = make ]; then
    have make || install make || die "make is missing and cannot be installed with apt-get, as root or with sudo: install make"
    exit
fi
if [ "$purpose" = vm ]; then
    packages=$(missing_for_machines | tr '\n' ' ')
    # shellcheck disable=SC2086
    [ -z "$packages" ] || install $packages || echo "setup: not installed: $packages- required to boot kernels" >&2
    exit
fi
if [ "$purpose" = bench ]; then
    packages=$(missing_for_bench | tr '\n' ' ')
    # shellcheck disable=SC2086
    [ -z "$packages" ] || install $packages || echo "setup: not installed: $packages- left out of the comparison" >&2
    exit
fi

find_python
packages=$(missing_for_python | tr '\n' ' ')
if [ -n "$packages" ]; then
    # shellcheck disable=SC2086 # one word a package
    install $packages || die "cannot install with apt-get, as root or with sudo; install $packages(or your distribution's equivalents)"
fi
if [ "$purpose" = test ]; then
    packages=$(missing_for_tests | tr '\n' ' ')
    if [ -n "$packages" ]; then
        # shellcheck disable=SC2086
        install $packages || echo "setup: not installed: $packages- the tests that need them will be skipped" >&2
    fi
fi

# Recreate a virtual environment whose interpreter is gone (a distribution upgrade) or is not the requested one.
another_is_named() {
    [ -n "${PYTHON:-}" ] && [ "$("$venv/bin/python" -V)" != "$("$python" -V)" ]
}
if ! new_enough "$venv/bin/python" || another_is_named; then
    echo "setup: creating $venv with $($python --version)"
    "$python" -m venv --clear "$venv"
fi
# setuptools warns about every editable install.
pip() {
    PYTHONWARNINGS=ignore "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}
# Debian 12 has pip 23.0; --group needs 25.1.
pip --upgrade 'pip>=25.1'
case $purpose in
test) pip --editable . --group dev ;;
fuzz) pip --only-binary atheris --group fuzz || die "NOT FUZZED: no atheris for this Python and machine; try make PYTHON=python3.11 fuzz" ;;
package) pip --editable . --group package ;;
*) pip --editable . ;;
esac
