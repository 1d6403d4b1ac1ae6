import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.cluster.lsn import format_lsn, parse_lsn


def test_a_position_reads_as_postgresql_writes_it():
    assert parse_lsn("0/3000060") == 0x3000060
    assert parse_lsn("16/B374D848") == 0x16B374D848
    assert format_lsn(0x16B374D848) == "16/B374D848"


@given(st.integers(min_value=0, max_value=(1 << 64) - 1))
def test_every_position_survives_the_round_trip(lsn):
    assert parse_lsn(format_lsn(lsn)) == lsn


@pytest.mark.parametrize("text", ["", "0", "0/", "/0", "0/0 ", "0/1234567890", "g/0", "0/0/0", "-1/0", "٣/0"])
def test_what_postgresql_does_not_write_is_refused(text):
    with pytest.raises(ValueError, match="is no LSN"):
        parse_lsn(text)


@pytest.mark.parametrize("lsn", [-1, 1 << 64])
def test_a_number_beyond_64_bits_is_no_position(lsn):
    with pytest.raises(ValueError, match="is no LSN"):
        format_lsn(lsn)
