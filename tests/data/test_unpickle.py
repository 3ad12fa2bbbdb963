"""Pickles of the field are read as they are; nothing in them runs; what is odd is refused in a sentence."""

import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
from collections import Counter, OrderedDict, defaultdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moodal.data.unpickle import read_pickle, release
from moodal.types import InputError

PROTOCOLS = range(6)
ARRAYS = {
    "float32": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "float16": np.linspace(-1, 1, 5, dtype=np.float16),
    "big endian": np.arange(5, dtype=">f8"),
    "ints": np.array([[-1, 2]], dtype=np.int8),
    "complex": np.array([1 + 2j]),
    "bool": np.array([True, False]),
    "text": np.array(["über", "", "$_$"]),
    "bytes": np.array([b"ab", b"c"]),
    "column order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(20)[::3],
    "empty": np.zeros((0, 4), np.float32),
    "no dimension": np.array(3.5),
    "large": np.arange(100_000, dtype=np.float32).reshape(100, 1000),
    "objects": np.array(["a", None, 1.5], dtype=object),
    "one object": np.array(["a"], dtype=object).reshape(()),
}
PLAIN = {
    "a": [1, 2.5, None, True, "ü", b"\x00\xff", -(2**70), 1 + 2j],
    ("k", 3): ((), (1, (2, [3])), {1, 2}, frozenset({"x"})),
    "nested": {"b": {"c": [[], {}]}},
    "long text": "ä" * 70_000,
    "long bytes": bytes(70_000),
    "bytearray": bytearray(b"xyz"),
}


@pytest.fixture
def file(tmp_path):
    def write(content, protocol=4):
        path = tmp_path / "data.pkl"
        path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
        return path

    return write


class Calls:
    """Pickles as a call of ``function``."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call

    def __repr__(self):  # names a test: without it another one in every process
        return f"Calls({self.call[0].__name__})"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", ARRAYS)
def test_an_array_comes_back_as_it_went(file, kind, protocol):
    x = read_pickle(file({"x": ARRAYS[kind]}, protocol))["x"]
    assert type(x) is np.ndarray
    assert x.dtype == ARRAYS[kind].dtype
    assert x.shape == ARRAYS[kind].shape
    assert x.tolist() == ARRAYS[kind].tolist()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_containers_come_back_as_they_went(file, protocol):
    content = {**PLAIN, "bytearray": b"xyz"} if protocol < 5 else PLAIN
    made = read_pickle(file(content, protocol))
    assert made == PLAIN
    assert list(made) == list(PLAIN)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpy_scalars_and_arrays_deep_inside(file, protocol):
    made = read_pickle(
        file([(np.float32(1.5), np.int64(3), np.bool_(True), np.str_("a")), [{"x": np.arange(3)}]], protocol)
    )
    assert made[0] == (1.5, 3, True, "a")
    assert made[0][0].dtype == np.float32
    np.testing.assert_array_equal(made[1][0]["x"], [0, 1, 2])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ordered_and_default_dictionaries_become_plain_ones(file, protocol):
    given = [OrderedDict(b=1, a=2), defaultdict(list, {"x": [1]}), defaultdict(dict)]
    made = read_pickle(file(given, protocol))
    assert made == [{"b": 1, "a": 2}, {"x": [1]}, {}]
    assert [type(d) for d in made] == [dict] * 3
    assert list(made[0]) == ["b", "a"]


def test_a_list_that_stands_twice_is_one_list(file):
    inner = [np.zeros(2)]
    made = read_pickle(file([inner, inner]))
    assert made[0] is made[1]


def test_lists_inside_an_object_array_stay_lists(file):
    x = np.empty(2, dtype=object)
    x[0], x[1] = [1, 2], [np.ones(1), 4]
    made = read_pickle(file(x))
    assert made[0] == [1, 2]
    assert made[1][0].tolist() == [1.0]


def test_names_of_numpy_1_are_known(file):
    written = pickle.dumps([np.arange(3), np.float32(2)], 2).replace(b"numpy._core", b"numpy.core")
    assert b"numpy.core" in written
    assert read_pickle(file(written))[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("count", [3, 30_000])
def test_python_2_wrote_strings_where_we_write_bytes(file, count):
    raw = np.arange(count, dtype="<f4").tobytes()
    length = b"U" + bytes([len(raw)]) if len(raw) < 256 else b"T" + struct.pack("<i", len(raw))
    head = b"\x80\x02(lp0\nU\x02\xfc!acnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    dtype = b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"(K\x01(M" + struct.pack("<H", count) + b"t"
    made = read_pickle(file(head + shape + dtype + b"\x89" + length + raw + b"tba."))
    assert made[0] == "ü!"
    np.testing.assert_array_equal(made[1], np.arange(count))


def test_arrays_are_views_of_the_file_and_stay_readable_when_released(file):
    path = file({"x": ARRAYS["large"]})
    x = read_pickle(path)["x"]
    assert not x.flags.writeable
    release(x[3:7])
    np.testing.assert_array_equal(x, ARRAYS["large"])
    release(np.zeros(3))  # not from a pickle: nothing to do


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in KiB on Linux")
def test_reading_takes_a_small_part_of_the_file_in_memory(file):
    path = file({"x": np.ones((40, 1 << 20), np.uint8)})
    peak = """import sys, resource, pathlib
