"""The files of `inside`, as arguments by which an interpreter starts them that has no package.

Each file comes as text, and as compiled for the interpreter that this is: compiling is the larger
part of a start, and another Python than ours compiles for itself.
"""

import importlib.util
import marshal
from importlib.machinery import SourceFileLoader
from pathlib import Path

_PACKAGE = "tiltune.constraints.sandbox.inside"
# each after those that it imports
_FILES = ("plain", "peer", "raised", "names", "code", "judge", "runner")
_MAGIC = importlib.util.MAGIC_NUMBER.hex()
_START = f"""
import marshal, sys, types
from _frozen_importlib_external import MAGIC_NUMBER
given, sys.argv[1:] = sys.argv[1:], []
known = MAGIC_NUMBER.hex() == {_MAGIC!r}
package = sys.modules[{_PACKAGE!r}] = types.ModuleType({_PACKAGE!r})
for name, text, compiled in zip(given[::3], given[1::3], given[2::3]):
    module = types.ModuleType({_PACKAGE!r} + "." + name)
    sys.modules[module.__name__] = module
    setattr(package, name, module)
    if known:
        code = marshal.loads(bytes.fromhex(compiled))
    else:
        code = compile(text, "<" + name + ">", "exec")
    exec(code, vars(module))
for name in [name for name in sys.modules if name.startswith({_PACKAGE!r})]:
    del sys.modules[name]
module.main()
"""


def arguments() -> list[str]:
    """What follows the interpreter's flags."""
    given = list[str]()
    for name in _FILES:
        path = Path(__file__).parent / "inside" / f"{name}.py"
        code = SourceFileLoader(f"{_PACKAGE}.{name}", str(path)).get_code(f"{_PACKAGE}.{name}")
        given += [name, path.read_text(encoding="utf-8"), marshal.dumps(code).hex()]
    return ["-c", _START, *given]
