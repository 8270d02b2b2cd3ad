from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from agent.core.logs import records
from agent.core.logs.records import spread, to_record

NOW = datetime(2024, 11, 22, 12, tzinfo=timezone.utc)
AT = datetime(2024, 8, 18, 6, 33, 14, tzinfo=timezone.utc)
T = "TCP: too many orphaned sockets"
WRITTEN = AT.replace(hour=8)
LINE = f"Aug 18 08:33:14 jp58 kernel: {T}"


Read = tuple[str, datetime | None, float | None, str | None]


def read(fields: dict[str, Any], before: str = "") -> Read | None:
    return read_line(before + msgspec.json.encode(fields).decode())


def read_line(line: str) -> Read | None:
    record = to_record(line.encode(), now=NOW, source="log:1", ordinal=1)
    return record and (record.text, record.at, record.uptime, record.host)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {
                "__REALTIME_TIMESTAMP": "1723962794000000",
                "_SOURCE_MONOTONIC_TIMESTAMP": "85047045932",
                "_TRANSPORT": "kernel",
                "SYSLOG_FACILITY": "0",
                "SYSLOG_IDENTIFIER": "kernel",
                "_HOSTNAME": "jp58",
                "MESSAGE": T,
            },
            (T, AT, 85047.045932, "jp58"),
        ),
        ({"_TRANSPORT": "kernel", "MESSAGE": list(T.encode())}, (T, None, None, None)),
        (
            {"message": T, "fromhost": "jp58", "facility": "kern", "timereported": "2024-08-18T08:33:14+02:00"},
            (T, AT, None, "jp58"),
        ),
        (
            {"timestamp": "2024-08-18T06:33:14Z", "host": "jp58", "tag": "kernel:", "msg": f" [1.5] {T}"},
            (T, AT, 1.5, "jp58"),
        ),
        (
            {
                "@timestamp": "2024-08-18T06:33:14.000Z",
                "host": {"name": "jp58"},
                "log": {"syslog": {"facility": {"code": 0}, "appname": "kernel"}},
                "message": T,
            },
            (T, AT, None, "jp58"),
        ),
        (
            {"message": T, "logsource": "jp58", "host": "collector", "program": "kernel", "timestamp": 1723962794000},
            (T, AT, None, "jp58"),
        ),
        (
            {"SyslogMessage": T, "Computer": "jp58", "ProcessName": "kernel", "EventTime": "2024-08-18T06:33:14Z"},
            (T, AT, None, "jp58"),
        ),
        (
            {
                "jsonPayload": {"_TRANSPORT": "kernel", "_HOSTNAME": "jp58", "MESSAGE": T},
                "timestamp": "2024-08-18T06:33:14Z",
                "logName": "projects/p/logs/kernel",
            },
            (T, AT, None, "jp58"),
        ),
        (
            {
                "jsonPayload": {"SYSLOG_IDENTIFIER": "kernel", "_HOSTNAME": "jp58", "MESSAGE": T},
                "timestamp": "2024-08-18T06:33:14Z",
            },
            (T, AT, None, "jp58"),
        ),
        (
            {"jsonPayload": {"SYSLOG_IDENTIFIER": "kernel", "SYSLOG_FACILITY": "0", "MESSAGE": list(T.encode())}},
            (T, None, None, None),
        ),
        (
            {"_index": "logs", "_id": "7", "_source": {"_TRANSPORT": "kernel", "MESSAGE": T}},
            (T, None, None, None),
        ),
        ({"pri": 6, "time": 12.5, "msg": T}, (T, None, 12.5, None)),
        (
            {
                "SYSLOG_IDENTIFIER": "kernel",
                "MESSAGE": T,
                "_HOSTNAME": "jp58",
                "__REALTIME_TIMESTAMP": "1723962794000000",
            },
            (T, AT, None, "jp58"),
        ),
        (
            {"preview": False, "result": {"_raw": LINE, "host": "jp58", "_time": "2024-08-18T06:33:14Z"}},
            (T, AT, None, "jp58"),
        ),
        ({"Facility": "kern", "TimeGenerated [UTC]": "2024-08-18T06:33:14Z", "SyslogMessage": T}, (T, AT, None, None)),
        ({"Facility": "kern", "TimeGenerated [UTC]": "8/18/2024, 6:33:14.000 AM", "Message": T}, (T, AT, None, None)),
        ({"facility": "kern", "time": "Sun, 18 Aug 2024 06:33:14 GMT", "message": T}, (T, AT, None, None)),
        ({"facility": "kern", "seen": "Sun, 18 Aug 2024 08:33:14 +0200", "message": T}, (T, AT, None, None)),
        ({"facility": "kern", "time": "2024-08-18t06:33:14z", "message": T}, (T, AT, None, None)),
        ({"fields": {"message": [LINE]}, "_index": "x"}, (T, WRITTEN, None, "jp58")),
        ({"body": LINE, "severityText": "INFO", "resource": {"host.name": "jp58"}}, (T, WRITTEN, None, "jp58")),
        ({"fac": "kern", "pri": "info", "time": 12.5, "msg": T}, (T, None, 12.5, None)),
        (
            {
                "timestamp": "2024-08-18T06:33:14Z",
                "source": "jp58",
                "facility": "kernel",
                "application_name": "kernel",
                "message": f"jp58 kernel: [1.5] {T}",
            },
            (T, AT, 1.5, "jp58"),
        ),
        ({"event": {"original": LINE}, "host": {"name": "collector"}}, (T, WRITTEN, None, "jp58")),
        (
            {
                "labels": {"instance": "jp58", "job": "integrations/node_exporter", "transport": "kernel"},
                "line": T,
                "timestamp": "2024-08-18T06:33:14Z",
            },
            (T, AT, None, "jp58"),
        ),
        (
            {"labels": {"nodename": "jp58", "transport": "kernel"}, "line": T, "timestamp": "2024-08-18T06:33:14Z"},
            (T, AT, None, "jp58"),
        ),
        (
            {"received_at": "2024-08-18T06:33:14Z", "source_name": "jp58", "facility_name": "Kern", "message": T},
            (T, AT, None, "jp58"),
        ),
        ({"attributes": {"log.record.original": LINE}}, (T, WRITTEN, None, "jp58")),
        ({"properties": {"SyslogMessage": LINE}}, (T, WRITTEN, None, "jp58")),
        ({"raw_message": f"<6>{LINE}"}, (T, WRITTEN, None, "jp58")),
        ({"payload": LINE}, (T, WRITTEN, None, "jp58")),
        ({"payload": {"message": LINE}}, (T, WRITTEN, None, "jp58")),
        ({"data": {"msg": LINE}}, (T, WRITTEN, None, "jp58")),
        ({"@rawstring": LINE}, (T, WRITTEN, None, "jp58")),
        ({"field": "@message", "value": LINE}, (T, WRITTEN, None, "jp58")),
        (
            {"map": {"_raw": f"kernel: {T}", "_messagetime": "1723962794000", "_sourcehost": "jp58"}},
            (T, AT, None, "jp58"),
        ),
        ({"MsgText": LINE}, (T, WRITTEN, None, "jp58")),
        ({"syslog": LINE, "received_at": "2024-08-18T06:33:14Z"}, (T, AT, None, "jp58")),
        ({"Raw Log": LINE}, (T, WRITTEN, None, "jp58")),
        (
            {
                "agent": {"id": "001", "name": "web-7"},
                "predecoder": {"program_name": "kernel", "hostname": "jp58"},
                "full_log": LINE,
                "location": "/var/log/messages",
            },
            (T, WRITTEN, None, "jp58"),
        ),
    ],
)
def test_records_of_the_kernel_are_read(fields: dict[str, Any], expected: Read) -> None:
    assert expected == read(fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"message": T},
        {"_TRANSPORT": "syslog", "SYSLOG_FACILITY": "0", "SYSLOG_IDENTIFIER": "kernel", "MESSAGE": T},
        {"_TRANSPORT": "kernel", "SYSLOG_FACILITY": "1", "SYSLOG_IDENTIFIER": "kernel", "MESSAGE": T},
        {"_TRANSPORT": "kernel", "SYSLOG_IDENTIFIER": "TCP", "MESSAGE": T},
        {"facility": "user", "programname": "kernel", "message": T, "host": "jp58", "timestamp": 1723962794},
        {"alert": "orphans", "tag": "kernel", "message": T},
        {"pri": 12, "time": 12.5, "msg": T},
        {"jsonPayload": {"SYSLOG_IDENTIFIER": "kernel", "MESSAGE": T}},
        {"jsonPayload": {"_TRANSPORT": "stdout", "SYSLOG_IDENTIFIER": "kernel", "MESSAGE": T}, "timestamp": 1},
        {"jsonPayload": T, "timestamp": 1},
        {"rule": "orphans", "_source": {"_TRANSPORT": "kernel", "MESSAGE": T}},
        {"log": f"{LINE}\n", "stream": "stdout", "time": 1, "rule": "orphans"},
        {"message": LINE, "timestamp": 1, "alert": "orphans"},
        {"field": "user_agent", "value": LINE},
        {"key": "login", "value": LINE},
        {"message": LINE, "log": {"file": {"path": "/var/log/x"}}, "process": {"name": "nagios"}},
        {"_TRANSPORT": "kernel", "MESSAGE": [T, T]},
        {"_TRANSPORT": "kernel", "MESSAGE": None},
        {"_TRANSPORT": "kernel"},
    ],
)
def test_objects_of_others_are_not(fields: dict[str, Any]) -> None:
    assert read(fields) is None


