"""A start finds every record that anybody may rely on, or refuses and says where: small logs, every byte."""

from __future__ import annotations

import zlib

import pytest

from tega_zmq.errors import StorageError
from tega_zmq.log import Options, marks, segment, snapshot
from tega_zmq.log.fileheader import SEGMENT, SNAPSHOT, Header, pack
from tega_zmq.log.framing import encode, seed_of
from tests.fakedisk import FakeDisk
from tests.logkit import FOLDER, SMALL, goes_on, outcome, start, state, take_restart, take_snapshot

FIRST = f"{FOLDER}/log/{segment.name_of(1)}"


def written(*batches: list[bytes], clean: bool = False, options: Options = SMALL) -> FakeDisk:
    disk = FakeDisk()
    log = start(disk, options).log
    for batch in batches:
        log.append_batch(batch)
    log.close(clean=clean)
    return disk.copy()


def names(disk: FakeDisk) -> list[str]:
    return [path.removeprefix(FOLDER + "/") for path in sorted(disk.names)]


def segments(disk: FakeDisk) -> list[str]:
    return [f"{FOLDER}/log/{name}" for _, name in segment.names(disk, FOLDER)]


MIXED = [[b"one"], [b"two" * 30, b"", b"\0" * 300], [b"four"], [b"x" * 150, b"last one"]]
ONE = Options(segment=4096 + 1500)
"""All of them fit into one segment."""
ALL = [payload for batch in MIXED for payload in batch]


def payloads_of(count: int) -> list[bytes]:
    return [b"record %d" % number * 3 for number in range(1, count + 1)]


# -- starts and stops that nothing went wrong in -----------------------------------------------------------


def test_a_first_start_makes_a_store() -> None:
    disk = FakeDisk()
    opened = start(disk)
    assert state(opened) == []
    assert opened.report.fresh
    assert opened.report.clean
    assert opened.report.store == "store-1"
    assert names(disk) == ["log/" + segment.name_of(1), "store"]
    goes_on(disk.copy(), [])


@pytest.mark.parametrize("sync", ["always", "interval", "none"])
def test_an_orderly_stop_is_known_as_such(sync: str) -> None:
    options = SMALL._replace(sync=sync)
    disk = written(*MIXED, clean=True, options=options)
    opened = start(disk, options)
    assert state(opened) == ALL
    assert opened.report.clean
    assert opened.report.torn is None
    assert not opened.report.fresh
    opened.log.close(clean=False)
    opened = start(disk.copy(), options)
    assert not opened.report.clean
    goes_on(disk.copy(), ALL, options)


def test_the_log_goes_on_in_further_segments() -> None:
    payloads = payloads_of(60)
    disk = written(*([payload] for payload in payloads))
    assert len(segments(disk)) > 3
    assert outcome(disk)[0] == payloads  # type: ignore[index]
    goes_on(disk.copy(), payloads)


def test_a_batch_larger_than_a_segment_gets_one_that_is_large_enough() -> None:
    payloads = [b"small", b"x" * 5000, b"y" * 9000, b"small too"]
    disk = written([payloads[0]], payloads[1:3], [payloads[3]])
    assert outcome(disk)[0] == payloads  # type: ignore[index]
    goes_on(disk.copy(), payloads)


def test_a_segment_that_is_full_to_the_last_byte_has_its_seal() -> None:
    for length in range(400, 640):
        payloads = [b"a" * length, b"b"]
        disk = written([payloads[0]], [payloads[1]])
        assert outcome(disk)[0] == payloads  # type: ignore[index]


# -- cut ---------------------------------------------------------------------------------------------------


