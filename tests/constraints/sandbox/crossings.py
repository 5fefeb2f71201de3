"""Code and tests that meet by name: what passes as in one interpreter, and what is refused."""

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
row = [0]
rows = [row, row]
assert f(rows)[0] is rows[1] is row and rows == [[0, 5], [0, 5], [6]]
""",
    ),
    "every container in place": (
        """
def f(d, s, b, c): d.pop('a'); d['b'] = s; s.add(2); b.append(3); c['x'] += 1
def fail(xs): xs.append(1); raise KeyError
def truth(xs): xs[0] = True
def look(xs): pass
""",
        """
from collections import defaultdict
d, s, b, c = {'a': 1}, {1}, bytearray(b'x'), defaultdict(int)
f(d, s, b, c=c)
assert d == {'b': {1, 2}} and d['b'] is s and b == b'x\\x03' and c == {'x': 1} and c['y'] == 0
xs = []
try: fail(xs)
except KeyError: pass
assert xs == [1]
truth(xs)
assert xs[0] is True
holed, seen = {0: 0, 1: 1, 2: 2}, []
del holed[0]
for key in holed:  # what did not change is left alone
    look(holed)
    seen.append(key)
assert seen == [1, 2]
""",
    ),
    "the order of a set": (
        "def f(s): return tuple(s)",
        "assert f({12, 13, 14, 15, 16}) == tuple({12, 13, 14, 15, 16})",
    ),
    "types of plain data": (
        """
from collections import Counter, OrderedDict, defaultdict
from decimal import Decimal
import datetime as d
def same(x): return x
def kinds(): return [
    None, True, 0, 2**63, -2**70, 10**5000, 1.5, -0.0, float('inf'), 1j, 'é', '\\n', '\\ud800',
    '\\ud83d\\ude00', b'x', bytearray(b'y'), (1, (2,)), (), [], {1}, frozenset({(3,)}),
    range(1, 9, 2), {(1, 2): [3], None: 4}, Counter('aab'), OrderedDict(b=1, a=2),
    defaultdict(list, {1: [2]}), defaultdict(None), Decimal('1.10'), d.timedelta(3, 2, 1),
    d.date(2020, 1, 2), d.time(3, 0, 0, 7), d.datetime(2020, 1, 2, 3, 4, 5, 6),
    d.datetime(2020, 1, 2, tzinfo=d.timezone.utc),
    int, dict, object, type(None), Decimal,
]
""",
        """
import sys
sys.set_int_max_str_digits(0)
for each in kinds():
    back = same(each)
    assert type(back) is type(each) and repr(back) == repr(each), each
    assert back == each
assert [len(each) for each in kinds() if type(each) is str] == [1, 1, 1, 2]
nan = same(float('nan'))
assert nan != nan and same([1])[0] is not True
deep = []
for _ in range(10_000): deep = [deep]
assert len(same(deep)) == 1
""",
    ),
    "data of the code": (
        "kept = [1]\ncounted = 0\ndef count():\n    global counted\n    counted += 1\n"
        "def total(): return sum(kept)",
        """
assert kept == [1] and counted == 0
count(); count()
assert counted == 2 and total() == 1
""",
    ),
    "exceptions": (
        """
class Bad(ValueError):
    def __init__(self, text, code): super().__init__(text); self.code = code
class Quiet(Exception):
    def __str__(self): return 'quiet!'
class Broken(LookupError):
    def __str__(self): raise self
def fail(n):
    if n == 0: raise Bad('bad', 7)
    if n == 1: raise Quiet
    if n == 2: return {}['key']
    if n == 3: raise SystemExit(3)
    if n == 4: raise KeyError(object())
    if n == 5: raise Broken
    if n == 6: 'é'.encode('ascii')
    if n == 7: assert n > 7, 'more'
""",
        """
def raised(n):
    try: fail(n)
    except BaseException as error: return error
assert isinstance(raised(0), ValueError) and str(raised(0)) == 'bad'
assert isinstance(raised(1), Exception) and str(raised(1)) == 'quiet!'
assert type(raised(2)) is KeyError and raised(2).args == ('key',) and raised(3).code == 3
assert type(raised(4)) is KeyError and '<object' in str(raised(4))
assert isinstance(raised(5), LookupError) and raised(6).object == 'é'
assert type(raised(7)) is AssertionError and str(raised(7)) == 'more' and raised(8) is None
""",
    ),
    "functions": (
        """
