"""Reads the pickles of the field without running what is in them.

A pickle is a program: it may name any function and have it called. Here the program runs on the standard library's
interpreter written in Python, in which every operation that names, builds or changes an object is replaced by ours.
What comes out are numpy arrays and plain containers; anything else is refused by name.

Arrays are not copied: they are read-only views of the file, mapped into memory and read when they are looked at.
"""

from __future__ import annotations

import math
import mmap
import pickle
import re
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from moodal.types import InputError

Array = npt.NDArray[Any]
ADMITTED = "only numpy arrays and plain containers are admitted"
MAX_DEPTH = 100  # containers inside containers
LARGE = 1 << 16  # bytes from which a string of bytes stays in the file
SCALARS = (type(None), bool, int, float, complex, str, bytes)
# What a broken or hostile pickle makes the interpreter or numpy raise
BROKEN = (
    pickle.UnpicklingError,
    EOFError,
    struct.error,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
)


def read_pickle(path: Path) -> Any:
    """What the pickle at ``path`` holds: numpy arrays (read-only), dictionaries, lists, tuples, sets, strings, numbers.

    Protocols 0 to 5, written by Python 2 or 3 and any numpy. OrderedDict and defaultdict become plain dictionaries.
    The file must stay as it is while its arrays are in use.
    """
    try:
        with path.open("rb") as f:
            size = path.stat().st_size
            data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) if size else None
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror}") from e
    if data is None:
        raise InputError(f"{path} is empty")
    if data[:4] == b"PK\x03\x04":
        raise InputError(f"{path} is a zip archive (.npz, .pt), not a pickle")
    if data[:1] != pickle.PROTO and data[-1:] != pickle.STOP:
        raise InputError(f"{path} is not a pickle")
    try:
        return _plain(_Reader(data).load(), {})
    except _RefusedError as e:
        raise InputError(f"{path}: the pickle {e}") from None
    except BROKEN as e:
        if data.tell() >= size:
            raise InputError(f"{path} is cut off: the pickle in it has no end; copy or download it again") from e
        raise InputError(f"{path} is not a pickle, or is damaged at byte {data.tell()}") from e


def release(array: Array) -> None:
    """Give back the memory of the pages of the pickle behind ``array`` read so far; it can still be read again."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview) and isinstance(base.obj, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.obj.madvise(mmap.MADV_DONTNEED)


class _RefusedError(Exception):
    """What the pickle wants and does not get; the message continues "the pickle ..."."""


class _Latin1:
    """A long string of Python 2 that lies in the file: the bytes of an array, most likely."""

    def __init__(self, view: memoryview) -> None:
        self.view = view

    def __len__(self) -> int:
        return len(self.view)


class _DType:
    """Stands for ``numpy.dtype``: numbers, bool, fixed-width strings, or object (for lists of plain values)."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, code: str, align: object = False, copy: object = True) -> None:
        if not re.fullmatch(r"b1|[iu][1248]|f(2|4|8|12|16)|c(8|16|24|32)|[SU][1-9]\d{0,8}|O[48]?", code):
            raise _RefusedError(f"asks for an array of type {_quoted(code)}; {ADMITTED}")
        self.code = code[0] if code[0] == "O" else code
        self.order: Any = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, self.order, subarray, names, fields, *_sizes = state
        if subarray or names or fields or len(state) > 8:
            raise _RefusedError(f"asks for an array with named fields or metadata; {ADMITTED}")

    def make(self) -> np.dtype[Any]:
        return np.dtype(self.code).newbyteorder(self.order)