def test_the_log_cut_at_every_byte() -> None:
    disk = written(*MIXED, options=ONE)
    whole = disk.content(FIRST)
    end = len(whole.rstrip(b"\0"))
    for cut in range(end + 9):
        broken = disk.copy()
        broken.put(FIRST, whole[:cut])
        result = outcome(broken)
        if isinstance(result, StorageError):
            # Only where the header of the file is cut: no crash leaves that.
            assert cut < 100, cut
            assert FIRST in result.message
            assert "byte 0" in result.message
            continue
        payloads, report = result
        assert payloads == ALL[: len(payloads)]
        if cut >= end - 8:
            assert payloads == ALL
        if report.torn is not None:
            assert report.torn.lsn == len(payloads) + 1
            assert report.torn.offset + report.torn.size <= cut
            kept = broken.content(f"{FOLDER}/{report.torn.kept}")
            assert kept == whole[report.torn.offset : report.torn.offset + report.torn.size]
        if cut % 7 == 0:
            goes_on(broken.copy(), payloads)


def test_any_prefix_of_the_last_write_with_zeros_behind() -> None:
    disk = written(*MIXED, options=ONE)
    whole = disk.content(FIRST)
    before = written(*MIXED[:-1], options=ONE).content(FIRST)
    start_of_last = len(before.rstrip(b"\0")) // 8 * 8
    for cut in range(start_of_last, len(whole.rstrip(b"\0"))):
        broken = disk.copy()
        broken.put(FIRST, whole[:cut] + bytes(len(whole) - cut))
        result = outcome(broken)
        assert not isinstance(result, StorageError), (cut, result)
        payloads, report = result
        assert payloads == ALL[: len(payloads)]
        assert len(payloads) >= 5
        assert (report.torn is None) == (
            broken.content(FIRST)[: len(whole)] == (whole[:cut] + bytes(len(whole) - cut))
        )
        goes_on(broken.copy(), payloads)


def test_a_log_that_an_orderly_stop_vouches_for_is_not_shorter_by_a_byte() -> None:
    disk = written(*MIXED, clean=True, options=ONE)
    whole = disk.content(FIRST)
    end = len(whole.rstrip(b"\0"))
    for cut in range(end):
        for behind in (b"", bytes(len(whole) - cut)):
            broken = disk.copy()
            broken.put(FIRST, whole[:cut] + behind)
            result = outcome(broken)
            if isinstance(result, StorageError):
                assert FIRST in result.message
            else:
                assert cut >= end - 8
                assert result[0] == ALL


def test_torn_tails_are_kept_but_not_without_end() -> None:
    disk = written([b"start"])
    expected = [b"start"]
    for number in range(40):
        opened = start(disk)
        assert state(opened) == expected
        opened.log.append_batch([b"kept %d" % number])
        opened.log.append_batch([b"torn %d" % number])
        expected.append(b"kept %d" % number)
        path = segments(disk)[-1]
        content = disk.content(path)
        disk = disk.copy()
        disk.put(path, content[: content.index(b"torn ") + 3].ljust(len(content), b"\0"))
    opened = start(disk)
    assert state(opened) == expected
    assert opened.report.torn is not None
    torn = [name for name in names(disk) if ".torn-" in name]
    assert len(torn) == 16
    assert opened.report.torn.kept == torn[-1]


def test_a_segment_that_was_cut_is_not_written_to_again() -> None:
    disk = written([b"one"], [b"two"], options=ONE)
    content = disk.content(FIRST)
    disk.put(FIRST, content[: 4096 + 48 + 42].ljust(len(content), b"\0"))
    opened = start(disk, ONE)
    assert opened.report.torn is not None
    opened.log.append_batch([b"other two"])
    assert segments(disk) == [FIRST, f"{FOLDER}/log/{segment.name_of(2)}"]
    assert b"other two" not in disk.content(FIRST)
    # Its seal tells if the new one is lost.
    assert len(disk.content(FIRST)) == 4096 + 48 + 48
    disk.put(segments(disk)[1], None)
    assert isinstance(outcome(disk.copy(), ONE), StorageError)


def test_what_looks_torn_but_is_vouched_for_is_damage() -> None:
    disk = written([b"one" * 300], [b"two"], [b"three"], options=ONE)
    content = bytearray(disk.content(FIRST))
    content[4096 + 512 : 4096 + 944] = bytes(432)
    disk.put(FIRST, bytes(content))
    result = outcome(disk)
    assert isinstance(result, StorageError)
    assert "was not written" in result.message
    assert "up to 2 were durable" in result.message


