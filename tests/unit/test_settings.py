"""Numbers that are put into a program when it is loaded."""

import struct

import pytest

from zctrace.collect import settings

MARK = 0x7A637472


def constant(low, high, registers=1):
    return struct.pack("=BBhi", 0x18, registers, 0, low) + struct.pack("=BBhi", 0, 0, 0, high)


def setting(name):
    return constant(settings.NAMES.index(name), MARK)


EXIT = struct.pack("=BBhi", 0x95, 0, 0, 0)


@pytest.mark.parametrize("value", [0, 7, 1 << 31, 0xFFFFFFFF81234567, (1 << 64) - 1])
def test_a_value_is_put_in_wherever_its_setting_is(value):
    program = setting("NONCE") + EXIT + setting("NONCE") + EXIT
    low, high = struct.unpack("=ii", struct.pack("=Q", value))
    there = constant(low, high)
    assert settings.put_in(program, {"NONCE": value}) == there + EXIT + there + EXIT


def test_each_setting_gets_its_own_value():
    program = b"".join(map(setting, settings.NAMES)) + EXIT
    values = {name: number + 1000 for number, name in enumerate(settings.NAMES)}
    there = b"".join(constant(value, 0) for value in values.values())
    assert settings.put_in(program, values) == there + EXIT


def test_minus_one_has_all_bits_set():
    assert settings.put_in(setting("ROUTINE_SITE"), {"ROUTINE_SITE": -1}) == constant(-1, -1)


def test_other_constants_and_maps_stay():
    program = constant(1, MARK, registers=0x11) + constant(MARK, 1) + EXIT
    assert settings.put_in(program, {}) == program


def test_a_setting_without_a_value_is_an_error():
    with pytest.raises(KeyError, match="PLACE_SITE"):
        settings.put_in(setting("PLACE_SITE"), {"NONCE": 1})


def test_no_two_settings_share_a_name():
    assert len(set(settings.NAMES)) == len(settings.NAMES)
