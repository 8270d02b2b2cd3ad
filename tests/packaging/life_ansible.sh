#!/bin/sh
# The Ansible role, run again and again: copy_of_host.sh DIRECTORY life_ansible.sh ONE.deb ansible.tar
set -eu
cd /tmp/given
tar xf "$2"
export ANSIBLE_NOCOLOR=1 ANSIBLE_ROLES_PATH=/tmp/given/roles HOME=/root LC_ALL=C.UTF-8

cat >site.yml <<'PLAY'
- hosts: all
  roles: [sockmem_agent]
PLAY
cat >vars.yml <<VARS
sockmem_agent_package: $1
sockmem_agent_credentials: {ops-url: "http://127.0.0.1:9/secret-path"}
sockmem_agent_service: MemoryMax=128M
sockmem_agent_textfile_directory: /var/tmp
sockmem_agent_config: |
  [[notify]]
  name = "ops"
  type = "webhook"
  url_file = "\${CREDENTIALS_DIRECTORY}/ops-url"
VARS

play() {
    status=0
    ansible-playbook --inventory localhost, --connection local --extra-vars @vars.yml "$@" site.yml >/tmp/log 2>&1 || status=$?
    ! grep -q secret-path /tmp/log || echo "a secret is in the output"
    echo "exit status $status"
    sed -n 's/^localhost .*\(ok=.*\)/\1/p' /tmp/log
    [ "$status" = 0 ] || grep -A20 -m1 '^fatal' /tmp/log
}

echo "== first"
play
stat -c '%U %a %n' /etc/sockmem-agent/credentials /etc/sockmem-agent/credentials/ops-url /etc/sockmem-agent/config.toml
cat /etc/systemd/system/sockmem-agent.service.d/ansible.conf
readlink /etc/systemd/system/multi-user.target.wants/sockmem-agent.service /var/tmp/sockmem.prom
sockmem-agent config check

echo "== second"
play

echo "== checked"
play --check

echo "== witness"
play --extra-vars sockmem_agent_witness=true
cmp /usr/lib/sockmem-agent/witness.conf /etc/systemd/system/sockmem-agent.service.d/witness.conf && echo same

echo "== mistake"
play --extra-vars '{"sockmem_agent_config": "[source]\nkind = \"kmesg\"\n"}'
grep -c ops-url /etc/sockmem-agent/config.toml