# -- flipped -----------------------------------------------------------------------------------------------


def flips(byte: int) -> set[int]:
    return {byte ^ 1, byte ^ 0x80, byte ^ 0xFF, 0} - {byte}


@pytest.mark.parametrize("clean", [False, True])
def test_every_byte_of_the_log_flipped(clean: bool) -> None:
    disk = written(*MIXED, clean=clean, options=ONE)
    whole = disk.content(FIRST)
    refused = 0
    for offset in range(len(whole)):
        if 104 < offset < 4090 and offset % 64:
            continue  # of the empty part of the header's page, a sample
        for byte in flips(whole[offset]):
            broken = disk.copy()
            broken.put(FIRST, whole[:offset] + bytes([byte]) + whole[offset + 1 :])
            result = outcome(broken)
            if isinstance(result, StorageError):
                refused += 1
                assert FIRST in result.message
                assert "tega-check" in result.message
                assert (
                    offset < 4096
                    or f"at byte {offset // 8 * 8}" in result.message
                    or "at byte" in result.message
                )
            else:
                assert result[0] == ALL, (offset, byte, result[1])
    assert refused > 1000


def test_every_byte_of_every_other_file_flipped() -> None:
    disk = FakeDisk()
    log = start(disk).log
    payloads: list[bytes] = []
    for number in range(30):
        payloads.append(b"%d" % number * 20)
        log.append_batch([payloads[-1]])
        if number in (9, 19):
            take_snapshot(log, payloads)
    log.close()
    disk = disk.copy()
    assert outcome(disk.copy())[0] == payloads  # type: ignore[index]
    for path in sorted(disk.names):
        whole = disk.content(path)
        for offset in range(len(whole)):
            if path.endswith(".log") and not (offset < 104 or offset > 4090):
                continue
            broken = disk.copy()
            broken.put(path, whole[:offset] + bytes([whole[offset] ^ 0x10]) + whole[offset + 1 :])
            result = outcome(broken)
            assert isinstance(result, StorageError) or result[0] == payloads, (path, offset)


# -- files that are missing, empty, swapped, doubled, foreign ---------------------------------------------


def long_log(clean: bool = False) -> tuple[FakeDisk, list[bytes]]:
    payloads = payloads_of(40)
    return written(*([payload] for payload in payloads), clean=clean), payloads


@pytest.mark.parametrize("clean", [False, True])
def test_a_segment_that_is_missing(clean: bool) -> None:
    disk, _ = long_log(clean)
    for path in segments(disk):
        broken = disk.copy()
        broken.put(path, None)
        result = outcome(broken)
        assert isinstance(result, StorageError), path
        assert "not there" in result.message


def test_all_segments_missing() -> None:
    disk, _ = long_log()
    for path in segments(disk):
        disk.put(path, None)
    result = outcome(disk)
    assert isinstance(result, StorageError)
    assert "there is no segment" in result.message


@pytest.mark.parametrize("content", [b"", b"\0" * 50, b"\0" * 4696, b"tega-log", b"x" * 4696])
def test_a_segment_that_is_empty_or_something_else(content: bytes) -> None:
    disk, _ = long_log()
    for path in segments(disk):
        broken = disk.copy()
        broken.put(path, content)
        result = outcome(broken)
        assert isinstance(result, StorageError)
        assert path in result.message


def test_segments_that_are_swapped_or_doubled() -> None:
    disk, payloads = long_log()
    paths = segments(disk)
    for one in paths:
        for other in paths:
            if one == other:
                continue
            swapped = disk.copy()
            swapped.put(one, disk.content(other))
            swapped.put(other, disk.content(one))
            result = outcome(swapped)
            assert isinstance(result, StorageError)
            assert "mixed up" in result.message
            doubled = disk.copy()
            doubled.put(one, disk.content(other))
            assert isinstance(outcome(doubled), StorageError)
    beside = disk.copy()
    beside.put(paths[0] + ".copy", disk.content(paths[0]))
    beside.put(f"{FOLDER}/log/note.txt", b"hello")
    beside.put(f"{FOLDER}/log/{'9' * 19}x.log", b"hello")
    assert outcome(beside)[0] == payloads  # type: ignore[index]
    further = disk.copy()
    further.put(f"{FOLDER}/log/{segment.name_of(41)}", disk.content(paths[0]))
    assert isinstance(outcome(further), StorageError)


