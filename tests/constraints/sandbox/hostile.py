"""Hostile programs: each sets `won` where its attack succeeded, and the tests assert `won`.

Names in capitals are filled in: VICTIM a folder of the host, with `secret.txt` and room to write;
HOME, SOURCES, PARENT (two folders, a process id); PORT and SOCKET_FILE, which listen.
"""

TESTS = "assert won"

PROGRAMS: dict[str, str] = {
    # --- exhaust the machine
    "fork bomb": """
import os
while True:
    try: os.fork()
    except OSError: pass
""",
    "threads without end": """
import threading, time
while True:
    try: threading.Thread(target=time.sleep, args=(60,)).start()
    except RuntimeError: pass
""",
    "fill memory": "x = []\nwhile True: x.append(bytearray(2**22))",
    "fill memory, swallow the error": """
x = []
while True:
    try: x.append(bytearray(2**22))
    except MemoryError: pass
""",
    "map memory": """
import mmap
x = []
while True: x.append(mmap.mmap(-1, 2**24)); x[-1].write(b'x' * 2**24)
""",
    "share memory among children": """
import os, time
for _ in range(10):
    if not os.fork():
        x = bytearray(90 * 2**20)
        for i in range(0, len(x), 4096): x[i] = 1
        time.sleep(60)
time.sleep(60)
""",
    "one huge file": """
with open('big', 'wb') as f:
    for _ in range(1024): f.write(bytes(2**20))
won = True
""",
    "many files": """
for i in range(1024):
    with open(f'big{i}', 'wb') as f: f.write(bytes(2**20))
won = True
""",
    "memory files": """
import os
held = []
for i in range(16):
    held.append(os.memfd_create(str(i)))
    for _ in range(15): os.write(held[-1], bytes(2**20))
won = True
""",
    "open files without end": """
held = []
while len(held) < 1000: held.append(open('/dev/null'))
won = True
""",
    "print without end": "while True: print('x' * 1000)",
    "print errors without end": """
import sys
while True: sys.stderr.write('x' * 1000)
""",
    "unpack a bomb": """
import zlib
d = zlib.compress(bytes(2**24))
x = [zlib.decompress(d) for _ in range(100)]
won = True
""",
    "huge integer": "won = 9 ** 9 ** 9 > 0",
    "recursion": "def f(): return f()\nwon = f()",
    "recursion in C": "won = eval('(' * 10**6 + ')' * 10**6)",
    # --- never end
    "busy loop": "while True: pass",
    "busy loop in C": "won = sum(iter(int, 1)) == 0",
    "sleep": "import time\ntime.sleep(3600)\nwon = True",
    "swallow signals": """
import signal
for s in range(1, 65):
    try: signal.signal(s, signal.SIG_IGN)
    except (OSError, ValueError): pass
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
while True: pass
""",
    "swallow every exception": """
while True:
    try:
        while True: pass
    except BaseException: pass
""",
    "daemon": """
import os, time
if not os.fork():
    os.setsid()
    if not os.fork():
        for fd in range(20):
            try: os.close(fd)
            except OSError: pass
        while True: time.sleep(1)
    os._exit(0)
""",
    "wait for input": "won = input() is not None",
    # --- get out
    "read the environment": "import os\nwon = 'TILTUNE_SECRET' in os.environ",
    "read the environments of others": """
import glob
won = False
for name in glob.glob('/proc/[0-9]*/environ'):
    try: won |= b'TILTUNE_SECRET' in open(name, 'rb').read()
    except OSError: pass
""",
    "read a file": "won = 'hush' in open('VICTIM/secret.txt').read()",
    "read the tests' own folder": "import os\nwon = bool(os.listdir('SOURCES'))",
    "write a file": "open('VICTIM/new', 'w').write('x')\nwon = True",
    "write over a file": "open('VICTIM/secret.txt', 'w').write('x')\nwon = True",
    "write into the home": "open('HOME/.tiltune-hostile', 'w').write('x')\nwon = True",
    "write into the temporary folder": "open('/tmp/tiltune-hostile', 'w').write('x')",
    "write into the sources": "open('SOURCES/hostile.py', 'w').write('x')\nwon = True",
    "write into the standard library": """
import os
open(os.path.dirname(os.__file__) + '/hostile.py', 'w').write('x')
won = True
""",
    "follow a link out": """
import os
os.symlink('VICTIM', 'link')
open('link/new', 'w').write('x')
won = True
""",
    "climb out of the root": """
import os
for path in ('../' * 20 + 'VICTIM', '/proc/1/root/VICTIM', '/proc/self/cwd/../VICTIM'):
    try: won = bool(os.listdir(path))
    except OSError: pass
""",
    "change permissions": "import os\nos.chmod('VICTIM/secret.txt', 0o777)\nwon = True",
    "change times": "import os\nos.utime('VICTIM/secret.txt', (0, 0))\nwon = True",
    "remove a file": "import os\nos.unlink('VICTIM/secret.txt')\nwon = True",
    "kill the parent": "import os\nos.kill(PARENT, 9)\nwon = True",
    "kill all": "import os\nos.kill(-1, 9)\nos.kill(os.getppid(), 9)",
    "kill the process group": "import os\nos.killpg(os.getpgid(PARENT), 9)\nwon = True",
    "limit the parent": """
import resource
resource.prlimit(PARENT, resource.RLIMIT_NOFILE, (3, 3))
won = True
""",
    "raise its own limits": """
import resource
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
won = True
""",
    "trace the parent": """
import ctypes
won = ctypes.CDLL(None).ptrace(16, PARENT, 0, 0) == 0
""",
    "connect": """
import socket
socket.create_connection(('127.0.0.1', PORT), 1).send(b'x')
won = True
""",
    "send a datagram": """
import socket
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT))
won = True
""",
    "connect to a socket file": """
import socket
s = socket.socket(socket.AF_UNIX)
s.connect('SOCKET_FILE')
s.send(b'x')
won = True
""",
    "new namespaces": """
import ctypes
won = ctypes.CDLL(None).unshare(0x10000000) == 0 or ctypes.CDLL(None).syscall(56, 0x10000011) > 0
""",
    "mount": """
import ctypes, os
won = ctypes.CDLL(None).mount(b'none', os.getcwd().encode(), b'tmpfs', 0, None) == 0
""",
    "become root": "import os\nos.setuid(0)\nos.setgroups([0])\nwon = True",
    "execute another program": """
import subprocess
won = bool(subprocess.run(['/bin/sh', '-c', 'echo x'], capture_output=True).stdout)
""",
    "execute in its own place": "import os\nos.execv('/bin/true', ['true'])",
    "execute an interpreter": "import os, sys\nos.execv(sys.executable, ['p', '-c', 'pass'])",
    # --- pass without passing
    "exit": "raise SystemExit(0)",
    "exit at once": "import os\nos._exit(0)",
    "exit when tested": """
import os
class Won:
    def __bool__(self): os._exit(0)
won = Won()
""",
    "exit at exit": "import atexit, os\natexit.register(os._exit, 0)",
    "exit by an own exception": """
class Quiet(BaseException):
    __str__ = None
    def __repr__(self): raise Quiet
raise Quiet
""",
    "print verdicts": "print('pass')\nprint('[\"secret\"]')\nprint('all tests pass')",
    "speak verdicts": """
import os
for fd in range(3, 64):
    for line in (b'["passed", ""]', b'["ready"]', b'["passed"]', b'pass'):
        try: os.write(fd, line + b'\\n')
        except OSError: pass
""",
    "speak without end": """
import os
for fd in range(3, 64):
    try:
        while True: os.write(fd, b'x' * 65536)
    except OSError: pass
""",
    # the protocol of a harness that ran code and tests in one interpreter
    "speak as the harness once did": """
import json, os
os.write(4, b'["code"]\\n')
tests, nonce = json.loads(os.read(3, 10**6))
os.write(4, json.dumps(['tests', nonce]).encode() + b'\\n')
os.write(4, json.dumps(['secret', *json.loads(os.read(3, 10**6))]).encode() + b'\\n')
won = False
""",
    "answer before being asked": """
import os
for fd in range(3, 64):
    for number in range(1, 20):
        line = b'{"id": %d, "how": "value", "value": true, "heap": [], "streams": {}}\\n' % number
        try: os.write(fd, line)
        except OSError: break
won = False
""",
    "answer what was asked, and what will be": """
import sys
frame = sys._getframe()
while 'asked' not in frame.f_locals: frame = frame.f_back
asked = frame.f_locals['asked']
while 'peer' not in frame.f_locals: frame = frame.f_back
for _ in range(9):
    answer = {'id': asked['id'], 'how': 'value', 'value': True, 'heap': [], 'streams': {}}
    frame.f_locals['peer'].say(answer)
won = False
""",
    "answer twice": """
import sys
frame = sys._getframe()
while frame and 'peer' not in frame.f_locals: frame = frame.f_back
peer, write = frame.f_locals['peer'], frame.f_locals['peer'].write
peer.write = lambda line: write(line + line)
won = False
""",
    "answer with a huge line": """
import sys
frame = sys._getframe()
while frame and 'peer' not in frame.f_locals: frame = frame.f_back
write = frame.f_locals['peer'].write
while True: write(b'[' * 2**20)
""",
    "answer with a deep line": """
import sys
frame = sys._getframe()
while frame and 'peer' not in frame.f_locals: frame = frame.f_back
frame.f_locals['peer'].write(b'[' * 10**6 + b'\\n')
won = False
""",
    "look into the judge": """
import ctypes, glob, os
won, judge = False, os.getppid()
paths = [f'/proc/{judge}/{name}' for name in ('mem', 'fd/3', 'fd/4', 'environ', 'maps', 'root/tmp')]
for path in paths + glob.glob(f'/proc/{judge}/fd/*') + glob.glob(f'/proc/{judge}/task/*/mem'):
    for mode in ('rb', 'wb'):
        try: open(path, mode).close(); won = True
        except OSError: pass
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(8)
vector = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)
won |= libc.ptrace(16, judge, 0, 0) == 0
won |= libc.process_vm_readv(judge, vector, 1, vector, 1, 0) > 0
won |= libc.syscall(438, os.pidfd_open(judge), 3, 0) >= 0
""",
    "kill the judge": "import os\nos.kill(os.getppid(), 9)\nwon = True",
    "stop the judge": "import os\nos.kill(os.getppid(), 19)\nwon = True",
    "interrupt the judge": """
import os, time
for _ in range(100): os.kill(os.getppid(), 2); time.sleep(0.001)
won = True
""",
    "end and go on in a child": "import os\nif os.fork(): os._exit(0)\nwon = False",
    "close all descriptors": "import os\nos.closerange(0, 1000)",
    "search frames and memory": """
import gc, re, sys, os
frame, found = sys._getframe(), []
while frame:
    found += [frame.f_locals, frame.f_globals, frame.f_code.co_consts]
    frame = frame.f_back
texts = set(re.findall('[0-9a-f]{64}', repr(found) + repr(gc.get_objects()) + repr(os.environ)))
for text in texts:
    for fd in range(3, 64):
        try: os.write(fd, f'["passed", "{text}"]\\n'.encode())
        except OSError: pass
""",
    "search its own memory": """
import os, re
for area in open('/proc/self/maps'):
    if 'rw-p' not in area: continue
    low, high = (int(x, 16) for x in area.split()[0].split('-'))
    with open('/proc/self/mem', 'rb', 0) as memory:
        try: memory.seek(low); data = memory.read(high - low)
        except (OSError, ValueError, OverflowError): continue
    for text in set(re.findall(rb'[0-9a-f]{64}', data)):
        for fd in range(3, 64):
            try: os.write(fd, b'["passed", "' + text + b'"]\\n')
            except OSError: pass
""",
    "patch builtins": """
import builtins
builtins.AssertionError = KeyError
builtins.exec = builtins.compile = builtins.eval = lambda *a, **k: None
builtins.bool = lambda x: True
""",
    "patch modules": """
import os, json, sys, _ast
os.write = os.read = os._exit = json.loads = json.dumps = lambda *a, **k: b''
sys.modules.clear()
_ast.Assert = None
""",
    "rewrite the harness": """
import __main__, types
for name, value in list(vars(__main__).items()):
    if isinstance(value, types.FunctionType): value.__code__ = (lambda *a, **k: None).__code__
""",
    "replace standard output": """
import sys
class Out:
    def write(self, text): raise SystemExit(0)
    def flush(self): raise SystemExit(0)
sys.stdout = sys.stderr = sys.__stdout__ = Out()
print('x')
""",
    "trace function": """
import sys, threading
def skip(*a): raise SystemExit(0)
threading.settrace(skip)
sys.settrace(skip); sys.setprofile(skip)
""",
    "thread that exits": """
import threading, os
threading.Thread(target=os._exit, args=(0,)).start()
""",
    "crash": "import ctypes\nctypes.string_at(0)",
    "crash by faulthandler": "import faulthandler\nfaulthandler._sigsegv()",
    "abort": "import os\nos.abort()",
    "no Python": "this is no Python",
    "null bytes and half characters": "x = '\\ud800\\x00'\nprint(x)\n\x00",
}

REAL = (
    "read the environments of others",
    "read a file",
    "read the tests' own folder",
    "write a file",
    "write over a file",
    "follow a link out",
    "climb out of the root",
    "change permissions",
    "change times",
    "remove a file",
    "limit the parent",
    "connect",
    "send a datagram",
    "connect to a socket file",
    "execute another program",
)
"""Attacks that succeed where there are no walls, and can be let loose without harm."""