from moodal.data.unpickle import read_pickle, release
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
x = read_pickle(pathlib.Path(sys.argv[1]))["x"]
for row in x:
    assert row.sum() == 1 << 20
    release(x)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"""
    out = subprocess.run([sys.executable, "-c", peak, path], capture_output=True, text=True, check=True)
    assert int(out.stdout) < 20 * 1024  # the file has 40 MiB


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_command_is_named_and_not_run(file, tmp_path, protocol):
    victim = tmp_path / "victim"
    with pytest.raises(InputError, match=r"data.pkl: the pickle asks for posix.system; only numpy arrays and plain"):
        read_pickle(file({"x": [Calls(os.system, f"touch {victim}")]}, protocol))
    assert not victim.exists()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Counter("ab"), "collections.Counter"),
        (Fraction(1, 2), "fractions.Fraction"),
        (np.ma.masked_array([1.0], [True]), "numpy.ma"),
        (Calls(eval, "1"), "builtins.eval"),
        (Calls(np.load, "x"), "numpy.load"),
        (Calls(getattr, [], "append"), "builtins.getattr"),
        (print, "builtins.print"),
    ],
    ids=str,
)
@pytest.mark.parametrize("protocol", [4, 5])
def test_any_other_name_is_refused(file, value, name, protocol):
    with pytest.raises(InputError, match=f"the pickle asks for {name}"):
        read_pickle(file(value, protocol))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02cos\nsystem\n(U\x02lstR.", "asks for os.system"),
        (b"(ios\nsystem\nU\x02ls.", "asks for os.system"),
        (b"(S'ls'\nios\nsystem\n.", "asks for os.system"),
        (b"(ibuiltins\nlist\n.", "builds an object of builtins.list"),
        (b"\x80\x02cnumpy\ndtype\n)\x81.", "builds an object of a class"),
        (b"\x80\x02(cnumpy\ndtype\no.", "builds an object of a class"),
        (b"\x80\x02\x82\x01.", "extension registry"),
        (b"\x80\x02K\x01Q.", "objects outside the file"),
        (b"Pname\n.", "objects outside the file"),
        (b"\x80\x05\x97.", "arrays in another file"),
        (b"\x80\x04\x8c\x0bnumpy\x1b[31m\n\x8c\x03abc\x93.", r"asks for 'numpy\\x1b\[31m"),
        (b"\x80\x04\x8c\x08builtins\x8c\x11list.__subclasses\x93.", "asks for builtins.list.__subclasses"),
        (b"\x80\x02cnumpy\nndarray\n.", "holds ndarray where data should stand"),
        (b"\x80\x02cnumpy\nndarray\nK\x02\x85R.", "in a way that numpy does not"),
        (b"\x80\x02K\x01)R.", "calls a int"),
        (b"\x80\x02]}b.", "sets the attributes of a list"),
        (b"\x80\x02ccollections\nOrderedDict\n)R}U\x04keysK\x01sb.", "sets the attributes of a dict"),
        (b"\x80\x02c_codecs\nencode\nU\x02aaU\x03hex\x86R.", "conversion of text"),
    ],
)
def test_what_builds_or_reaches_out_is_refused(file, content, message):
    with pytest.raises(InputError, match=f"data.pkl: the pickle .*{message}"):
        read_pickle(file(content))


def array_pickle(*, dtype="f4", state=(3, "<", None, None, None, -1, -1, 0), shape=(2,), raw=b"\0" * 8):
    """An array's pickle with anything in its parts."""

    class DType:
        def __reduce__(self):
            return np.dtype, (dtype, False, True), state

    class Lie:
        def __reduce__(self):
            return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), (1, shape, DType(), False, raw)

    return pickle.dumps(Lie(), 4)


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ({"dtype": "O8", "state": (3, "|", None, None, None, -1, -1, 63)}, "object array .* not a list of 2 values"),
        ({"dtype": "O8", "raw": [1]}, "object array of shape .2,. that is not a list of 2 values"),
        ({"shape": (3,)}, "holds 8 bytes for an array of shape .3,."),
        ({"shape": (1 << 40, 1 << 40)}, "holds 8 bytes for an array of shape"),
        ({"shape": (1 << 63, 0), "raw": b""}, "damaged array"),
        ({"shape": (-1, -2)}, "damaged array"),
        ({"shape": (True, 2)}, "damaged array"),
        ({"raw": [0.0, 1.0]}, "array made from a list"),
        ({"dtype": "V8"}, "array of type V8"),
        ({"dtype": "M8"}, "array of type M8"),
        ({"dtype": "f4,O"}, "array of type f4,O"),
        ({"dtype": "U0"}, "array of type U0"),
        ({"dtype": "U1", "raw": b"\xff" * 8}, "text that is no Unicode"),
        ({"state": (3, "|", None, ("a",), {"a": ("O", 0)}, 8, 1, 0)}, "named fields or metadata"),
        ({"state": (3, "|", ("f4", (2,)), None, None, 8, 1, 0)}, "named fields or metadata"),
        ({"state": (3, "<", None, None, None, -1, -1, 0, {"a": 1})}, "named fields or metadata"),
    ],
)
def test_an_array_that_lies_is_refused(file, lie, message):
    with pytest.raises(InputError, match=f"the pickle .*{message}"):
        read_pickle(file(array_pickle(**lie)))


