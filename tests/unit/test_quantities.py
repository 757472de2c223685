import pytest

from minidisc.errors import UserError
from minidisc.quantities import BYTES, MILLISECONDS, PARAMETERS, SHARE, parameters_text, quantity


@pytest.mark.parametrize(
    ("text", "units", "value"),
    [
        ("2M", PARAMETERS, 2_000_000),
        ("2000000", PARAMETERS, 2_000_000),
        ("1.5 B", PARAMETERS, 1_500_000_000),
        ("20MB", BYTES, 20_000_000),
        ("20MiB", BYTES, 20 * 1024**2),
        ("3ms", MILLISECONDS, 3),
        ("0.5 s", MILLISECONDS, 500),
        ("1%", SHARE, 0.01),
        ("0.01", SHARE, 0.01),
        ("1e-2", SHARE, 0.01),
        ("0.7%", SHARE, 0.007),
        ("5.6%", SHARE, 0.056),
    ],
)
def test_values(text, units, value):
    assert quantity("--x", text, units, "1") == value


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("20", BYTES),
        ("20mb", BYTES),
        ("-2M", PARAMETERS),
        ("0", SHARE),
        ("much", SHARE),
        ("1.2.3%", SHARE),
        ("", SHARE),
    ],
)
def test_what_is_none_is_refused(text, units):
    with pytest.raises(UserError, match="such as 7") as error:
        quantity("--x", text, units, "7")
    assert f"--x is {text!r}" in str(error.value)


def test_numbers_of_parameters():
    """Small models have some too, and none is told as 0.00 M."""
    counts = (390, 999, 4650, 99_994, 123_456, 85_054_464, 1_034_000_000)
    assert [*map(parameters_text, counts)] == ["390", "999", "4.65 k", "99.99 k", "0.12 M", "85.05 M", "1.03 B"]
    assert parameters_text(389.5) == "390"
