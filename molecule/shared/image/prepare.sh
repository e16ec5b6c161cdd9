#!/bin/sh
# Runs inside the new file system, after the packages: turns what a container image leaves out or adds
# back into a freshly installed host.
set -eu

# Container images keep services from starting and throw away what apt fetched; a host does neither.
rm -f /usr/sbin/policy-rc.d /etc/apt/apt.conf.d/docker-* /etc/dpkg/dpkg.cfg.d/docker-*

# Lists that are empty but look fresh make `cache_valid_time` skip the first update. Old ones do not.
rm -rf /var/lib/apt/lists/*
touch -d @0 /var/lib/apt/lists

# Every host makes its own identity at its first boot.
rm -f /etc/ssh/ssh_host_*
: >/etc/machine-id
cat >/etc/systemd/system/ssh-host-keys.service <<'UNIT'
[Unit]
Description=Make the SSH host keys at the first boot
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
Before=ssh.service

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
UNIT
systemctl enable ssh.service ssh-host-keys.service

# There are no kernel modules to load from inside a container.
systemctl mask systemd-modules-load.service

echo LANG=C.UTF-8 >/etc/default/locale
ln -sf /usr/share/zoneinfo/Etc/UTC /etc/localtime
echo Etc/UTC >/etc/timezone