class _Array:
    """Stands for an array while the pickle is read; ``value`` is the array, once its contents have come."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: Array | None = None) -> None:
        self.value = value

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        shape, dtype, is_fortran, raw = state[-4:]
        self.value = _array(raw, dtype, shape, "F" if is_fortran else "C")


def _array(raw: Any, dtype: _DType, shape: Sequence[int], order: str) -> Array:
    sane = len(shape) <= 32 and all(type(n) is int and 0 <= n < 1 << 62 for n in shape)
    if not isinstance(dtype, _DType) or order not in ("C", "F") or not sane:
        raise _RefusedError("holds a damaged array: its type, its shape or its order is none")
    count = math.prod(shape)
    if dtype.code == "O":
        # from a list only: raw bytes as objects would be addresses of the writer's choice
        if type(raw) is not list or len(raw) != count:
            raise _RefusedError(f"holds an object array of shape {tuple(shape)} that is not a list of {count} values")
        flat = np.empty(count, dtype=object)
        for i, value in enumerate(raw):  # one by one: numpy would unpack lists within the list
            flat[i] = value
    else:
        data = _buffer(raw)
        if count * dtype.make().itemsize != len(data):
            raise _RefusedError(f"holds {len(data)} bytes for an array of shape {tuple(shape)} and type {dtype.code}")
        flat = np.frombuffer(data, dtype.make()) if data else np.zeros(0, dtype.make())
        codes = flat.view(np.dtype("u4").newbyteorder(dtype.order)) if dtype.code[0] == "U" else np.zeros(1)
        if count and codes.max() > 0x10FFFF:
            raise _RefusedError("holds text that is no Unicode")
    return flat.reshape(tuple(shape), order=order)  # type: ignore[call-overload,no-any-return]


def _buffer(raw: Any) -> bytes | memoryview:
    if isinstance(raw, _Latin1):
        return raw.view
    if type(raw) is str:  # Python 2
        return raw.encode("latin1")
    if not isinstance(raw, bytes | bytearray | memoryview):
        raise _RefusedError(f"holds an array made from a {type(raw).__name__}; {ADMITTED}")
    return bytes(raw) if isinstance(raw, bytearray) else raw


def _scalar(dtype: _DType, raw: Any) -> Any:
    return _array(raw, dtype, (1,), "C")[0] if dtype.code != "O" else _refuse("asks for an object scalar")


def _reconstruct(kind: object, shape: object, code: object) -> _Array:
    return _Array() if kind is _ndarray else _refuse(f"asks for a subclass of numpy.ndarray; {ADMITTED}")


def _frombuffer(raw: Any, dtype: _DType, shape: Sequence[int], order: str) -> _Array:
    return _Array(_array(raw, dtype, shape, order))


def _ndarray(*args: object) -> NoReturn:
    _refuse(f"asks for an array in a way that numpy does not; {ADMITTED}")


def _dict(items: Iterable[Any] = ()) -> dict[Any, Any]:
    return {_key(k): v for k, v in (items.items() if isinstance(items, dict) else map(_pair, items))}


def _pair(item: Any) -> Any:
    """``item``, looked at before it is unpacked: that would copy a list of any length."""
    if type(item) not in (tuple, list) or len(item) != 2:
        _refuse("makes a dictionary from something else than pairs")
    return item


def _defaultdict(factory: object = None, items: Iterable[Any] = ()) -> dict[Any, Any]:
    return _dict(items)


def _list(items: Iterable[Any] = ()) -> list[Any]:
    return list(items)


def _tuple(items: Iterable[Any] = ()) -> tuple[Any, ...]:
    return tuple(items)


def _set(items: Iterable[Any] = ()) -> set[Any]:
    return {_key(k) for k in items}


def _frozenset(items: Iterable[Any] = ()) -> frozenset[Any]:
    return frozenset(_set(items))


def _number(kind: Callable[..., Any]) -> Callable[..., Any]:
    def make(*parts: object) -> Any:
        if not all(type(p) in (bool, int, float) for p in parts):
            _refuse("asks for a number made from something else than numbers")  # whose repr may have no end
        return kind(*parts)

    return make


def _refuse(message: str) -> NoReturn:
    raise _RefusedError(message)


def _quoted(name: str) -> str:
    """A name from the pickle as it may stand in a message."""
    return name[:100] if name.isprintable() else ascii(name[:100])


def _key(value: Any) -> Any:
    """``value`` if it may be a key: hashing tuples in tuples in tuples would overrun the stack."""
    flat = type(value) is tuple and all(isinstance(v, SCALARS) for v in value)
    if not flat and not isinstance(value, (*SCALARS, np.generic)):
        _refuse(f"has a key of type {type(value).__name__}; keys are strings, numbers, or tuples of these")
    return value


_BUSY = object()


def _plain(value: Any, done: dict[int, tuple[Any, Any]], depth: int = 0) -> Any:
    """``value`` with the stand-ins replaced by what they stand for; lists and dictionaries in place.

    done: by id, the values met so far (kept, so that no id is used again) and what they became, or ``_BUSY``.
    """
    if isinstance(value, (*SCALARS, np.generic)):
        return value
    if id(value) in done and done[id(value)][1] is not _BUSY:
        return done[id(value)][1]
    if depth > MAX_DEPTH or id(value) in done:
        _refuse(f"nests containers deeper than {MAX_DEPTH}, or inside themselves")
    done[id(value)] = value, _BUSY
    made = _replaced(value, lambda v: _plain(v, done, depth + 1))
    done[id(value)] = value, made
    return made


def _replaced(value: Any, plain: Callable[[Any], Any]) -> Any:
    if type(value) is list:
        value[:] = [plain(v) for v in value]
    elif type(value) is dict:
        for key in value:
            value[key] = plain(value[key])
    elif type(value) is tuple:
        return tuple(plain(v) for v in value)
    elif isinstance(value, _Array) and value.value is not None:
        if value.value.dtype == object:
            flat = value.value.ravel(order="K")  # a view
            for i, v in enumerate(flat):
                flat[i] = plain(v)
        return value.value
    elif isinstance(value, _Latin1):
        return bytes(value.view).decode("latin1")
    elif isinstance(value, memoryview):
        return bytes(value)
    elif type(value) not in (set, frozenset, bytearray):
        _refuse(f"holds {_quoted(getattr(value, '__name__', type(value).__name__).strip('_'))} where data should stand")
    return value


_NUMPY: dict[str, Callable[..., Any]] = {
    "multiarray._reconstruct": _reconstruct,
    "multiarray.scalar": _scalar,
    "numeric._frombuffer": _frombuffer,
}
_PLAIN: dict[str, Callable[..., Any]] = {
    "dict": _dict,
    "list": _list,
    "tuple": _tuple,
    "set": _set,
    "frozenset": _frozenset,
    "complex": _number(complex),
    "int": _number(int),
    "float": _number(float),
    "bool": _number(bool),
    "long": _number(int),
}
STAND_INS: dict[str, Callable[..., Any]] = {
    "numpy.ndarray": _ndarray,
    "numpy.dtype": _DType,
    "collections.OrderedDict": _dict,
    "collections.defaultdict": _defaultdict,
    **{f"{core}.{name}": made for core in ("numpy.core", "numpy._core") for name, made in _NUMPY.items()},
    **{f"{module}.{name}": made for module in ("builtins", "__builtin__") for name, made in _PLAIN.items()},
}


class _Reader(pickle._Unpickler):
    """The interpreter: names lead to stand-ins, long strings of bytes stay in the file, keys are simple."""

    stack: list[Any]  # what the operations since the last mark have left
    append: Callable[[Any], None]

    def __init__(self, data: mmap.mmap) -> None:
        super().__init__(data, encoding="latin1")
        self.data = data
        self.view = memoryview(data)
        self.copies_left = 2 * len(data) + (1 << 20)  # one list copied again and again would fill the memory

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) == ("_codecs", "encode"):
            return self._encode
        if (module, name) in (("builtins", "bytes"), ("__builtin__", "bytes"), ("builtins", "bytearray")):
            return self._bytes
        if f"{module}.{name}" not in STAND_INS or "." in name:
            _refuse(f"asks for {_quoted(f'{module}.{name}')}; {ADMITTED}")
        return STAND_INS[f"{module}.{name}"]

    def _encode(self, text: str, encoding: str) -> bytes:
        """How Python 3 writes bytes in protocols 0 to 2."""
        if type(text) is not str or encoding != "latin1":
            _refuse(f"asks for a conversion of text; {ADMITTED}")
        return text.encode("latin1")

    def _bytes(self, content: Any = b"", encoding: str = "latin1") -> bytes:
        if type(content) is str:
            return self._encode(content, encoding.replace("-", ""))
        return bytes(content) if isinstance(content, bytes | memoryview) else _refuse(f"asks for odd bytes; {ADMITTED}")

    def _spend(self, size: int) -> None:
        self.copies_left -= size
        if self.copies_left < 0:
            _refuse("asks for more memory than the file's size can need")

    def _take(self, size: int) -> memoryview | bytes:
        """The next ``size`` bytes, without a copy where that is worth it."""
        start = self.data.tell()
        if size < 0 or start + size > len(self.data):
            self.data.seek(len(self.data))
            raise EOFError
        if size < LARGE:
            return self.data.read(size)
        self.data.seek(size, 1)
        return self.view[start : start + size]

    def _call(self) -> None:
        args = self.stack.pop()
        function = self.stack[-1]
        if type(args) is not tuple or not callable(function):
            _refuse(f"calls a {type(function).__name__}; {ADMITTED}")
        self._spend(sum(len(a) for a in args if hasattr(a, "__len__")))
        self.stack[-1] = function(*args)

    def _build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, _Array | _DType) or type(state) is not tuple:
            _refuse(f"sets the attributes of a {type(target).__name__.strip('_')}; {ADMITTED}")
        if isinstance(target, _Array) and state and type(state[-1]) in (list, str):  # what becomes a copy
            self._spend(len(state[-1]))
        target.__setstate__(state)

    def _instance(self) -> None:
        module, name = (self.data.readline()[:-1].decode("ascii", "replace") for _ in range(2))
        self.find_class(module, name)
        _refuse(f"builds an object of {_quoted(f'{module}.{name}')}; {ADMITTED}")

    def _python2_string(self) -> None:
        taken = self._take(*struct.unpack("<i", self.data.read(4)))
        self.append(_Latin1(taken) if isinstance(taken, memoryview) else taken.decode("latin1"))


def _bytes_of(width: str) -> Callable[[_Reader], None]:
    def load(reader: _Reader) -> None:
        reader.append(reader._take(*struct.unpack(width, reader.data.read(struct.calcsize(width)))))

    return load


def _with_keys(opcode: bytes, where: slice) -> Callable[[_Reader], None]:
    standard: Callable[[Any], None] = pickle._Unpickler.dispatch[opcode[0]]

    def load(reader: _Reader) -> None:
        for key in reader.stack[where]:
            _key(key)
        standard(reader)

    return load


def _refused(what: str) -> Callable[[_Reader], None]:
    return lambda reader: _refuse(f"{what}; {ADMITTED}")


_OPERATIONS: dict[int, Callable[[Any], Any]] = {
    **pickle._Unpickler.dispatch,
    pickle.FRAME[0]: lambda reader: reader.data.read(8),  # a hint for buffering; the file is in memory
    pickle.REDUCE[0]: _Reader._call,
    pickle.BUILD[0]: _Reader._build,
    pickle.BINSTRING[0]: _Reader._python2_string,
    pickle.BINBYTES[0]: _bytes_of("<I"),
    pickle.BINBYTES8[0]: _bytes_of("<Q"),
    pickle.BYTEARRAY8[0]: _bytes_of("<Q"),
    pickle.SETITEM[0]: _with_keys(pickle.SETITEM, slice(-2, -1)),
    pickle.SETITEMS[0]: _with_keys(pickle.SETITEMS, slice(None, None, 2)),
    pickle.DICT[0]: _with_keys(pickle.DICT, slice(None, None, 2)),
    pickle.ADDITEMS[0]: _with_keys(pickle.ADDITEMS, slice(None)),
    pickle.FROZENSET[0]: _with_keys(pickle.FROZENSET, slice(None)),
    pickle.INST[0]: _Reader._instance,
    **{op[0]: _refused("builds an object of a class") for op in (pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.OBJ)},
    **{op[0]: _refused("uses the extension registry") for op in (pickle.EXT1, pickle.EXT2, pickle.EXT4)},
    **{op[0]: _refused("refers to objects outside the file") for op in (pickle.PERSID, pickle.BINPERSID)},
    pickle.NEXT_BUFFER[0]: _refused("has its arrays in another file"),
}
_Reader.dispatch = _OPERATIONS