def test_a_segment_of_another_store() -> None:
    disk, _ = long_log()
    other = FakeDisk()
    log = start(other, store="store-2").log
    for payload in payloads_of(40):
        log.append_batch([payload])
    for path in segments(disk):
        broken = disk.copy()
        broken.put(path, other.content(path))
        result = outcome(broken)
        assert isinstance(result, StorageError)
        assert "store-2" in result.message


def test_an_older_copy_of_the_last_segment_is_noticed_when_something_vouches_for_more() -> None:
    disk = written(*MIXED, clean=True, options=ONE)
    disk.put(FIRST, written(*MIXED[:2], options=ONE).content(FIRST))
    result = outcome(disk)
    assert isinstance(result, StorageError)
    assert "record 5" in result.message
    assert "up to 7" in result.message


def test_what_a_newer_program_wrote_is_refused_as_such() -> None:
    disk, _ = long_log()
    for path, at in ((FIRST, 8), (f"{FOLDER}/store", disk.content(f"{FOLDER}/store").index(b"1"))):
        newer = disk.copy()
        content = bytearray(disk.content(path))
        content[at] += 1
        if path.endswith("store"):
            content[-9:-1] = b"%08x" % zlib.crc32(content[:-13])
        else:
            # Without a checksum that fits it would be a damaged one.
            content[96:100] = zlib.crc32(content[:96]).to_bytes(4, "little")
        newer.put(path, bytes(content))
        result = outcome(newer)
        assert isinstance(result, StorageError)
        assert "format 2" in result.message
        assert path in result.message


def test_the_mark_of_the_store_comes_back_if_it_is_lost_or_damaged() -> None:
    disk, payloads = long_log()
    for content in (None, b"", b"tega-zmq store\n", b"\xff" * 60):
        broken = disk.copy()
        broken.put(f"{FOLDER}/store", content)
        assert outcome(broken)[0] == payloads  # type: ignore[index]
        assert marks.read(broken, FOLDER, "store") == marks.Mark("store-1")


def test_a_mark_of_an_orderly_stop_that_is_damaged_or_foreign_counts_for_nothing() -> None:
    disk, payloads = long_log(clean=True)
    other = FakeDisk()
    start(other, store="store-2").log.close()
    for content in (b"", disk.content(f"{FOLDER}/store"), other.content(f"{FOLDER}/clean")):
        broken = disk.copy()
        broken.put(f"{FOLDER}/clean", content)
        result = outcome(broken)
        assert not isinstance(result, StorageError)
        assert result[0] == payloads
        assert not result[1].clean


def test_bytes_of_a_record_with_another_number_are_damage() -> None:
    disk = written([b"one"], [b"two"])
    content = bytearray(disk.content(FIRST))
    # The same place, the same store, but an older life of it in which record 3 stood here.
    content[4096 + 48 : 4096 + 96] = encode([b"two"], 3, 2, seed_of("store-1", 1), 4096 + 48)
    disk.put(FIRST, bytes(content))
    result = outcome(disk)
    assert isinstance(result, StorageError)
    assert "record 3 stands here" in result.message


def test_a_new_segment_that_is_still_empty_vouches_for_the_one_before() -> None:
    disk = written([b"one"], [b"two"], [b"three"])
    segment.create(disk, FOLDER, Header("store-1", 1, 1, 4, SMALL.segment))
    goes_on(disk.copy(), [b"one", b"two", b"three"])
    content = disk.content(FIRST)
    disk.put(FIRST, content[: 4096 + 2 * 48])
    result = outcome(disk)
    assert isinstance(result, StorageError)
    assert "record 3" in result.message


# -- snapshots ---------------------------------------------------------------------------------------------


