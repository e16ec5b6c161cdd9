"""What a host tells of itself: samples of `tests/verify/collect.py`."""

SOCKETS = """\
udp   UNCONN 0      0                0.0.0.0:68         0.0.0.0:*    users:(("dhclient",pid=80,fd=7))
udp   UNCONN 0      0            127.0.0.1%lo:323       0.0.0.0:*    users:(("chronyd",pid=81,fd=5))
udp   UNCONN 0      0         [fe80::1%eth0]:546          [::]:*    users:(("systemd-network",pid=82,fd=5))
tcp   LISTEN 0      511              0.0.0.0:443        0.0.0.0:*    users:(("nginx",pid=91,fd=6),("nginx",pid=90,fd=6))
tcp   LISTEN 0      511                 [::]:443           [::]:*    users:(("nginx",pid=91,fd=7),("nginx",pid=90,fd=7))
tcp LISTEN 0      511    0.0.0.0:80  0.0.0.0:* users:(("nginx",pid=5644,fd=6),("nginx",pid=5643,fd=6))
tcp LISTEN 0      128       [::]:22     [::]:* users:(("sshd",pid=92,fd=7))
tcp   LISTEN 0      128                    *:22               *:*    users:(("sshd",pid=92,fd=3))
tcp   LISTEN 0      200            127.0.0.1:5432       0.0.0.0:*    users:(("postgres",pid=93,fd=6))
tcp   LISTEN 0      200   [::ffff:127.0.0.1]:8005             *:*    users:(("postgres",pid=93,fd=8))
"""
GROUPS = {
    "80": "/system.slice/networking.service",
    "81": "/system.slice/chrony.service",
    "82": "/system.slice/systemd-networkd.service",
    "90": "/system.slice/nginx.service",
    "91": "/system.slice/nginx.service",
    "92": "/system.slice/ssh.service",
    # In a container, as its kernel has it.
    "5643": "/libpod_parent/libpod-b77dad30958df538/system.slice/nginx.service",
    "5644": "/libpod_parent/libpod-b77dad30958df538/system.slice/nginx.service",
    "93": "/system.slice/system-postgresql.slice/postgresql@17-main.service",
    "812": "/user.slice/user-0.slice/session-3.scope",
    "813": "/user.slice/user-1000.slice/user@1000.service/app.slice/nginx.service",
    "814": "/system.slice/run-u7.service",
}
NAMES = [
    group.rpartition("/")[2] for pid, group in GROUPS.items() if "user.slice" not in group and "run-u" not in group
]
ETC = "/etc/systemd/system"
OF_ROLES = f"{ETC}/molam-webhook@.service"

VERIFY = """\
??5?????? c /etc/nginx/nginx.conf
??5??????   /usr/bin/curl
missing   c /etc/fail2ban/jail.conf
missing     /usr/share/doc/odd name/copyright (Permission denied)
??5?????? c /etc/nginx/molam.conf
dpkg: warning: something
"""