def test_what_stands_before_an_object_may_name_the_facility_for_it() -> None:
    head = "2024-08-18 06:33:14.0 +0000 system.kern.info: "

    assert (T, AT, None, "jp58") == read({"host": "jp58", "ident": "kernel", "message": T}, head)
    assert read({"host": "jp58", "ident": "nagios", "message": T}, head) is None
    assert read({"host": "jp58", "ident": "kernel", "facility": "user", "message": T}, head) is None
    assert read({"host": "jp58", "ident": "kernel", "message": T}, head.replace("kern", "user")) is None


@pytest.mark.parametrize(
    ("fields", "at"),
    [
        ({"log": f"{LINE}\n"}, None),
        ({"message": LINE}, None),
        ({"log": LINE, "stream": "stdout", "time": "2024-08-18T06:33:14Z"}, AT),
        ({"log": LINE, "date": 1723962794.0}, AT),
        ({"log": LINE, "stream": "stdout", "logtag": "F", "kubernetes": {"container_name": "syslog-reader"}}, None),
        ({"message": LINE, "host": "collector", "pid": 0, "procid": "-", "service": "syslog"}, None),
        ({"timestamp": "2024-08-18T06:33:14Z", "source": "jp58", "message": f"kernel: {T}"}, AT),
        ({"timestamp": "2024-08-18T06:33:14Z", "source": "graylog", "message": f"jp58 kernel: [1.5] {T}"}, AT),
        ({"time": {"$date": "2024-08-18T06:33:14Z"}, "message": LINE}, AT),
        ({"body": {"stringValue": LINE}, "timeUnixNano": "1723962794000000000"}, AT),
        ({"message": LINE, "timestamp": 1723962794000, "ingestionTime": 1723962795000, "eventId": "1"}, AT),
        ({"@message": LINE, "@timestamp": "2024-08-18 06:33:14.000", "@ptr": "x"}, AT),
        ({"textPayload": LINE, "timestamp": "2024-08-18T06:33:14Z", "logName": "projects/p/logs/syslog"}, AT),
        ({"message": LINE, "log": {"file": {"path": "/var/log/messages"}}, "agent": {"type": "filebeat"}}, None),
        ({"message": LINE, "source_type": "file", "file": "/var/log/messages", "host": "collector"}, None),
    ],
)
def test_objects_that_carry_lines_leave_the_claim_to_the_line(fields: dict[str, Any], at: datetime | None) -> None:
    found = read(fields)

    assert (T, at or WRITTEN, "jp58") == (found and (found[0], found[1], found[3]))