def with_snapshots(
    count: int = 3, kept: int = 2, *, clean: bool = False
) -> tuple[FakeDisk, list[bytes], list[int]]:
    options = SMALL._replace(snapshots=kept)
    disk = FakeDisk()
    log = start(disk, options).log
    payloads: list[bytes] = []
    at = []
    for _ in range(count):
        for number in range(17):
            payloads.append(b"%d" % number * 20)
            log.append_batch([payloads[-1]])
        take_snapshot(log, payloads)
        at.append(len(payloads))
    payloads.append(b"after it")
    log.append_batch(payloads[-1:])
    log.close(clean=clean)
    return disk.copy(), payloads, at


def snapshot_path(lsn: int) -> str:
    return f"{FOLDER}/snapshot/{snapshot.name_of(lsn)}"


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_snapshots_and_what_they_need_are_kept(kept: int) -> None:
    disk, payloads, at = with_snapshots(4, kept)
    assert [lsn for lsn, _ in snapshot.names(disk, FOLDER)] == at[-kept:]
    first = segment.names(disk, FOLDER)[0][0]
    second = segment.names(disk, FOLDER)[1][0]
    assert first <= at[-kept] + 1 <= second
    opened = start(disk)
    assert opened.report.snapshot == at[-1]
    assert state(opened) == payloads
    assert opened.log.size_since_snapshot == 56
    opened.log.close()
    # Each kept one leads to the same state.
    for lsn in reversed(at[-kept:]):
        assert outcome(disk.copy())[0] == payloads  # type: ignore[index]
        disk.put(snapshot_path(lsn), None)
    assert isinstance(outcome(disk.copy()), StorageError) == (len(at) > kept)


def test_a_damaged_snapshot_is_set_aside_for_the_one_before_it() -> None:
    disk, payloads, at = with_snapshots()
    whole = disk.content(snapshot_path(at[-1]))
    broken = [whole[:cut] for cut in range(len(whole))]
    broken += [whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :] for at in range(len(whole))]
    broken += [whole + b"\0", whole[:100], disk.content(snapshot_path(at[-2]))]
    for content in broken:
        copy = disk.copy()
        copy.put(snapshot_path(at[-1]), content)
        result = outcome(copy)
        assert not isinstance(result, StorageError), result
        got, report = result
        assert got == payloads
        assert report.snapshot == at[-2]
        assert report.damaged[0][0] == f"snapshot/{snapshot.name_of(at[-1])}"
        assert copy.content(snapshot_path(at[-1]) + ".damaged") == content
    goes_on(copy, payloads)


def test_chunks_that_are_swapped_doubled_or_missing_show() -> None:
    disk, payloads, at = with_snapshots()
    whole = disk.content(snapshot_path(at[-1]))
    chunks = [whole[start : start + 28] for start in range(100, 380, 28)]
    assert b"".join(chunks) == whole[100:380]
    for middle in (chunks[1:], [chunks[1], chunks[0], *chunks[2:]], [chunks[0], *chunks]):
        copy = disk.copy()
        copy.put(snapshot_path(at[-1]), whole[:100] + b"".join(middle) + whole[380:])
        result = outcome(copy)
        assert not isinstance(result, StorageError)
        assert result[1].snapshot == at[-2]
        assert result[0] == payloads


def test_without_a_whole_snapshot_the_log_alone_will_do_if_it_is_all_there() -> None:
    disk, payloads, at = with_snapshots(1)
    disk.put(snapshot_path(at[0]), b"half of it")
    result = outcome(disk)
    assert not isinstance(result, StorageError)
    assert result[0] == payloads
    assert result[1].snapshot == 0


def test_damaged_snapshots_without_the_records_before_them_are_refused() -> None:
    disk, _, at = with_snapshots(3, 1)
    disk.put(snapshot_path(at[-1]), b"")
    result = outcome(disk)
    assert isinstance(result, StorageError)
    assert "record 1:" in result.message
    assert snapshot.name_of(at[-1]) in result.message