def test_that_pickle_is_sound_without_a_lie(file):
    assert read_pickle(file(array_pickle())).tolist() == [0, 0]


def test_structured_arrays_are_refused(file):
    with pytest.raises(InputError, match="array of type V8"):
        read_pickle(file(np.zeros(2, dtype=[("a", "f4"), ("b", "i4")])))


def test_a_file_cut_anywhere_is_refused(file):
    whole = pickle.dumps({"a": ["text", 1.5, np.arange(3)], "b": np.zeros(40_000)}, 4)
    for end in [*range(1, 300, 7), len(whole) - 1000, len(whole) - 1]:
        with pytest.raises(InputError, match="is cut off: the pickle in it has no end"):
            read_pickle(file(whole[:end]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"id,label\n1,2\n", "is not a pickle$"),
        (b"\x93NUMPY\x01\x00", "is not a pickle$"),
        (b"PK\x03\x04 and so on", "is a zip archive"),
        (b"\x80\x04\xffxx.", "is not a pickle, or is damaged at byte 3"),
        (b"\x80\x63K\x01.", "is not a pickle, or is damaged"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"x.", "is cut off"),
        (b"\x80\x02T\xff\xff\xff\xffx.", "is cut off"),
        (b"\x80\x04\x96" + struct.pack("<Q", 1 << 40) + b"x.", "is cut off"),
    ],
)
def test_what_is_no_pickle_says_so(file, content, message):
    with pytest.raises(InputError, match=f"data.pkl {message}"):
        read_pickle(file(content))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"none.pkl cannot be read: No such file"):
        read_pickle(tmp_path / "none.pkl")


