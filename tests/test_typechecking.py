"""What the tests rely on: functions of the package refuse values of other types and shapes."""

from typing import TYPE_CHECKING, Protocol

import numpy as np
import pytest
import torch
from beartype.roar import BeartypeException
from jaxtyping import Float
from torch import Tensor
from typechecking import checked

from mmace_sim.nn.angular import solid_harmonics
from mmace_sim.sampling.chains import Chain

if TYPE_CHECKING:
    from collections.abc import Callable


class Named(Protocol):
    name: str


@checked
def product(
    one: Float[Tensor, "n k"], other: Float[Tensor, "k m"], *, scale: float = 1.0
) -> Float[Tensor, "n m"]:
    return (scale * one @ other)[: 99 if scale else 1]


def ones(*shape, dtype=torch.float64):
    return torch.ones(shape, dtype=dtype)


def test_functions_and_dataclasses_of_the_package_are_checked():
    for call in (lambda: solid_harmonics(ones(2, 2), 1), lambda: Chain("hot")):
        with pytest.raises(BeartypeException):
            call()


def test_letters_mean_one_number_within_a_call():
    for _ in range(2):  # also where another call has passed
        assert product(ones(2, 3), ones(3, 4), scale=2).shape == (2, 4)
        for one, other in (
            (ones(2, 3), ones(2, 4)),
            (ones(2), ones(3, 4)),
            (ones(2, 3, dtype=torch.int64), ones(3, 4)),
            ([[1.0]], ones(1, 4)),
        ):
            with pytest.raises(BeartypeException):
                product(one, other)
        with pytest.raises(BeartypeException):
            product(ones(2, 3), other=ones(3, 4), scale="2")
    with pytest.raises(BeartypeException, match="return value"):
        product(ones(2, 3), ones(3, 4), scale=0)  # a result of another shape


def test_lists_and_tuples_with_shapes_are_checked_whenever_they_are_given():
    @checked
    def total(
        parts: list[Float[Tensor, " n"]], *more: Float[Tensor, " n"]
    ) -> tuple[int, Float[Tensor, " n"]]:
        return len(parts), sum([*parts, *more])

    @checked
    def first(parts: list[Float[Tensor, " n"]]) -> tuple[int, Float[Tensor, " n"]]:
        return len(parts), parts[0][:2]

    assert total([ones(3)], ones(3))[0] == 1
    assert first([ones(2)])[0] == 1
    for call in (
        lambda: total([ones(3)], ones(2)),
        lambda: total([ones(3, 1)]),
        lambda: first([ones(2, 2)]),
        lambda: first([ones(3)]),  # a result of another shape
    ):
        with pytest.raises(BeartypeException):
            call()


def test_what_cannot_be_checked_leaves_the_rest_checked():
    @checked
    def describe(it: Named, how: "Callable[[str], str]", n: int) -> "str":
        return how(it.name) * n

    assert describe(np.zeros(1).dtype, str, 2) == "float64" * 2
    with pytest.raises(BeartypeException):
        describe(np.zeros(1).dtype, str, "2")


def test_functions_within_functions_are_checked():
    def made(offset):
        @checked
        def shifted(x: float, y: int = 0) -> int:
            return x + y + offset

        return shifted

    assert made(1)(2) == 3
    for call in (lambda: made(1)("2"), lambda: made(0.5)(2), lambda: made(1)(2, y=0.5)):
        with pytest.raises(BeartypeException):
            call()
    with pytest.raises(TypeError):
        made(1)(2, 3, 4)
