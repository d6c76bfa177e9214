"""What a file or device lies on."""

import pytest

from zctrace.collect import beneath, mounts

DISK, TMPFS, OVERLAY, SHARED, NESTED = 8 << 20 | 1, 25, 30, 31, 32
MOUNTS = tuple(
    mounts.parse(
        [
            b"20 1 8:1 / / rw - ext4 /dev/sda1 rw",
            b"21 20 0:25 / /run rw - tmpfs tmpfs rw",
            b"22 20 0:30 / /etc rw - overlay tmp rw,lowerdir=/etc,upperdir=/run/u,workdir=/run",
            b"23 20 0:31 / /mnt rw - 9p /dev/root rw,trans=virtio,msize=512000",
            b"24 20 0:32 / /n rw - overlay x rw,lowerdir=/etc/l,upperdir=/run/u2,workdir=/run",
        ]
    )
)


@pytest.fixture(autouse=True)
def sysfs(tmp_path, monkeypatch):
    """Devices as sysfs has them."""
    monkeypatch.setattr(beneath, "_SYSFS", tmp_path / "dev")
    pci = tmp_path / "devices/pci0000:00/0000:00:0c.0"
    for name, node in (
        ("8:1", pci / "ata1/host0/target0:0:0/0:0:0:0/block/sda/sda1"),
        ("254:0", pci / "virtio3/block/vda"),
        ("7:0", tmp_path / "devices/virtual/block/loop0"),
        ("253:0", tmp_path / "devices/virtual/block/dm-0"),
    ):
        node.mkdir(parents=True)
        (tmp_path / "dev/block").mkdir(parents=True, exist_ok=True)
        (tmp_path / "dev/block" / name).symlink_to(node)
    (pci / "ata1/host0/target0:0:0/0:0:0:0/block/sda/sda1/partition").write_text("1")
    for device, driver in (
        (pci, "ahci"),
        (pci / "ata1/host0/target0:0:0/0:0:0:0", "sd"),
        (pci / "virtio3", "virtio_blk"),
    ):
        (tmp_path / "drivers" / driver).mkdir(parents=True)
        (device / "driver").symlink_to(tmp_path / "drivers" / driver)


@pytest.mark.parametrize(
    ("number", "driver"),
    [
        (DISK, "ahci"),  # the adapter's, not the disk's
        (254 << 20, "virtio_blk"),
        (7 << 20, "loop"),
        (253 << 20, "dm"),
        (99 << 20, beneath.UNKNOWN),
    ],
)
def test_the_driver_that_moves_a_device_s_bytes(number, driver):
    assert beneath.of_block_device(number) == driver


@pytest.mark.parametrize(
    ("device", "parts"),
    [
        (DISK, ("ahci",)),
        (TMPFS, ()),
        # A layer may be the folder that the overlay hides.
        (OVERLAY, ("ahci", "ext4", "tmpfs")),
        (SHARED, ("9pnet_virtio",)),
        (NESTED, (beneath.UNKNOWN,)),
        (99, ()),
    ],
)
def test_what_a_file_system_is_on(device, parts):
    assert beneath.of_file_system(device, MOUNTS) == parts
