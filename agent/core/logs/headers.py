"""What stands between the stamp of a log line and the kernel's text: host, facility, severity and tag, by each writer.

rsyslog and syslog-ng with their templates, busybox, Chrome OS, metalog, NX-OS, socklog, fluentd, and repeated lines::

     Home kernel: [3013902.907527] TCP: too many orphaned sockets
     kern.info kernel: [104454.288966] TCP: too many orphaned sockets
     [kernel] TCP: too many orphaned sockets
     last message repeated 3 times
"""

import re

# Seconds since boot, which an application's log has not.
PRINTK_STAMP = r"\[ *\d{1,12}\.\d{6}\]"
SEVERITY = r"(?:emerg|panic|alert|crit|err|error|warn|warning|notice|info|debug)"
FACILITY = (
    r"[<\[(]?(?P<{}>kern|user|mail|daemon|auth|syslog|lpr|news|uucp|cron|authpriv|security|ftp|local[0-7])[.|:]=?"
    rf"{SEVERITY}(?:<\d+>)?[>\])]?:? +"
)
# The levels of applications' logs, as a whole word; Android and glog write the first letter alone.
LEVEL = (
    r"(?:(?i:trace|verbose|debug|info|notice|warn|warning|err|error|crit|critical|severe|alert|fatal|panic|emerg)"
    r"|[VTDIWEF])"
)
# No tag is taken for a host (they end in a colon), nor the level of an application's log.
HOST = (
    r"(?!(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERR|ERROR|CRIT|CRITICAL|ALERT|FATAL|EMERG)\b"
    rf"|[<\[]?{LEVEL}[>\]]?\s(?! *kernel: +{PRINTK_STAMP}))"
    r"(?P<host>[\w.:@%/,~+*#$\ufffd-]+(?<![^:]:)|[\w.-]+,[\w.,-]+:|\(\"[\w.,+-]+\"\)|\(none\)"
)
# People mask a host with brackets; metalog has the program's name there, so that only the tag can make it a host. A
# number is a process or a thread.
MASKED_HOST = rf"{HOST}|<[\w.-]+>|\[(?!\d+\])[\w.*-]+\]) +"
PLAIN_HOST = rf"{HOST}) +"
# A word in capitals is a zone only before a host: there are hosts in capitals, and a level may stand behind them.
ZONE = rf"(?P<zone>(?!{LEVEL}\b)[A-Z]{{2,5}}|[+-]\d\d:?\d\d) +(?!{SEVERITY} |[<\[(]?[a-z]+[0-7]?[.|:]=?{SEVERITY}\b)"
# Chrome OS writes a level before the tag, F5 writes one behind the host, and some keep <6> behind the stamp.
CHROME = rf"(?P<level>EMERG|ALERT|CRIT|ERR|WARNING|NOTICE|INFO|DEBUG) +(?=kernel: +{PRINTK_STAMP})"
TAGGED = re.compile(
    rf"\s+(?:<[0-7]> *)?(?:{CHROME}|(?:{FACILITY.format('before')})?(?:(?:{ZONE})?{MASKED_HOST})?"
    rf"(?:{FACILITY.format('behind')}|(?P<severity>{SEVERITY}) +)?)"
    rf"(?:kernel(?:\[0?\])?:(?: :)?\s*|kernel - - (?:- )?|kernel +(?={PRINTK_STAMP}))(?P<text>.*)",
    re.DOTALL,
)
# netconsole through a syslog server, and dmesg through ts(1), have printk's stamp where the tag should be.
UNTAGGED = re.compile(rf"\s+(?:{PLAIN_HOST})?(?:<[0-7]> *)?(?P<text>{PRINTK_STAMP}.*)", re.DOTALL)
METALOG = re.compile(r"\s+\[kernel\]\s+(?P<host>)(?P<text>.*)", re.DOTALL)
NXOS = re.compile(
    r"\s+(?P<host>[\w.-]+)(?: %\$ VDC-\d+ %\$)?(?: [A-Z][a-z]{2} +\d+ [\d:.]+)? %KERN-\d-SYSTEM_MSG: "
    r"(?P<text>.*\S) +- kernel"
)
SOCKLOG = re.compile(rf"\s+(?:(?P<host>[\d.]+|[\da-f:]+): )?kern\.{SEVERITY}: (?P<text>.*)", re.DOTALL)
# fluentd's syslog input names facility and severity in the event's tag, and the object behind it has no facility.
FLUENTD = re.compile(rf"\s+(?:[\w-]+\.)*kern\.{SEVERITY}(?::\s+|\t)(?P<object>\{{.*)", re.DOTALL)
# talosctl dmesg puts the node's address before facility and level.
TALOS = re.compile(r"(?P<host>[\d.]+|[\da-f:]+): kern: +[a-z]+: +\[(?P<stamp>[^\]]+)\]: (?P<text>.*)", re.DOTALL)
# grep with several files, and with -n; what follows has to be a head.
FILE = re.compile(
    r"(?=[^:\s]{0,255}[./])[\w./~+@-]{1,255}:(?:\d{1,9}:)?(?=[A-Z][a-z]{2} [ \d]\d |\d{4}-\d\d-\d\d|\[ *\d|<\d{1,3}>)"
)
# docker logs -t, CloudWatch's export and CRI put a stamp before each line of a container or log.
CARRIED = re.compile(r"(?: std(?:out|err) F)? (?P<text>.*)", re.DOTALL)
REPEAT_LINE = re.compile(r"\s+(?:(?P<host>\S+) +)??(?:kernel: )?(?P<text>[Ll]ast message .*)", re.DOTALL)
PRINTK = re.compile(PRINTK_STAMP)
TAG_ONLY = re.compile(r"kernel(?:\[0?\])?:(?: :)?\s*(?P<text>.*)", re.DOTALL)
REPEATED_INSIDE = re.compile(r"message repeated (\d{1,9}) times?: \[ ?(.*)\]", re.DOTALL)