def test_a_snapshot_of_another_store_is_none_of_ours() -> None:
    disk, payloads, at = with_snapshots()
    disk.put(snapshot_path(at[-1]), pack(SNAPSHOT, Header("other", 1, 1, at[-1], 0)) + bytes(16))
    assert outcome(disk)[0] == payloads  # type: ignore[index]
    writer = snapshot.SnapshotWriter(disk, FOLDER, Header("other", 1, 1, at[-1], 0))
    writer.sync()
    writer.publish()
    result = outcome(disk)
    assert not isinstance(result, StorageError)
    assert result[0] == payloads
    assert "belongs to store other" in result[1].damaged[0][1]


def test_a_log_that_ends_before_its_snapshot_is_refused() -> None:
    disk, _, at = with_snapshots(1)
    path = segments(disk)[-1]
    disk.put(path, disk.content(path)[:4096])
    result = outcome(disk)
    assert isinstance(result, StorageError)
    assert f"up to {at[0]} were durable" in result.message
    # So it is if the snapshot is damaged as well.
    disk.put(snapshot_path(at[0]), b"x")
    assert isinstance(outcome(disk), StorageError)


def test_a_snapshot_with_all_segments_missing_is_refused() -> None:
    disk, _, _ = with_snapshots()
    for path in segments(disk):
        disk.put(path, None)
    assert isinstance(outcome(disk), StorageError)
    disk.put(f"{FOLDER}/store", None)
    assert isinstance(outcome(disk), StorageError)


def test_what_an_interrupted_snapshot_or_segment_left_is_swept_away() -> None:
    disk, payloads, _ = with_snapshots()
    disk.put(snapshot_path(99) + ".tmp", b"half")
    disk.put(f"{FOLDER}/log/{segment.name_of(99)}.tmp", b"half")
    assert outcome(disk)[0] == payloads  # type: ignore[index]
    assert not [name for name in names(disk) if name.endswith(".tmp")]


# -- generations -------------------------------------------------------------------------------------------


def test_a_kept_snapshot_never_lacks_the_record_after_it() -> None:
    for length in range(1, 40):
        for count in range(2, 12):
            disk = FakeDisk()
            log = start(disk).log
            payloads = [b"x" * length * 6] * count
            for payload in payloads:
                log.append_batch([payload])
            # A snapshot of what was not the last record any more when it was done.
            writer = log.snapshot(count - 2)
            for payload in payloads[:-2]:
                writer.add(payload)
            writer.sync()
            writer.publish()
            log.options = SMALL._replace(snapshots=1)
            log.prune()
            assert outcome(disk.copy())[0] == payloads  # type: ignore[index]


def test_a_mark_of_another_stop_is_not_of_this_one() -> None:
    disk = written([b"one"], [b"two"])
    marks.write(disk, FOLDER, "clean", marks.Mark("store-1", 1))
    result = outcome(disk)
    assert not isinstance(result, StorageError)
    assert not result[1].clean


def test_records_of_a_generation_that_was_given_up_never_come_back() -> None:
    options = Options(segment=1 << 16)
    disk = FakeDisk()
    opened = start(disk, options)
    opened.log.append_batch([b"one"])
    opened.log.append_batch([b"two"])

    def no_sync(what: str, path: str) -> None:
        # The bytes arrive, but nobody can know; and the tail cannot be cut off either.
        if what in ("sync", "truncate"):
            raise OSError(5, "Input/output error")

    disk.fault = no_sync
    content = disk.names[FIRST]
    content.change_durably(
        4096 + 2 * 48, encode([b"ghost", b"ghost"], 3, 2, seed_of("store-1", 1), 4096 + 96)
    )
    with pytest.raises(StorageError, match="Input/output error"):
        opened.log.append_batch([b"ghost", b"ghost"])
    disk.fault = lambda what, path: None
    unrestarted = disk.copy()
    take_restart(opened.log, [b"one", b"two"])
    assert outcome(disk.copy(), options)[0] == [b"one", b"two"]  # type: ignore[index]
    opened.log.append_batch([b"three"])
    opened.log.close(clean=False)
    assert b"ghost" in disk.content(FIRST)
    assert outcome(disk.copy(), options)[0] == [b"one", b"two", b"three"]  # type: ignore[index]
    # Also when the start falls back behind the new snapshot.
    disk.put(snapshot_path(2), b"damaged")
    assert outcome(disk.copy(), options)[0] == [b"one", b"two", b"three"]  # type: ignore[index]
    # Without the operator's snapshot the tail may come back, whole.
    assert outcome(unrestarted, options)[0] == [b"one", b"two", b"ghost", b"ghost"]  # type: ignore[index]


