"""The house's laws: who may import whom, the standard library only, and nothing else at top level."""

import ast
import graphlib
import re
import subprocess
import sys

import pytest

from node_tests.stage.house import MODULES, PACKAGES, ROOT, WINGS, calls_of, imports_of, nodes_in, nodes_of

DISK = {name for name in MODULES if name.startswith("disk.")}  # who may touch files
CLIENT = {name for name in MODULES if name.startswith("prompt.")} | {"node_client"}  # who may talk to the person
SOCKETS = {name for name in MODULES if name.startswith("sockets.")}  # who may touch the network


def room_of(module):
    """`exchange` of `protocol.exchange.fetch`, `ground` of `protocol.messages`, else the first word."""
    first, *rest = module.split(".")
    if first != "protocol":
        return first
    return rest[0] if rest and rest[0] in WINGS else "ground"


DOORS = {
    "socket",
    "select",
    "selectors",
    "threading",
    "queue",
    "time",
    "os",
    "io",
    "pathlib",
    "shutil",
    "tempfile",
    "asyncio",
    "sqlite3",
    "subprocess",
    "ssl",
}
FORBIDDEN = {  # what a room's import list may not hold, from the standard library
    **dict.fromkeys(("ground", *WINGS, "peer", "supernode"), DOORS),
    "disk": {"socket", "select", "selectors", "threading", "asyncio", "subprocess"},
    "sockets": {"io", "pathlib", "shutil", "tempfile", "asyncio", "sqlite3", "subprocess", "ssl"},
    "rdt": DOORS - {"os", "time"},  # the environment, and how long a file took
}
MAY_IMPORT_SSL = {  # nobody else: a node of an open network never does
    "protocol.credentials",  # for its annotations
    "protocol.transport.veil",  # with no file and no socket: between buffers
    "disk.credentials",  # makes the contexts, which OpenSSL reads from files
}
HOUSE = {  # what of the house each room may import, besides its own; the order inside is held by the test for cycles
    "ground": set(),
    "content": {"ground"},
    "keys": {"ground"},
    "transport": {"ground"},
    "membership": {"ground", "content"},
    "ruling": {"ground", "content", "membership"},
    "exchange": {"ground", "content"},
    "sockets": {"ground", "transport"},
    "disk": {"ground", "content", "keys"},
    "prompt": {"ground", "content", "keys"},
    "peer": {"ground", "content", "membership", "exchange"},
    "supernode": {"ground", "content", "membership", "ruling"},
    "rdt": {"ground", "content", "transport", "sockets", "disk"},
}
DOCUMENTED = {
    "ground", "content", "keys", "transport", "membership", "ruling", "exchange", "sockets", "disk", "prompt", "peer",
    "supernode", "rdt",
}
HOUSE["node_client"] = {*HOUSE, "node_client"}
NEVER = {  # what a wing has no part in, though its room is allowed
    "content": {"protocol.messages"},
    "transport": {"protocol.messages", "protocol.results"},
    "rdt": {"protocol.messages"},
    "sockets": {"protocol.messages"},
}


def is_in(module, package):
    """Is it that one, or one of its rooms?"""
    return module == package or module.startswith(f"{package}.")


def test_imports_point_down_only():
    graph = {name: imports_of(path) & set(MODULES) - {name} for name, path in MODULES.items()}
    list(graphlib.TopologicalSorter(graph).static_order())  # CycleError names the cycle


def test_a_room_imports_what_it_may():
    for name, path in MODULES.items():
        room = room_of(name)
        imported = imports_of(path)
        inside = imported & set(MODULES)
        assert {room_of(module) for module in inside} <= HOUSE[room] | {room}, (name, inside)
        assert not [module for module in inside for never in NEVER.get(room, ()) if is_in(module, never)], name
        doors = {module.split(".")[0] for module in imported} - ({"ssl"} if name in MAY_IMPORT_SSL else set())
        assert not doors & (FORBIDDEN.get(room, set()) | {"ssl"}), name


def test_messages_are_taken_from_their_table():
    """So all say `messages.Join`, in whichever file it stands; only those files know each other."""
    for path in (*MODULES.values(), *(ROOT / "node_tests").rglob("*.py")):
        if path.parent != ROOT / "protocol" / "messages":
            assert not [name for name in imports_of(path) if name.startswith("protocol.messages.")], path


