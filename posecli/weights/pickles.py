"""A reader of pickles that runs nothing: it builds tensors' descriptions and plain containers, else inert records.

The opcodes are those of Python's own documentation of the format, module pickletools, which also decodes their
arguments. Python's unpickler is not used: it imports what a file names and calls it.
"""

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch

from posecli.errors import DataError
from posecli.weights.header import shown

# More than the largest training checkpoints have, by a factor of ten.
MOST_OPERATIONS = 30_000_000


@dataclass(eq=False, repr=False, slots=True)
class Record:
    """An object that is not built: its class's or function's name, what it would be called with, and its state."""

    name: str
    arguments: Any = ()
    state: Any = None


@dataclass(eq=False, slots=True, frozen=True)
class Global:
    """The name of a class or function, which is not imported."""

    name: str


@dataclass(frozen=True, slots=True)
class Storage:
    """Where values lie in the file: key, dtype and number of values."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor that is not read yet: offset and strides in values of its storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of its values."""
        number = 1
        for side in self.shape:
            number *= side
        return number


_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def read_pickle(file: BinaryIO, where: str) -> Any:
    """The object of the pickle that begins at the file's position, which then is behind it.

    Dicts (also ordered and default ones), lists, tuples, sets, numbers, texts and bytes become what they are;
    torch's tensors become StoredTensor and its storages Storage; everything else becomes a Record or Global.
    where: the file, for messages. Raises DataError for anything that is no pickle, damaged or beyond all sense.
    """
    machine = _Machine()
    try:
        for number, (operation, argument, _) in enumerate(pickletools.genops(file)):
            if number >= MOST_OPERATIONS:
                raise DataError(f"{where}: more than {MOST_OPERATIONS} operations in one pickle, which no model needs")
            machine.run(operation.name, argument)
    except DataError as error:
        raise error if str(error).startswith(where) else DataError(f"{where}: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, MemoryError, struct.error) as error:
        raise DataError(f"{where}: damaged or no pickle ({' '.join(str(error).split())[:100]})") from error
    if len(machine.stack) != 1:
        raise DataError(f"{where}: damaged, its pickle ends with {len(machine.stack)} objects instead of one")
    return machine.stack[0]


class _Mark:
    """Where a group of arguments begins on the stack."""


_MARK = _Mark()


class _Machine:
    """The stack and memo of one pickle. Every operation takes time and memory in proportion to its bytes."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, name: str, argument: Any) -> None:
        """One opcode by its name in pickletools."""
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name not in _IGNORED:
            _OPERATIONS[name](self, argument)

    def pop(self) -> Any:
        """The uppermost object."""
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("an object is missing")
        return value

    def group(self) -> list[Any]:
        """The objects down to the last mark, both taken off."""
        start = len(self.stack) - 1
        while self.stack[start] is not _MARK:  # an IndexError where there is none
            start -= 1
            if start < 0:
                raise ValueError("a mark is missing")
        values = self.stack[start + 1 :]
        del self.stack[start:]
        return values

    def top(self) -> Any:
        """The uppermost object, which stays."""
        if self.stack[-1] is _MARK:
            raise ValueError("an object is missing")
        return self.stack[-1]

    def recall(self, key: int) -> None:
        """Put an object of the memo on the stack."""
        self.stack.append(self._memo[key])

    def remember(self, key: int | None) -> None:
        """Keep the uppermost object in the memo, with None under the next number."""
        self._memo[len(self._memo) if key is None else key] = self.top()

    def fill(self, values: list[Any], add: Callable[[Any, list[Any]], None]) -> None:
        """Give values to the container on top; those of a record are kept beside it."""
        container = self.top()
        if isinstance(container, Record):
            container.state = (container.state, values)
        else:
            add(container, values)


def _key(value: Any) -> Any:
    """A dict's key or set's element. Others than flat ones are refused: hashing a deep tuple ends the process."""
    flat = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(part, str | bytes | int | float | Record | Global | Storage | None) for part in flat):
        raise DataError(f"a key of {type(value).__name__}, which no model has")
    return value


def _extend(container: Any, values: list[Any]) -> None:
    if not isinstance(container, list):
        raise ValueError("no list to append to")
    container.extend(values)


def _update(container: Any, values: list[Any]) -> None:
    if not isinstance(container, dict) or len(values) % 2:
        raise ValueError("no dictionary to fill")
    for key, value in zip(values[::2], values[1::2], strict=True):
        container[_key(key)] = value


def _add(container: Any, values: list[Any]) -> None:
    if not isinstance(container, set):
        raise ValueError("no set to fill")
    container.update(map(_key, values))


def _put_dict(machine: _Machine, _: Any) -> None:
    values = machine.group()
    machine.stack.append({})
    machine.fill(values, _update)


def _tuple(machine: _Machine, count: int) -> None:
    values = [machine.pop() for _ in range(count)]
    machine.stack.append(tuple(reversed(values)))


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine.pop(), machine.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise ValueError("a class whose name is no text")
    machine.stack.append(Global(f"{module}.{name}"))


def _instance(machine: _Machine, argument: Any) -> None:
    values = machine.group()
    machine.stack.append(Record(str(argument).replace(" ", "."), tuple(values)))


def _object(machine: _Machine, _: Any) -> None:
    values = machine.group()
    machine.stack.append(_called(values[0], tuple(values[1:])))


def _reduce(machine: _Machine, _: Any) -> None:
    arguments, function = machine.pop(), machine.pop()
    machine.stack.append(_called(function, arguments))


def _new_with_keywords(machine: _Machine, _: Any) -> None:
    keywords, arguments, name = machine.pop(), machine.pop(), machine.pop()
    machine.stack.append(Record(name.name if isinstance(name, Global) else "?", arguments, keywords))


def _build(machine: _Machine, _: Any) -> None:
    # State of a plain container (attributes of an OrderedDict such as _metadata) is of no use and dropped.
    state = machine.pop()
    if isinstance(machine.top(), Record):
        machine.top().state = state


def _persistent(machine: _Machine, _: Any) -> None:
    machine.stack.append(_storage(machine.pop()))


def _called(function: Any, arguments: Any) -> Any:
    name = function.name if isinstance(function, Global) else "?"
    # Python 2's name of the module, which protocol 2 keeps.
    name = name.replace("__builtin__.", "builtins.")
    if name in _BUILDERS and isinstance(arguments, tuple):
        return _BUILDERS[name](arguments)
    return Record(name, arguments)


def _storage(identity: Any) -> Any:
    """torch's persistent id of a storage: ("storage", type, key, device, count), older also a view's place."""
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
        raise DataError(f"a {type(identity).__name__} where a tensor's storage is expected")
    kind, key, count = identity[1], identity[2], identity[4]
    dtype = _STORAGES.get(kind.name.rpartition(".")[2]) if isinstance(kind, Global) else None
    if dtype is None:
        raise DataError(f"a tensor of the unknown type {shown(getattr(kind, 'name', '?'))}")
    if not isinstance(key, str) or not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise DataError("damaged, a tensor's storage has no key or size")
    if len(identity) == 6 and identity[5] is not None:
        raise DataError("tensors that are views of others' storages, as torch wrote them before 2017: not read")
    return Storage(key, dtype, count)


def _tensor(arguments: tuple[Any, ...]) -> StoredTensor:
    storage, offset, shape, strides = arguments[:4]
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, Storage) or len(shape) != len(strides) or len(shape) > 16:
        raise ValueError("a tensor without storage or with odd strides")
    if not all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers):
        raise ValueError("a tensor whose shape is no shape")
    tensor = StoredTensor(storage, offset, tuple(shape), tuple(strides))
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if (tensor.count and last >= storage.count) or tensor.count > storage.count:
        raise ValueError(f"a tensor of {tensor.count} values in a storage of {storage.count}")
    return tensor


def _wrapped(arguments: tuple[Any, ...]) -> Any:
    """A parameter is its tensor."""
    if not isinstance(arguments[0], StoredTensor):
        raise ValueError("a parameter without a tensor")
    return arguments[0]


def _from_type(arguments: tuple[Any, ...]) -> Any:
    """torch's tensors of a subclass: the function that would build the tensor, the class, arguments, state."""
    return _called(arguments[0], arguments[2])


def _items(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """An OrderedDict: nothing, or pairs."""
    result: dict[Any, Any] = {}
    for key, value in arguments[0] if arguments else ():
        result[_key(key)] = value
    return result


def _sequence(make: Callable[[Any], Any]) -> Callable[[tuple[Any, ...]], Any]:
    def build(arguments: tuple[Any, ...]) -> Any:
        values = arguments[0] if arguments else ()
        if not isinstance(values, list | tuple | set | frozenset):
            raise ValueError("a container of no values")
        return make(values)

    return build


def _hashed(values: Any) -> set[Any]:
    return {_key(value) for value in values}


_BUILDERS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_parameter": _wrapped,
    "torch._utils._rebuild_parameter_with_state": _wrapped,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch.nn.parameter.Parameter": _wrapped,
    "torch.Size": _sequence(tuple),
    "collections.OrderedDict": _items,
    "collections.defaultdict": lambda arguments: {},
    "builtins.dict": _items,
    "builtins.list": _sequence(list),
    "builtins.tuple": _sequence(tuple),
    "builtins.set": _sequence(_hashed),
    "builtins.frozenset": _sequence(_hashed),
}
_IGNORED = frozenset({"PROTO", "FRAME", "STOP"})
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "MARK": lambda: _MARK,
}
# Numbers, texts and bytes, which pickletools has decoded.
_LITERALS = frozenset(
    operation.name
    for operation in pickletools.opcodes
    if operation.arg is not None
    and not operation.stack_before
    and operation.stack_after not in ([], [pickletools.anyobject])
)