SOURCE = {"source": "jp58", "timestamp": "2024-08-18T06:33:14.000Z"}
RECORD = {"timestamp": "2024-08-18T06:33:14Z", "host": "jp58", "facility": "kern", "message": T}


@pytest.mark.parametrize(
    ("document", "hosts"),
    [
        (
            {"took": 1, "hits": {"total": {"value": 2}, "hits": [{"_source": RECORD}, {"_source": RECORD}]}},
            ["jp58"] * 2,
        ),
        ({"events": [{"timestamp": 1723962794000, "message": LINE}, {"message": "other"}]}, ["jp58"]),
        ({"results": [{"_raw": LINE, "_time": "2024-08-18T06:33:14Z"}]}, ["jp58"]),
        ({"dmesg": [{"pri": 6, "time": 1.5, "msg": T}, {"pri": 6, "time": 2.5, "msg": T}]}, [None] * 2),
        ({"data": {"result": [{"stream": {"host": "jp58", "transport": "kernel"}, "values": [["1", T]]}]}}, ["jp58"]),
        ({"streams": [{"stream": {}, "values": [["1", LINE], ["2", "other"]]}]}, ["jp58"]),
        ({"results": [[{"field": "@timestamp", "value": "1"}, {"field": "@message", "value": LINE}]]}, ["jp58"]),
        ({"data": [{"id": "A", "attributes": RECORD}]}, ["jp58"]),
        (
            {
                "resourceLogs": [
                    {
                        "resource": {"attributes": [{"key": "host.name", "value": {"stringValue": "jp58"}}]},
                        "scopeLogs": [{"logRecords": [{"facility": "kern", "body": {"stringValue": T}}]}],
                    }
                ]
            },
            ["jp58"],
        ),
        ([[RECORD], RECORD], ["jp58"] * 2),
        ({**RECORD, "others": [RECORD, {**RECORD, "host": "web-7"}]}, ["jp58", "jp58", "web-7"]),
        ({"facility": "kern", "message": T, "attributes": [{"key": "host.name", "value": "jp58"}]}, ["jp58"]),
        ({**RECORD, "tags": ["a"], "spans": [{"id": 1}]}, ["jp58"]),
        ({"kubernetes": {"container_name": "shop"}, "logs": [{"log": LINE}]}, []),
        ({"method": "POST", "body": {"items": [{"message": LINE}]}}, []),
        ({"remote_addr": "203.0.113.9", "items": [RECORD]}, []),
        ({"verb": "create", "user": {"username": "x"}, "requestObject": {"items": [{"message": LINE}]}}, []),
        ({"requestParameters": {"logEvents": [{"message": LINE, "timestamp": 1723962794000}]}}, []),
        ({"query": "orphaned", "messages": [{"message": {"message": f"kernel: {T}", **SOURCE}}]}, ["jp58"]),
        ({"events": [{"message": LINE}], "ResponseMetadata": {"RequestId": "x", "HTTPHeaders": {"a": "b"}}}, ["jp58"]),
    ],
)
def test_every_record_of_a_document_is_read_however_deep(document: object, hosts: list[str | None]) -> None:
    found = [read_line(line.decode()) for line in spread(msgspec.json.encode(document))]

    assert hosts == [each[3] for each in found if each]