def test_the_segment_of_a_generation_is_missed_when_it_is_lost() -> None:
    disk = FakeDisk()
    opened = start(disk)
    opened.log.append_batch([b"one"])
    disk.fault = failing("sync")
    with pytest.raises(StorageError):
        opened.log.append_batch([b"two"])
    disk.fault = failing()
    take_restart(opened.log, [b"one"])
    opened.log.append_batch([b"other two"])
    copy = disk.copy()
    copy.put(f"{FOLDER}/log/{segment.name_of(2)}", None)
    result = outcome(copy)
    assert isinstance(result, StorageError)
    assert segment.name_of(2) in result.message


def failing(*operations: str):  # type: ignore[no-untyped-def]
    def fault(what: str, path: str) -> None:
        if what in operations:
            raise OSError(5, "Input/output error")

    return fault


def test_a_generation_that_was_never_used_is_dropped_when_records_before_it_are_lost() -> None:
    options = Options(sync="interval", segment=1 << 16)
    disk = FakeDisk()
    opened = start(disk, options)
    opened.log.append_batch([b"one"])
    opened.log.sync()
    opened.log.append_batch([b"two"])
    disk.fault = failing("sync", "truncate")
    with pytest.raises(StorageError):
        opened.log.sync()
    assert opened.log.last == 2
    disk.fault = failing()
    opened.log.restart(2)  # makes the segment; the snapshot is never published
    # What was not synced is gone, the segment of the new generation is there.
    lost = disk.copy()
    lost.put(FIRST, bytes(disk.names[FIRST].durable))
    result = outcome(lost, options)
    assert not isinstance(result, StorageError)
    assert result[0] == [b"one"]
    assert segments(lost) == [FIRST]
    goes_on(lost.copy(), [b"one"], options)
    # It goes on in a segment of its own; had the dropped one stayed, it would count for nothing.
    after = disk.copy()
    after.put(FIRST, bytes(disk.names[FIRST].durable))
    opened_after = start(after, options)
    opened_after.log.append_batch([b"other two"])
    opened_after.log.append_batch([b"other three"])
    assert segments(after) == [FIRST, f"{FOLDER}/log/{segment.name_of(2)}"]
    after.put(f"{FOLDER}/log/{segment.name_of(3)}", disk.content(f"{FOLDER}/log/{segment.name_of(3)}"))
    assert outcome(after.copy(), options)[0] == [b"one", b"other two", b"other three"]  # type: ignore[index]
    # Had it been used, this would be a refusal.
    used = disk.copy()
    opened.log.snapshot(2)
    used.put(FIRST, bytes(disk.names[FIRST].durable))
    path = f"{FOLDER}/log/{segment.name_of(3)}"
    content = bytearray(used.content(path))
    content[4096] = 1
    used.put(path, bytes(content))
    assert isinstance(outcome(used, options), StorageError)
    # Or if there was a snapshot, which may have been of all that is lost.
    damaged = disk.copy()
    damaged.put(FIRST, bytes(disk.names[FIRST].durable))
    damaged.put(snapshot_path(2), b"damaged")
    assert isinstance(outcome(damaged, options), StorageError)
    # With all that was written still there, nothing is dropped.
    kept = disk.copy()
    assert outcome(kept, options)[0] == [b"one", b"two"]  # type: ignore[index]
    assert len(segments(kept)) == 2


def test_a_segment_whose_header_says_another_length_is_never_written_behind_its_end() -> None:
    disk = FakeDisk()
    start(disk).log.close(clean=False)
    disk.put(FIRST, pack(SEGMENT, Header("store-1", 1, 1, 1, 1 << 20)).ljust(5000, b"\0"))
    goes_on(disk, [])