def _refused(machine: _Machine, _: Any) -> None:
    raise ValueError("an operation that no model's file has")


_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "APPEND": lambda machine, _: machine.fill([machine.pop()], _extend),
    "APPENDS": lambda machine, _: machine.fill(machine.group(), _extend),
    "LIST": lambda machine, _: machine.stack.append(machine.group()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.group())),
    "TUPLE1": lambda machine, _: _tuple(machine, 1),
    "TUPLE2": lambda machine, _: _tuple(machine, 2),
    "TUPLE3": lambda machine, _: _tuple(machine, 3),
    "DICT": _put_dict,
    "SETITEM": lambda machine, _: machine.fill([machine.pop(), machine.pop()][::-1], _update),
    "SETITEMS": lambda machine, _: machine.fill(machine.group(), _update),
    "ADDITEMS": lambda machine, _: machine.fill(machine.group(), _add),
    "FROZENSET": lambda machine, _: machine.stack.append(_hashed(machine.group())),
    "POP": lambda machine, _: machine.stack.__delitem__(-1),
    "POP_MARK": lambda machine, _: machine.group().clear(),
    "DUP": lambda machine, _: machine.stack.append(machine.top()),
    "GET": lambda machine, key: machine.recall(key),
    "BINGET": lambda machine, key: machine.recall(key),
    "LONG_BINGET": lambda machine, key: machine.recall(key),
    "PUT": lambda machine, key: machine.remember(key),
    "BINPUT": lambda machine, key: machine.remember(key),
    "LONG_BINPUT": lambda machine, key: machine.remember(key),
    "MEMOIZE": lambda machine, _: machine.remember(None),
    "GLOBAL": lambda machine, name: machine.stack.append(Global(str(name).replace(" ", "."))),
    "STACK_GLOBAL": _stack_global,
    "INST": _instance,
    "OBJ": _object,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _new_with_keywords,
    "BUILD": _build,
    "BINPERSID": _persistent,
    "PERSID": _refused,
    "EXT1": _refused,
    "EXT2": _refused,
    "EXT4": _refused,
    "NEXT_BUFFER": _refused,
    "READONLY_BUFFER": _refused,
}