@pytest.mark.parametrize("line", [b"[" * 5000, b'{"a": [', f'["{T}"]'.encode(), b"[  1.5] x", b'{"a": [{"b": 1}]}'])
def test_what_is_no_document_stays_as_it_is(line: bytes) -> None:
    assert [line] == list(spread(line))


@pytest.mark.parametrize(
    "fields",
    [
        {"kubernetes": {"container_name": "shop"}, "stream": "stdout"},
        {"kubernetes": {"pod_name": "shop-1"}},
        {"container": "shop"},
        {"service": {"name": "shop"}, "@timestamp": "2024-08-18T06:33:14Z"},
        {"from": "alice@example.com", "to": "ops@example.com"},
        {"type": "message", "ts": "1723962794.0001"},
        {"role": "user"},
        {"id": 4711, "description": "as seen"},
        {"stdout": LINE, "rc": 0},
        {"method": "POST", "host": "shop.example"},
        {"remote_addr": "203.0.113.9", "host": "shop.example"},
        {"user_agent": {"original": "curl"}},
        {"q": LINE},
        {"labels": {"job": "app", "host": "jp58"}},
        {"labels": '{"job": "app", "host": "jp58"}'},
        {"labels.job": "app", "labels.host": "jp58"},
        {"pid": "4711", "uid": "1000"},
    ],
)
def test_a_line_in_the_record_of_another_program_is_that_programs(fields: dict[str, Any]) -> None:
    assert read({**fields, "message": LINE}) is None