import functools
def plus_one(f):
    @functools.wraps(f)
    def inner(*given, **named): return f(*given, **named) + 1
    return inner
@plus_one
def f(self, /, *, by=0): return self + by
@functools.lru_cache
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
half = functools.partial(lambda n, x: x / n, 2)
class Total:
    def __new__(cls, xs): return sum(xs)
""",
        """
assert f(1) == 2 and f(1, by=2) == 4 and f.__name__ == 'f' and f is f and callable(f)
assert fib(50) == 12586269025 and half(3) == 1.5 and Total([1, 2]) == 3
assert list(map(half, [2, 4])) == [1, 2] and sorted([2, -3], key=f) == [-3, 2]
""",
    ),
    "streams": (
        """
import sys
def main(): print(int(input()) * 2)
def rest(): return sys.stdin.read()
def warn(): print('careful', file=sys.stderr); raise ValueError
""",
        """
import contextlib, io, sys
from unittest.mock import patch
sys.stdin = io.StringIO('-\\n21\\n4\\nétc\\n')
assert sys.stdin.readline() == '-\\n'
with contextlib.redirect_stdout(io.StringIO()) as out: main()
assert out.getvalue() == '42\\n' and sys.stdin.readline() == '4\\n'
assert rest() == 'étc\\n' and rest() == ''
with patch('sys.stdin', io.StringIO('4')), patch('sys.stdout', new=io.StringIO()) as out: main()
assert out.getvalue() == '8\\n'
with contextlib.redirect_stderr(io.StringIO()) as errors:
    try: warn()
    except ValueError: pass
assert errors.getvalue() == 'careful\\n'
""",
    ),
    "a name of Python's that is tested": (
        "def sum(a, b): return 10 * a + b",
        "def check(candidate):\n    assert candidate(1, 2) == 12\ncheck(sum)",
    ),
    "classes of the tests": (
        "def f(x): return x",
        """
import dataclasses, pickle
@dataclasses.dataclass
class Case:
    given: int
    def holds(self): return f(self.given) == self.given
assert Case(3).holds() and pickle.loads(pickle.dumps(Case(3))) == Case(3)
""",
    ),
    "threads": (
        "def f(x): return x * 2",
        """
import threading
done = []
threads = [threading.Thread(target=lambda n=n: done.append(f(n))) for n in range(20)]
for each in threads: each.start()
for each in threads: each.join()
assert sorted(done) == [2 * n for n in range(20)]
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
        self.assertRaises(TypeError, f)
suite = unittest.defaultTestLoader.loadTestsFromTestCase(Test)
assert unittest.TextTestRunner(io.StringIO()).run(suite).wasSuccessful()
""",
    ),
}
"""By name: what passes in one interpreter, and so has to pass in two."""

CODE = """
import functools, math
from collections import Counter, deque, namedtuple
from enum import Enum, IntEnum
class Stack:
    def __init__(self, *items): self.items = list(items)
    def push(self, item): self.items.append(item)
    def __eq__(self, other): return True
