"""Programs whose `f` gives back what seems right to tests that believe it, and such tests."""

_ALWAYS = """
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __eq__
    def __bool__(self): return True
    def __hash__(self): return hash(8)
"""

CHEATS: dict[str, str] = {
    "equals everything": f"class A:{_ALWAYS}\ndef f(x): return A()",
    "a number that equals everything": f"class A(int):{_ALWAYS}\ndef f(x): return A()",
    "a list that equals everything": f"class A(list):{_ALWAYS}\ndef f(x): return A()",
    "a text that equals everything": f"class A(str):{_ALWAYS}\ndef f(x): return A()",
    "a class that equals everything": f"class M(type):{_ALWAYS}\nclass A(metaclass=M): pass\n"
    "def f(x): return A",
    "any of the standard library": "from unittest.mock import ANY\ndef f(x): return ANY",
    "a class of the standard library": "from unittest.mock import _ANY as A\ndef f(x): return A()",
    "nothing is far from it": f"""
class A:{_ALWAYS}
    def __sub__(self, other): return 0.0
    __rsub__ = __mod__ = __xor__ = __sub__
    def __abs__(self): return 0.0
    __float__ = __round__ = __abs__
def f(x): return A()
""",
    "it remembers what it was compared with": """
class A:
    def __init__(self, far=None): self.far = far
    def __sub__(self, other): return A(0.0)
    __rsub__ = __sub__
    def __abs__(self): return self.far
    def __float__(self): return self.far
    def __round__(self, n=0): return self.far
def f(x): return A()
""",
    "it comes out as another number": """
class Z(float): pass
class A:
    def __sub__(self, other): return Z(0)
    __rsub__ = __sub__
def f(x): return A()
""",
    "Python's own functions are its own": """
abs = len = round = all = any = set = isinstance = lambda *a: 0
class AssertionError(Exception): pass
def f(x): return 0
""",
    "it reads what the tests expect": "expected = None\ndef f(x): return expected",
    "it asks the tests' own solution": """
def f(x):
    try: return reference(x)
    except NameError: return None
""",
}

CHEATED = (
    "assert f(3) == 8",
    "assert 8 == f(3)",
    "assert not f(3) != 8",
    "assert [f(3)] == [8] and f(3) in [8]",
    "assert f(3) in {8} or f(3) in (7, 8)",
    "assert 8 <= f(3) <= 8",
    "assert abs(f(3) - 8) < 1e-6",
    "assert abs(8 - f(3)) < 1e-6",
    "assert round(f(3) - 8, 3) == 0",
    "assert f(3) == 'eight'",
    "assert f(3) == [8]",
    "assert isinstance(f(3), int) and {8: True}[f(3)]",
    "import math\nassert math.fabs(f(3) - 8) < 1e-6",
    "expected = 8\nassert f(3) == expected",
    "def reference(x): return 8\nassert f(3) == reference(3)",
    "import unittest\nunittest.TestCase().assertEqual(f(3), 8)",
    "import unittest\nunittest.TestCase().assertAlmostEqual(f(3), 8)",
)
