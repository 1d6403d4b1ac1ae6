import pytest

from appliance.postgres.instance import LOOK, SHOWN_SYNC_VERSION, UNKNOWN_SYNC_VERSION, read_sync_version


@pytest.mark.parametrize(
    ("shown", "version"),
    [("0", 0), ("17", 17)]
    + [(other, UNKNOWN_SYNC_VERSION) for other in (None, "", "-1", "+1", "mine", "1.0", "\u0661x")],
)
def test_a_version_is_digits_or_unknown(shown, version):
    assert read_sync_version(shown) == version


def test_no_agreed_version_is_taken_for_an_unknown_one():
    assert UNKNOWN_SYNC_VERSION < 0


def test_a_look_asks_for_the_version_as_a_new_connection_is_asked():
    assert SHOWN_SYNC_VERSION in LOOK