@pytest.mark.skipif(not hasattr(sys, "stdlib_module_names"), reason="Python 3.10 lists its modules")
def test_only_the_standard_library_is_needed():
    for name, path in MODULES.items():
        outside = {module.split(".")[0] for module in imports_of(path) - set(MODULES)} - set(PACKAGES)
        assert outside <= set(sys.stdlib_module_names), name


def test_only_the_client_prints_and_asks():
    for name in sorted(set(MODULES) - CLIENT):
        assert not calls_of(MODULES[name]) & {"print", "input"}, name


def test_only_the_client_and_the_transport_make_threads():
    """The file verbs have one for digests beside a file that is read or written, and nothing else runs on it."""
    for name in sorted(set(MODULES) - CLIENT - {"sockets.thread"}):
        made = calls_of(MODULES[name]) & {"threading.Thread", "Thread", "ThreadPoolExecutor"}
        assert made <= ({"ThreadPoolExecutor"} if name == "disk.sequential" else set()), name


@pytest.mark.parametrize("name", ["rdt", "sockets.udp"])
def test_the_transport_asks_the_system_for_its_environment_only(name):
    attributes = [node for node in nodes_of(MODULES[name]) if isinstance(node, ast.Attribute)]
    used = {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id == "os"}
    assert used == {"environ"}


def test_only_the_library_opens_files():
    for name in sorted(set(MODULES) - CLIENT - DISK):
        assert not calls_of(MODULES[name]) & {"open", "io.open", "os.open"}, name


def test_no_method_is_found_by_a_string():
    """So that "go to definition" follows every message, command and alarm; `os` and `signal` differ by system."""
    for name, path in MODULES.items():
        assert "__getattr__" not in {node.name for node in nodes_of(path) if isinstance(node, ast.FunctionDef)}, name
        assert not calls_of(path) & {"methodcaller", "operator.methodcaller", "attrgetter", "globals"}, name
        calls = [node for node in nodes_of(path) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
        looks = [node for node in calls if node.func.id in ("getattr", "setattr")]
        of_roles = [node for node in looks if ast.unparse(node.args[0]) not in ("os", "signal")]
        assert all(isinstance(node.args[1], ast.Constant) for node in of_roles), name


# What a file may assign though no class of it declares that name, by the file and the target, each with its reason.
ASSIGNED = {
    "disk.credentials": {  # how `ssl` wants its contexts to be set
        "context.check_hostname", "context.verify_mode", "context.minimum_version", "server.num_tickets"},
    "node_client": {"logging.raiseExceptions", "sys.unraisablehook", "threading.excepthook"},  # Python's own hooks
    "prompt.shortage": {"sys.excepthook"},  # the same
    "prompt.editing": {"self._hook_pointer.value", "self._signal_hook.value", "self._point.value",
                       "self._erase_empty.value"},  # C variables
    "protocol.mishaps": {"record.msg", "record.args"},  # a filter of `logging` may change what it lets pass
}


def is_named(node, *names):
    """Is it one of these names, and nothing more?"""
    return isinstance(node, ast.Name) and node.id in names


def declared_in(nodes):
    """The attributes that the classes of a file have by their own methods, or as fields."""
    for node in nodes:
        if isinstance(node, ast.ClassDef):
            yield from (field.target.id for field in node.body if isinstance(field, ast.AnnAssign))
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_named(node.value, "self"):
            yield node.attr


def assigned_from_outside(nodes):
    """What a file assigns of objects whose classes stand in other files."""
    declared = set(declared_in(nodes))
    for node in nodes:
        is_assigned = isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load)
        if is_assigned and node.attr not in declared and not is_named(node.value, "self", "cls"):
            yield ast.unparse(node)


def test_state_is_changed_by_its_owner_only():
    """Others call a verb of it. A table may write the rows that it alone has: their class stands in the same file."""
    for name, path in MODULES.items():
        assert set(assigned_from_outside(nodes_of(path))) == ASSIGNED.get(name, set()), name