def test_bombs_do_not_go_off(file):
    deep = b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    tuples = b"\x80\x02})" + b"\x85" * 1_000_000 + b"K\x01s."  # hashing this would overrun the C stack
    myself = b"\x80\x02]q\x00h\x00a."
    doubling = b"\x80\x02]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(90)) + b"."
    memo = b"\x80\x02K\x01r\xff\xff\xff\xff."
    with pytest.raises(InputError, match="nests containers deeper than 100"):
        read_pickle(file(deep))
    with pytest.raises(InputError, match="a key of type tuple"):
        read_pickle(file(tuples))
    with pytest.raises(InputError, match="inside themselves"):
        read_pickle(file(myself))
    assert len(read_pickle(file(doubling))) == 2
    assert read_pickle(file(memo)) == 1


def test_one_list_made_into_many_is_refused(file):
    big = b"\x80\x02](" + b"N" * 100_000 + b"eq\x00"
    many = b"(" + b"cbuiltins\nlist\nh\x00\x85R" * 1000 + b"t."
    with pytest.raises(InputError, match="more memory than the file's size can need"):
        read_pickle(file(big + many))


def name(module, function):
    return f"c{module}\n{function}\n".encode()


DTYPE = name("numpy", "dtype") + b"X%s%s\x89\x88\x87R"
ARRAY = name("numpy.core.multiarray", "_reconstruct") + name("numpy", "ndarray") + b"K\x00\x85C\x01b\x87R"
SIZE = struct.pack("<i", 100_000)


@pytest.mark.parametrize(
    "content",
    {
        "pairs": b"(" + b"N" * 100_000 + b"lq\x010(" + b"h\x01" * 1000 + b"lq\x020"
        + name("builtins", "dict") + b"h\x02\x85R",
        "arrays": DTYPE % (struct.pack("<I", 2), b"u1")
        + b"q\x010X" + SIZE + b"a" * 100_000 + b"q\x020("
        + (ARRAY + b"(K\x01J" + SIZE + b"\x85h\x01\x89h\x02tb") * 1000 + b"l",
        "scalars": DTYPE % (struct.pack("<I", 7), b"S100000")
        + b"q\x010T" + SIZE + b"a" * 100_000 + b"q\x020("
        + (name("numpy.core.multiarray", "scalar") + b"h\x01h\x02\x86R") * 1000 + b"l",
    }.values(),
)  # fmt: skip
def test_one_value_copied_a_thousand_times_is_refused(file, content):
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"more memory than the file's size can need|something else than pairs"):
            read_pickle(file(b"\x80\x04" + content + b"."))
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "inside", [b"]" * 50_000 + b"a" * 49_999, b"]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(90))]
)
def test_a_refusal_does_not_write_out_what_it_refuses(file, inside):
    number = name("builtins", "int") + b"(" + inside + b"tR."
    shape = DTYPE % (struct.pack("<I", 2), b"u1") + b"q\xf00" + name("numpy.core.numeric", "_frombuffer")
    shape += b"(C\x01ah\xf0](" + inside + b"eX" + struct.pack("<I", 1) + b"CtR."
    with pytest.raises(InputError, match="a number made from something else"):
        read_pickle(file(b"\x80\x04" + number))
    with pytest.raises(InputError, match="a damaged array"):
        read_pickle(file(b"\x80\x04" + shape))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_bytes_never_do_more_than_an_input_error(file, data):
    protocol = data.draw(st.sampled_from([2, 4, 5]))
    content = bytearray(pickle.dumps([PLAIN["nested"], ARRAYS["float32"], ARRAYS["objects"], np.float32(1)], protocol))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_pickle(file(bytes(content)))
    except InputError as e:
        assert "data.pkl" in str(e)  # noqa: PT017