def test_a_process_of_the_journals_is_no_kernel() -> None:
    entry = {
        "SYSLOG_IDENTIFIER": "kernel",
        "MESSAGE": T,
        "_HOSTNAME": "jp58",
        "__REALTIME_TIMESTAMP": "1723962794000000",
    }

    assert read(entry) is not None
    assert read({**entry, "_PID": "4711"}) is None
    assert read({**entry, "SYSLOG_IDENTIFIER": "", "_SYSTEMD_UNIT": ""}) is None


def test_a_serial_consoles_record_is_the_kernels_where_printks_stamp_stands_before_the_message() -> None:
    record = {
        "labels": {"compute.googleapis.com/resource_name": "jp58"},
        "logName": "projects/p/logs/serialconsole.googleapis.com%2Fserial_port_1_output",
        "resource": {"labels": {"instance_id": "7"}, "type": "gce_instance"},
        "timestamp": "2024-08-18T06:33:14Z",
    }
    said = f"[85047.045932] {T}"

    assert (T, AT, 85047.045932, "jp58") == read({**record, "textPayload": said})
    assert (T, AT, 85047.045932, "jp58") == read({**record, "textPayload": f"jp58 login: {said}"})
    assert read({**record, "textPayload": T}) is None
    assert read({**record, "textPayload": f"shop: {said}"}) is None
    assert read({**record, "textPayload": said, "logName": "projects/p/logs/shop"}) is None


@pytest.mark.parametrize("stamp", [1723962794, 1723962794e3, 1723962794_000_000, 1723962794_000_000_000])
def test_every_clouds_count_of_the_time_is_read(stamp: float) -> None:
    assert (T, AT, None, None) == read({"facility": "kern", "message": T, "timestamp": stamp})


def test_a_time_of_cloudwatch_insights_is_utc_in_whatever_zone_it_is_read() -> None:
    line = msgspec.json.encode({"@message": f"jp58 kernel: {T}", "@timestamp": "2024-08-18 06:33:14.000", "host": "x"})
    here = NOW.astimezone(timezone(timedelta(hours=9)))
    record = to_record(line, now=here, source="log:1", ordinal=1)

    assert AT == (record and record.at)


@pytest.mark.parametrize("line", ["{", "{}", "[1]", '{"a":' * 5000, '{"_TRANSPORT":"kernel","MESSAGE":"\\ud800"}'])
def test_what_is_not_an_object_is_nothing(line: str) -> None:
    assert read_line(line) is None


@pytest.mark.parametrize(
    "stamp", ["", "x", "9" * 400, -1e300, 10**40, pytest.param(10**400, id="10**400"), True, [], "2024-13-45T99:99:99Z"]
)
def test_a_time_that_is_none_leaves_the_record(stamp: object) -> None:
    assert (T, None, None, None) == read({"facility": "kern", "message": T, "timestamp": stamp})


@pytest.mark.parametrize("micros", [-1e300, "-1e300", "inf", "nan", -1, 10**300])
def test_a_time_since_boot_that_is_none_leaves_the_record(micros: object) -> None:
    assert (T, None, None, None) == read({"facility": "kern", "message": T, "monotonic_timestamp": micros})


def test_what_is_remembered_of_field_names_is_bounded_whatever_a_forger_calls_them() -> None:
    records._known_roles_of.cache_clear()
    for number in range(2000):
        fields = {"x" * 5000 + str(number): "a", f"name{number}": "b", "message": "TCP: too many orphaned sockets"}
        to_record(msgspec.json.encode(fields), now=NOW, source="x", ordinal=0)
    found = records._known_roles_of.cache_info()

    assert (512, 512) == (found.currsize, found.maxsize)
    assert found.hits > 1900