def test_an_assignment_from_outside_is_found_however_it_is_written():
    own = "class Row:\n    def __init__(self):\n        self.at = 0\n"
    for line in ("b.limit = 1", "a.b.limit += 1", "b[0].limit: int = 1", "x, (y, b.limit) = z", "del b.limit"):
        assert len(list(assigned_from_outside(nodes_in(own + line)))) == 1, line
    for line in ("row.at = 1", "limit = 1", "b[0] = 1", "b.limit()"):
        assert not list(assigned_from_outside(nodes_in(own + line))), line


TIMERS = {"on_timer", "next_deadline"}  # as `Part` in peer.py has them, and every phase and table


def without_a_docstring(tree):
    """Public functions and methods of more than one line that do not say what they do; contracts aside."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    rooms = [one for one in classes if not any("Protocol" in ast.unparse(base) for base in one.bases)]
    for node in (node for room in (tree, *rooms) for node in room.body if isinstance(node, ast.FunctionDef)):
        is_told = node.name.startswith("_") or node.name in TIMERS or ast.get_docstring(node) is not None
        if not is_told and node.end_lineno > node.body[0].lineno:
            yield node.name


def test_what_others_call_says_what_it_does():
    """With its units, and what it raises; what is one line says it by itself."""
    for name in (name for name in MODULES if room_of(name) in DOCUMENTED):
        assert not list(without_a_docstring(nodes_of(MODULES[name])[0])), name


def test_a_missing_docstring_is_found():
    body = "        a()\n        b()\n"
    names = ("add", "_take", "on_timer")
    silent = "class Row:\n" + "".join(f"    def {name}(self):\n{body}" for name in names)
    assert list(without_a_docstring(ast.parse(silent))) == ["add"]
    told = silent.replace("add(self):\n", "add(self):\n        'One more.'\n")
    for source in (told, silent.replace("Row", "Row(Protocol)")):
        assert not list(without_a_docstring(ast.parse(source))), source


def test_top_level_holds_what_the_design_names():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    top = {line.split("/")[0] for line in tracked.stdout.splitlines()}
    assert top <= {
        *("node_client.py", "supernode.py", "peer.py", "rdt.py", "prompt", "protocol", "disk", "sockets"),
        "node_tests",
        *("README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", ".ci", ".gitignore"),
    }


def rooms_in_the_readme():
    """The files that the README's tree names, by their paths."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = text.split("<!-- rooms: begin -->")[1].split("<!-- rooms: end -->")[0]
    folders = []
    for line in tree.strip("\n").splitlines():
        depth = (len(line) - len(line.lstrip()) - 4) // 2
        name = line.split()[0]
        del folders[depth:]
        if name.endswith("/"):
            folders.append(name)
        else:
            yield "".join(folders) + name


def test_the_readme_names_every_room_and_no_other():
    files = sorted(str(path.relative_to(ROOT).as_posix()) for path in MODULES.values())
    assert sorted(rooms_in_the_readme()) == files


def steps_to_read():
    """The files of each step in which the README says to read the program."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("### In which order to read it")[1].split("###")[0]
    folder = ""
    for step in re.findall(r"^\d\. .+", text, re.M):
        named = []
        for name in re.findall(r"`([\w/]+\.py)`", step):
            folder = name.rpartition("/")[0] or folder * (not (ROOT / name).exists())
            named.append(ROOT / folder / name.rpartition("/")[2])
        yield named


def test_what_the_readme_says_to_read_is_there():
    named = [path for step in steps_to_read() for path in step]
    assert len(named) > 15 and all(path.exists() for path in named), named


def test_the_steps_to_read_are_as_long_as_the_readme_says():
    steps = [sum(path.read_bytes().count(b"\n") for path in step) for step in steps_to_read()]
    assert len(steps) == 6 and max(steps) < 2_400


PARSERS = {"json", "pickle", "marshal", "shelve", "xml", "ast", "plistlib", "configparser", "gzip", "bz2", "lzma"}


def test_what_comes_from_others_meets_no_general_parser():
    """C04, C08: nothing nests, no number is text, nothing is decompressed: there is no depth or bomb to guard against.

    `zlib` is there for its CRC alone.
    """
    for name in [name for name in MODULES if name.startswith("protocol.")] + ["peer", "supernode"]:
        assert not {module.split(".")[0] for module in imports_of(MODULES[name])} & PARSERS, name
        calls = calls_of(MODULES[name])
        assert not {call for call in calls if call in ("eval", "exec") or "decompress" in call}, name