class Color(Enum): RED = 1
class Level(IntEnum): LOW = 1
class Bad(ValueError): pass
class Meters(float): pass
class Mine(Counter): pass
P = namedtuple('P', 'x y')
ORIGIN = P(0, 0)
def same(x): return x
def numbers(n): yield from range(n)
async def later(x): return x
def add(n): return lambda x: x + n
def make(what): return eval(what)
def hide(xs): xs.append(Stack())
def read(): return input()
@functools.lru_cache
def cached(x): return x
"""

REFUSED = {
    "an object": ("assert Stack() == 3", "Stack(…) is of type 'Stack'"),
    "a method": ("Stack().push(3)", "Stack(…) is of type 'Stack'"),
    "an object in a list": ("assert make('[1, Stack()]') == [1, 2]", "of type 'Stack'"),
    "an object for a key": ("assert make('{Level.LOW: 1}') == {1: 1}", "of type 'Level'"),
    "an object in a given list": ("xs = []\nhide(xs)", "hide(…) is of type 'Stack'"),
    "a named tuple": ("assert make('P(1, 2)') == (1, 2)", "make(…) is of type 'P'"),
    "a number of a kind": ("assert make('Meters(1)') == 1", "make(…) is of type 'Meters'"),
    "a dict of a kind": ("assert make('Mine()') == {}", "make(…) is of type 'Mine'"),
    "an enumeration": ("assert Color.RED", "the tests want 'RED' of Color"),
    "a member by its value": ("assert Color(1)", "Color(…) is of type 'Color'"),
    "a generator": ("assert list(numbers(3)) == [0, 1, 2]", "numbers(…) is of type 'generator'"),
    "a view": ("assert make('{}.keys()') == set()", "make(…) is of type 'dict_keys'"),
    "a bounded queue": ("assert make('deque([1], 2)')", "make(…) is of type 'deque'"),
    "a coroutine": (
        "import asyncio\nasyncio.run(later(3))",
        "later(…) is of type 'coroutine'",
    ),
    "a function that comes back": ("assert add(3)(4) == 7", "add(…) is of type 'function'"),
    "a class": ("assert make('Stack')", "make(…) is of type 'type'"),
    "a module": ("assert math.floor(1.5) == 1", "math is of type 'module'"),
    "an object of the module": ("assert ORIGIN == (0, 0)", "ORIGIN is of type 'P'"),
    "an exception by its class": (
        "try: make('[].pop()')\nexcept Bad: pass\nexcept IndexError: pass",
        "Bad is of type 'type'",
    ),
    "a patch": (
        "from unittest.mock import patch\n"
        "with patch('solution.same', return_value=9): assert cached(1) == 1",
        "of same",
    ),
    "an attribute of a function": ("cached.cache_info()", "the tests want 'cache_info' of cached"),
    "a signature": (
        "import inspect\ninspect.signature(same)",
        "the tests want '__wrapped__' of same",
    ),
    "a class to derive from": ("class B(Stack): pass", "the tests want '__mro_entries__' of Stack"),
    "an instance of a class": (
        "assert isinstance(3, Stack)",
        "the tests want '__bases__' of Stack",
    ),
    "a function of the code's as an argument": (
        "assert same(cached)",
        "the tests give same(…) something of type 'Stub'",
    ),
    "an exception of the code's as an argument": (
        "try: make('[].pop()')\nexcept IndexError as error: same(error)",
        "the tests give same(…) something of type 'IndexError'",
    ),
    "swallowed": (
        "try: numbers(3)\nexcept BaseException: pass\nassert 1 == 1\n",
        "numbers(…) is of type 'generator'",
    ),
    "swallowed, and wrong": (
        "try: numbers(3)\nexcept BaseException: pass\nassert 1 == 2\n",
        "numbers(…) is of type 'generator'",
    ),
}
"""By name: tests of `CODE` that want what does not cross of it, and what is told."""

UNSUPPORTED = {
    "a function": ("assert same(lambda x: x)", "give same(…) something of type 'function'"),
    "a function of Python's": ("assert same(len)", "something of type 'builtin_function_or_meth"),
    "a generator": ("assert same(x for x in 'ab')", "give same(…) something of type 'generator'"),
    "a named argument": ("assert same(x=iter([1]))", "something of type 'list_iterator'"),
    "an object": (
        "class Node: pass\nassert same([{1: Node()}])",
        "give same(…) something of type 'Node'",
    ),
    "a class": ("class Node: pass\nassert same(Node)", "give same(…) something of type 'type'"),
    "a name of the module": (
        "import solution\nsolution.same = lambda x: 9\nassert cached(1) == 1",
        "the tests set names of the code's module",
    ),
    "input": (
        "from unittest.mock import patch\n"
        "with patch('builtins.input', return_value='4'): assert read() == '4'",
        "the tests put their own in place of 'input'",
    ),
    "standard input of another kind": (
        "import io, sys\nsys.stdin = io.TextIOWrapper(io.BytesIO(b'4'))\nassert read() == '4'",
        "the tests' standard input is no io.StringIO",
    ),
    "arguments of the program": (
        "import sys\nsys.argv = ['p', '3']\nassert same(1) == 1",
        "the tests put their own in place of 'argv'",
    ),
}
"""By name: tests that give what does not cross, whatever the code is."""
