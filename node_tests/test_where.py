"""Where a person says the network is: addresses with ports, machines' names, and what the questions answer to `?`."""

from __future__ import annotations

import socket
import sys
import threading

import pytest

from node_tests.stage.window import Window, needs_pty
from prompt import where
from prompt.settings import parse_flags
from prompt.where import Place, check_place, check_targets, look_up


@pytest.fixture(autouse=True)
def machines(monkeypatch):
    """A resolver that knows some machines."""
    known = {"lab7": ["10.0.0.7"], "lab8.example.org": ["10.0.0.8"], "this-one": ["127.0.1.1"], "lab6": ["fd00::6"],
             "both": ["fe80::9", "fd00::9", "10.0.0.9"], "link": ["fe80::6"]}  # fmt: skip

    def getaddrinfo(host, *_):
        if host not in known:
            raise socket.gaierror(-2, "Name or service not known")
        return [
            (socket.AF_INET6, socket.SOCK_DGRAM, 17, "", (ip, 0, 0, 2 * ip.startswith("fe80")))
            if ":" in ip else (socket.AF_INET, socket.SOCK_DGRAM, 17, "", (ip, 0))
            for ip in known[host]
        ]  # fmt: skip

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    numbers = {"eth0": 2, "wlan0": 4}

    def found_in(table, key):
        if key not in table:
            raise OSError("no such interface")
        return table[key]

    monkeypatch.setattr(socket, "if_nametoindex", lambda name: found_in(numbers, name))
    names = {number: name for name, number in numbers.items()}
    monkeypatch.setattr(socket, "if_indextoname", lambda number: found_in(names, number))


def test_what_w_prints_and_a_machines_name_are_answers():
    assert {text: check_place(text) for text in ("", "10.0.0.7", " 10.0.0.7:6021 ", "localhost:6022", "lab7",
                                                 "lab7:6023", "lab8.example.org", "this-one")} == {
        "": Place(None, None), "10.0.0.7": Place("10.0.0.7", None), " 10.0.0.7:6021 ": Place("10.0.0.7", 6021),
        "localhost:6022": Place("127.0.0.1", 6022), "lab7": Place("10.0.0.7", None),
        "lab7:6023": Place("10.0.0.7", 6023),
        "lab8.example.org": Place("10.0.0.8", None), "this-one": Place("127.0.0.1", None)}  # fmt: skip


def test_addresses_of_ipv6_are_answers_with_a_port_in_brackets():
    assert {text: check_place(text) for text in ("fd00::1", "FD00:0::1", "[fd00::1]", "[fd00::1]:6021", "::1",
                                                 "fe80::1%4", "[FE80::1%eth0]:6021", "::ffff:10.0.0.7", "lab6",
                                                 "lab6:6021", "both", "link")} == {
        "fd00::1": Place("fd00::1", None), "FD00:0::1": Place("fd00::1", None), "[fd00::1]": Place("fd00::1", None),
        "[fd00::1]:6021": Place("fd00::1", 6021), "::1": Place("::1", None), "fe80::1%4": Place("fe80::1%wlan0", None),
        "[FE80::1%eth0]:6021": Place("fe80::1%eth0", 6021), "::ffff:10.0.0.7": Place("10.0.0.7", None),
        "lab6": Place("fd00::6", None), "lab6:6021": Place("fd00::6", 6021),
        "both": Place("10.0.0.9", None, ("fd00::9", "fe80::9%eth0")), "link": Place("fe80::6%eth0", None)}  # fmt: skip


def test_c_goes_to_any_address_of_a_name():
    assert check_targets("both:7000", "") == check_targets("both 7000", "") == [
        ("10.0.0.9", 7000), ("fd00::9", 7000), ("fe80::9%eth0", 7000)]  # fmt: skip


def test_an_interface_is_what_the_sockets_call_it_and_stands_only_where_it_is_needed(monkeypatch):
    assert check_place("fe80::1%2") == check_place("fe80::1%eth0") == Place("fe80::1%eth0", None)
    assert check_place("fd00::1%eth0") == Place("fd00::1", None)
    monkeypatch.setattr(sys, "platform", "win32")
    assert check_place("fe80::1%2") == check_place("fe80::1%eth0") == Place("fe80::1%2", None)


@pytest.mark.parametrize("text, said", [
    ("lab9", '"lab9" is not an IP address like 10.0.0.7. Nor is a machine of that name known here.'),
    ("10.0.0", '"10.0.0" is not an IP address'), ("10.0.0.7:80", "A port is a number"), ("::", "not the address"),
    ("ff02::1", "not the address of one"), ("fe80::1", "say on which: fe80::1%eth0."), ("fd0::1::", "is not an"),
    ("fe80::1%none", 'no interface "none"'), ("fe80::1%99", 'no interface "99"'),
    ("fe80::1%" + "9" * 40, "no interface"), ("::ffff:0.0.0.0", "not the address"),
    ("::ffff:224.0.0.1", "not the address"),
    ("[fd00::1]:80", "A port is a number"), ("[fd00::1", "is not an IP"),
    ("[lab7]x", "is not an IP address"), ("http://10.0.0.7", '"http://10.0.0.7" is not an IP address'),
    ("http://lab7:6020/", "is not an IP address"),
    ("a b", '"a b" is not an IP address'), ("x" * 300, "is not an IP address"), ("\x1b[2J", "is not an IP address"),
    ("0.0.0.0:6020", "not the address of one machine"), ("..", "is not an IP address")])
def test_what_is_no_place_is_refused_with_a_sentence(text, said):
    with pytest.raises(ValueError, match="(?s).") as refused:
        check_place(text)
    assert said in str(refused.value) and str(refused.value).isprintable()


def test_a_resolver_that_does_not_answer_is_not_waited_for(monkeypatch):
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: answered.wait() and [])
    with pytest.raises(ValueError, match="did not come in time"):
        look_up("mute", seconds=0.2)
    with pytest.raises(ValueError, match="did not come in time"):
        look_up("mute", lambda: True, 3600.0)  # Ctrl-C
    answered.set()


def test_the_flag_takes_a_port_too(capsys):
    flags = parse_flags(["--ip", "10.0.0.7:6021"])
    assert (flags.ip, flags.port) == ("10.0.0.7", 6021)
    flags = parse_flags(["--ip", "lab7", "--port", "6021"])
    assert (flags.ip, flags.port) == ("10.0.0.7", 6021)
    assert parse_flags(["--ip", ""]).ip is None and parse_flags([]).ip is False
    with pytest.raises(SystemExit) as ended:
        parse_flags(["--ip", "10.0.0.7:6021", "--port", "6022"])
    assert ended.value.code == 2 and "--ip names port 6021, and --port 6022." in capsys.readouterr().err


@needs_pty
def test_the_questions_explain_themselves_and_take_address_and_port_at_once():
    with Window(80) as window:
        window.shows("IP [search this network]:")
        window.type("?\r")
        window.shows(where.IP_HELP[0][:60], "at that port,", "q ends.")
        window.type("127.0.0.1:6021\r")
        lines = window.shows("Name [")
        assert "Port [6020]:" not in lines  # it is known
        window.type("?\r")
        window.shows(where.NAME_HELP[0][:60])
        window.type("ana\r")
        window.shows("* joined ana's network")


@needs_pty
@pytest.mark.parametrize("answers", ["Q\r", "\r?\rquit\r", "\r\rq\r"])
def test_q_ends_it_at_the_questions(answers):
    with Window(40) as window:
        window.shows("IP [search this network]:")
        window.type(answers)
        assert window.end() == 0
