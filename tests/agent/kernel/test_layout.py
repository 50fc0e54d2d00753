"""The reader of bpf/wire.h."""

from __future__ import annotations

import pytest

from agent.kernel import layout


def test_members_take_the_order_types_and_sizes_of_the_header() -> None:
    header = "#define SONDE_N 3\nstruct s {\n\tu64 a;\n\ts64 b; /* why */\n\tu32 c[SONDE_N];\n\tu32 d[2];\n};\n"
    dtype = layout.struct_dtype(header, "s")
    assert dtype.names == ("a", "b", "c", "d")
    assert [dtype.fields[name][1] for name in dtype.names] == [0, 8, 16, 28]
    assert dtype.itemsize == 40


def test_comments_over_lines_are_not_members() -> None:
    header = "struct s {\n\tu64 a; /* first\n\t\t* and more */\n\tu64 b;\n};\n"
    assert layout.struct_dtype(header, "s").names == ("a", "b")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [("\tu16 a;", "a is a u16"), ("\tu64 a, b;", "cannot read 'u64 a, b;'"), ("\tstruct t a;", "cannot read")],
)
def test_what_cannot_be_read_is_an_error_that_names_it(line: str, complaint: str) -> None:
    with pytest.raises(layout.LayoutError, match=complaint):
        layout.struct_dtype(f"struct s {{\n{line}\n}};\n", "s")


def test_a_missing_struct_is_named() -> None:
    with pytest.raises(layout.LayoutError, match="no struct nowhere"):
        layout.struct_dtype("", "nowhere")


def test_every_value_lies_below_its_bucket_s_upper_bound_and_not_below_the_one_before() -> None:
    for value in [*range(5000), 10**6, 10**9, 2**32 - 1]:
        index = layout.bucket_index(value)
        assert (layout.bucket_upper_us(index - 1) if index else 0) <= value < layout.bucket_upper_us(index)


def test_values_beyond_the_range_fall_into_the_last_bucket() -> None:
    assert layout.bucket_index(2**40) == layout.bucket_index(2**32 - 1) < layout.BUCKETS
