"""Code and tests that pass in one interpreter, and so have to pass in two: by name."""

CROSSINGS = {
    "in place": (
        "def f(xs): xs[0].append(5); xs.append([6]); return xs",
        """
first, xs = [1], []
xs += [first, 2]
assert f(xs) is xs and xs == [[1, 5], 2, [6]] and xs[0] is first
ys = []
ys.append(ys)
assert f(ys) is ys and ys[0] is ys and ys[1] == 5
""",
    ),
    "the order of a set": (
        "def f(s): return tuple(s)",
        "assert f({12, 13, 14, 15, 16}) == tuple({12, 13, 14, 15, 16})",
    ),
    "every container in place": (
        "def f(d, s, b, q): d.pop('a'); d['b'] = s; s.add(2); b.append(3); q.append(4)",
        """
from collections import deque
d, s, b, q = {'a': 1}, {1}, bytearray(b'x'), deque([1], maxlen=1)
f(d, s, b, q)
assert d == {'b': {1, 2}} and d['b'] is s and b == b'x\\x03' and q == deque([4])
""",
    ),
    "what is read is the code's own until the next call": (
        "kept = [1]\ndef total(): return sum(kept)",
        "kept.append(2)\nassert total() == 3\nkept[0] = 5\nassert total() == 7",
    ),
    "types of plain data": (
        """
from collections import Counter, OrderedDict, defaultdict, deque
from decimal import Decimal
from fractions import Fraction
import datetime as d
def same(x): return x
def kinds(): return [
    None, True, 0, 2**63, -2**70, 1.5, -0.0, float('inf'), 1j, 'é', '\\ud800', '\\ud83d\\ude00',
    b'x', bytearray(b'y'), (1, (2,)), [], {1}, frozenset({(3,)}), {(1, 2): [3], None: 4},
    range(1, 9, 2),
    slice(1, None), ..., NotImplemented, Counter('aab'), OrderedDict(b=1, a=2), deque([1, 2], 3),
    defaultdict(list, {1: [2]}), Fraction(1, 3), Decimal('1.10'), d.date(2020, 1, 2), d.time(3),
    d.datetime(2020, 1, 2, tzinfo=d.timezone.utc), d.timedelta(3), int, ValueError, {}.keys(),
]
""",
        """
for each in kinds():
    back = same(each)
    assert type(back) is type(each) and repr(back) == repr(each), each
    assert back is each or back == each
nan = same(float('nan'))
assert nan != nan and same([1])[0] is not True and same({1: 2}.items()) == {1: 2}.items()
assert kinds()[-1] == {}.keys() and kinds()[26][5] == []
deep = []
for _ in range(10_000): deep = [deep]
assert len(same(deep)) == 1
""",
    ),
    "objects": (
        """
class Stack:
    size = 3
    def __init__(self, *items): self.items = list(items)
    def push(self, item, *, times=1): self.items += [item] * times
    def __len__(self): return len(self.items)
    def __iter__(self): return iter(self.items)
    def __contains__(self, item): return item in self.items
    def __getitem__(self, i): return self.items[i]
    def __setitem__(self, i, item): self.items[i] = item
    def __repr__(self): return f'Stack{tuple(self.items)}'
    def __eq__(self, other): return isinstance(other, Stack) and self.items == other.items
    def __lt__(self, other): return len(self) < len(other)
    def __hash__(self): return 1
    def __add__(self, other): return Stack(*self.items, *other.items)
    def __mul__(self, times): return Stack(*self.items * times)
    def __enter__(self): return self
    def __exit__(self, *raised): self.push(None)
    def __call__(self, x): return x
    @property
    def top(self): return self.items[-1]
    @classmethod
    def of(cls, n): return cls(*range(n))
class Small(Stack): pass
""",
        """
s = Stack(1)
s.push([2], times=2)
assert len(s) == 3 and list(s) == [1, [2], [2]] and 1 in s and 7 not in s and s[-1] == [2]
assert repr(s) == str(s) == f'{s}' == 'Stack(1, [2], [2])'
s[1] = 9
assert s.items == [1, 9, [2]] and s.top == [2] and s(5) == 5
s.items = [4]
s.items.append(5)
assert s == Stack(4, 5) and s != Stack(4) and s != [4, 5] and Stack(1) < s and max(Stack(1), s) is s
assert (s + Stack(6)).items == [4, 5, 6] and (Stack(1) * 2).items == [1, 1]
with s as same: assert same is s
assert s.top is None and len({s, Stack(4, 5, None)}) == 1
assert isinstance(Small(), Stack) and not isinstance(s, Small) and issubclass(Small, Stack)
assert type(s) is Stack and Stack.__name__ == 'Stack' and Stack.of(2).items == [0, 1]
Stack.size = 4
assert s.size == 4 and hasattr(s, 'push') and not hasattr(s, 'pull') and callable(s.push)
assert s.__dict__ == {'items': [4, 5, None]} and not Stack()
import copy
assert copy.deepcopy(s) == s and copy.deepcopy(s) is not s and copy.copy(s).items == s.items
try: s < 3
except TypeError: pass
else: assert False
""",
    ),
    "classes of plain types": (
        """
from collections import namedtuple
from dataclasses import dataclass
from enum import Enum, IntEnum
P = namedtuple('P', 'x count')
class Color(Enum): RED = 1; BLUE = 2
class Level(IntEnum): LOW = 1; HIGH = 2
@dataclass(frozen=True, order=True)
class D: a: int; b: int = 2
class Meters(float):
    def __add__(self, other): return Meters(float(self) + other)
class Doubling(dict):
    def __missing__(self, key): return key * 2
class Twice(list):
    def double(self): self.extend(list(self))
""",
        """
p = P(1, 2)
x, y = p
assert p == (1, 2) and (1, 2) == p and p != (1, 3) and p.x == 1 and p.count == 2 and y == 2
assert isinstance(p, tuple) and repr(p) == 'P(x=1, count=2)' and p._replace(x=5) == (5, 2)
assert Color.RED is Color(1) and Color['BLUE'].value == 2 and len(Color) == 2 and Color.RED != 1
assert [each.name for each in Color] == ['RED', 'BLUE'] and {Color.RED: 3}[Color.RED] == 3
assert Level.LOW == 1 and Level.HIGH > 1 and Level.LOW + 1 == 2 and isinstance(Level.LOW, int)
assert D(1) == D(1, 2) and D(1) < D(2) and repr(D(1)) == 'D(a=1, b=2)' and len({D(1), D(1)}) == 1
assert Meters(1.5) + 1 == 2.5 and type(Meters(1) + Meters(2)) is Meters
d = Doubling(a=1)
d['z'] = 3
assert d == {'a': 1, 'z': 3} and d['b'] == 'bb' and list(d) == ['a', 'z'] and d.get('q') is None
t = Twice([1])
t.double()
t[0] = 9
assert t == [9, 1] and [9, 1] == t and len(t) == 2 and t + [3] == [9, 1, 3] and sorted(t) == [1, 9]
assert isinstance(t, list) and isinstance(d, dict)
""",
    ),
    "exceptions": (
        """
class Bad(ValueError):
    def __init__(self, text, code): super().__init__(text); self.code = code
class Quiet(Exception):
    def __str__(self): return 'quiet!'
def fail(n):
    if n == 0: raise Bad('bad', 7)
    if n == 1: raise Quiet
    if n == 2: return {}['key']
    if n == 3: raise SystemExit(3)
def call(back):
    try: return back()
    except KeyError as error: return error.args
""",
        """
import solution
def raised(n):
    try: fail(n)
    except BaseException as error: return error
bad = raised(0)
assert isinstance(bad, ValueError) and isinstance(bad, solution.Bad) and type(bad) is Bad
assert str(bad) == 'bad' and bad.args == ('bad',) and bad.code == 7
assert str(raised(1)) == 'quiet!' and raised(2).args == ('key',) and raised(3).code == 3
assert type(raised(2)) is KeyError
class Mine(Exception): pass
mine = Mine(1)
def back(): raise mine
try: call(back)
except Mine as error: assert error is mine
else: assert False
def back(): raise KeyError(5)
assert call(back) == (5,)
def back(): raise Bad('b', 1)
try: call(back)
except Bad as error: assert error.code == 1
""",
    ),
    "functions": (
        """
import functools
def add(n): return lambda x: x + n
def plus_one(f):
    @functools.wraps(f)
    def inner(*given): return f(*given) + 1
    return inner
@plus_one
def f(x): return x
def each(f, xs): return [f(x) for x in xs]
def eat(xs): return list(xs)
def count():
    global counted
    counted += 1
counted = 0
@functools.lru_cache
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
def endless():
    n = 0
    while True: n = (yield n) or n + 1
""",
        """
import inspect, types
assert add(3)(4) == 7 and f(1) == 2 and f.__name__ == 'f'
assert each(lambda x: x * 2, [1, 2]) == [2, 4] and each(str.upper, ['a']) == ['A']
assert each(each, []) == [] and each(f, [1]) == [2] and each(int, ['3']) == [3]
assert eat(i for i in range(3)) == [0, 1, 2] == eat(map(int, '012'))
count(); count()
assert counted == 2
assert fib(50) == 12586269025 and fib.cache_info().hits > 0
g = endless()
assert next(g) == 0 and next(g) == 1 and g.send(7) == 7 and iter(g) is g
assert inspect.isgenerator(g) and isinstance(f, types.FunctionType)
@plus_one
def mine(x): return x * 10
assert mine(1) == 11
class Mine:
    kept = f(4)
    @plus_one
    def ten(self): return 10
assert Mine().ten() == 11 and Mine.kept == 5
""",
    ),
    "asynchronous": (
        """
import asyncio
async def later(x): await asyncio.sleep(0.001); return x
async def some():
    for i in range(3): yield i
class Open:
    async def __aenter__(self): return 5
    async def __aexit__(self, *raised): pass
""",
        """
import asyncio, inspect
assert asyncio.run(later(3)) == 3 and inspect.iscoroutinefunction(later)
async def main():
    assert await asyncio.gather(later(1), later(2)) == [1, 2]
    assert [x async for x in some()] == [0, 1, 2]
    async with Open() as opened: assert opened == 5
asyncio.run(main())
""",
    ),
    "what tests put in Python's place": (
        "def main(): print(int(input()) * 2)\ndef helper(): return 1\ndef use(): return helper()",
        """
import contextlib, io, sys, solution
from unittest.mock import patch
sys.stdin = io.StringIO('21\\n')
with contextlib.redirect_stdout(io.StringIO()) as out: main()
assert out.getvalue() == '42\\n'
with patch('builtins.input', return_value='4'), patch('sys.stdout', new=io.StringIO()) as out:
    main()
assert out.getvalue() == '8\\n'
with patch('solution.helper', return_value=9): assert use() == 9
assert use() == 1
solution.helper = lambda: 7
assert use() == 7
""",
    ),
    "classes and modules of the tests": (
        """
def depth(node): return 1 + max(depth(node.left), depth(node.right)) if node else 0
def build(xs): return Node(xs[0], build(xs[1:])) if xs else None
def change(node): node.value = 100; return isinstance(node, Node)
def root(x): return math.sqrt(x)
""",
        """
import math
class Node:
    def __init__(self, value, left=None, right=None):
        self.value, self.left, self.right = value, left, right
assert depth(Node(1, Node(2))) == 2
built = build([1, 2, 3])
assert isinstance(built, Node) and built.left.left.value == 3
assert change(built) and built.value == 100 and root(4) == 2
""",
    ),
    "a name of Python's that is tested": (
        "def sum(a, b): return 10 * a + b",
        "def check(candidate):\n    assert candidate(1, 2) == 12\ncheck(sum)",
    ),
    "threads": (
        """
import threading
def apart(f):
    done = []
    threads = [threading.Thread(target=lambda n=n: done.append(f(n))) for n in range(5)]
    for each in threads: each.start()
    for each in threads: each.join()
    return sorted(done)
""",
        """
import threading
done = []
run = lambda: done.append(apart(lambda n: n * 2))
threads = [threading.Thread(target=run) for _ in range(3)]
for each in threads: each.start()
for each in threads: each.join()
assert done == [[0, 2, 4, 6, 8]] * 3
""",
    ),
    "unittest": (
        "def f(x): return x",
        """
import io, unittest
class Test(unittest.TestCase):
    def test_value(self): self.assertEqual(f([1]), [1])
    def test_raises(self):
        with self.assertRaises(TypeError): f()
suite = unittest.defaultTestLoader.loadTestsFromTestCase(Test)
assert unittest.TextTestRunner(io.StringIO()).run(suite).testsRun == 2
""",
    ),
}
