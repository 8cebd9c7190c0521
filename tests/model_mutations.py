"""Model files that are wrong in one place each, made from the embedded model of iron."""

import json
import math
import struct

from embedded import IRON_MODEL

from mmace_sim.model.registry import resolve_model

LONG = "9" * 5000
WRONG = (None, [], {}, "x", -1, 0.5, 1e9, 1e30, math.nan, math.inf, True)
BY_FIELD = {
    "hidden_irreps": (
        "1000000000x0e",
        "0x0e",
        "x0e",
        "²x0e",
        "32x0e+" * 1000,
        "32x0o",
        "33x0e",
        "32x0e+32x1o",
    ),
    "MLP_irreps": ("1000000000x0e", "-1x0e", "17x0e"),
    "heads": ({"a b": {}}, {"a": []}, {"a": {"26": -1}}, {"a": {}, "b": {}}, {"default": {"27": 1.0}}),
    "max_moment": ({"26": None}, {"Xx": 1.0}, {"26": math.inf}, {"26": True}, {"27": 2.0}, {"26": [1]}),
    "atomic_numbers": ([], ["Qq"], [0], [119], [26, 27], [[26]], [26.5], [10**9], [True]),
    "repulsion": (
        {"Fe": 1.0},
        {"Fe-Qq": 1.0},
        {"Fe-Fe": -1.0},
        {"Fe-Fe": "a"},
        {"Fe-Fe-Fe": 1.0},
        {"Fe-Fe": True},
    ),
    "radial_mlp": ([10**9], [32], [-1], ["a"], [32] * 100),
    "max_ell": (10**9, 4, 2, 0),
    "num_interactions": (10**9, 2, 32),
    "r_max": (1e308, 0, "five"),
    "spin_orbit": ("perhaps", 2),
}


def read_embedded():
    """The header of that model file as safetensors has it, and its data."""
    raw = resolve_model(IRON_MODEL).read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def encode(header, data, length=None):
    """A safetensors file."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def mutations():
    """Names of the faults, and the content of the files."""
    header, data = read_embedded()
    for name, content in (*_containers(header, data), *_weights(header, data)):
        yield name, content
    for name, text in _metadata(json.loads(header["__metadata__"]["mmace_sim"])):
        yield name, encode({**header, "__metadata__": {"mmace_sim": text}}, data)


def _containers(header, data):
    whole = encode(header, data)
    for length in (0, 1, 2**31, 2**63, 2**64 - 1):
        yield f"header length {length}", encode(header, data, length)
    for size in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        yield f"only {size} bytes", whole[:size]
    for wrong in ([], None, "text", 5, {}, {"mmace_sim": None}, {"mmace_sim": {}}, {"other": "x"}):
        yield f"__metadata__ {wrong}", encode({**header, "__metadata__": wrong}, data)
    yield "nested safetensors header", encode(b'{"a":' * 10**5 + b"1" + b"}" * 10**5, data)
    yield "header is a list", encode([], data)


def _weights(header, data):
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        others = {k: v for k, v in header.items() if k != name}
        begin, end = entry["data_offsets"]
        yield f"{name} under another name", encode({**others, "other": entry}, data)
        if entry["shape"] != entry["shape"][::-1]:
            yield (
                f"{name} transposed",
                encode({**others, name: {**entry, "shape": entry["shape"][::-1]}}, data),
            )
        halves = {**entry, "dtype": "F32", "shape": [*entry["shape"], 2]}
        other = "F64" if entry["dtype"] == "I64" else "I64"
        yield f"{name} of another type", encode({**others, name: {**entry, "dtype": other}}, data)
        yield f"{name} as pairs of float32", encode({**others, name: halves}, data)
        yield f"{name} of 2^62 numbers", encode({**others, name: {**entry, "shape": [2**62]}}, data)
        for number in (math.nan, -math.inf):
            spoiled = data[:begin] + struct.pack("<d", number) + data[begin + 8 :]
            yield f"{name} {number}", encode(header, spoiled[: len(data)])
        assert end - begin >= 8


def _metadata(good):
    for text in ("[]", "null", '"text"', "", "   ", LONG, "[" * 10**5 + "]" * 10**5, "{", "nan", "\x00"):
        yield f"metadata {text[:8]}", text
    yield "metadata nested in an entry", json.dumps(good)[:-1] + ', "x": ' + '{"a":' * 400 + "1" + "}" * 401
    yield "metadata with a long number", json.dumps(good)[:-1] + f', "x": {LONG}' + "}"
    for key in ("format_version", "architecture", "config"):
        yield f"no {key}", json.dumps({k: v for k, v in good.items() if k != key})
        for value in (None, [], {}, "text", -1, 0, 1e9, 10**9, 2.5, True, "MagneticMACE\n", [{}]):
            yield f"{key} {value!r}", json.dumps({**good, key: value})
    for wrong in (None, [], "text", {"a": None}, {"a": {"b": "c"}}):
        yield f"violations {wrong}", json.dumps({**good, "violations": wrong})
    for wrong in (None, [], "text", {}, {**good["uncertainty"], "n_landmarks": 1e9}):
        yield f"uncertainty {str(wrong)[:20]}", json.dumps({**good, "uncertainty": wrong})
    yield "unknown field", json.dumps({**good, "config": {**good["config"], "colour": "red"}})
    yield (
        "no atomic_numbers",
        json.dumps({**good, "config": {k: v for k, v in good["config"].items() if k != "atomic_numbers"}}),
    )
    for field in ("heads", *good["config"]):
        for value in (*WRONG, *BY_FIELD.get(field, ())):
            if (field, value) not in _HARMLESS:
                changed = {**good["config"], field: value}
                yield f"{field} {str(value)[:20]}", json.dumps({**good, "config": changed})


_HARMLESS = (
    ("max_moment", {}),
    ("nonmagnetic", []),
    ("r_max", 0.5),
    ("avg_num_neighbors", 0.5),
    ("repulsion", {}),
    ("repulsion", None),
    ("energy_floor", {}),
    ("energy_ceiling", {}),
    ("max_crowding", {}),
)
"""Values that a model may have: nothing known of its data, a short cutoff, another repulsion."""
