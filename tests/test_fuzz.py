"""A bounded number of random inputs of every kind; `tools/fuzz.py` runs many."""

import pytest
from fuzzing import (
    check_frame,
    check_journal,
    check_model_file,
    check_relaxation,
    check_structure_file,
    check_symmetry,
)
from hypothesis import Phase, given, settings
from hypothesis import strategies as st


@settings(max_examples=40)
@given(data=st.data())
def test_frames(data):
    check_frame(data)


@settings(max_examples=6, phases=[Phase.generate])
@given(data=st.data())
def test_relaxations(data, tmp_path_factory, model):
    check_relaxation(data, tmp_path_factory.mktemp("run"), model)


@pytest.mark.stress
@settings(max_examples=60, phases=[Phase.generate])
@given(data=st.data())
def test_many_relaxations(data, tmp_path_factory, model):
    check_relaxation(data, tmp_path_factory.mktemp("run"), model)


@settings(max_examples=60)
@given(data=st.data())
def test_magnetic_space_groups(data):
    check_symmetry(data)


@settings(max_examples=150)
@given(data=st.data())
def test_structure_files(data, tmp_path_factory):
    check_structure_file(data, tmp_path_factory.getbasetemp())


@settings(max_examples=40)
@given(data=st.data())
def test_journals(data, tmp_path_factory):
    check_journal(data, tmp_path_factory.mktemp("journal") / "finished.jsonl")


@settings(max_examples=40)
@given(data=st.data())
def test_model_files(data, tmp_path_factory, model):
    check_model_file(data, tmp_path_factory.getbasetemp() / "mutated.safetensors", model.read_bytes())
