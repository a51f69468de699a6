"""Images inside other files: what is damaged is an error of its own, and groups are read once."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from paliflow.jobs.media import places
from paliflow.jobs.media.places import place_item, row_place
from paliflow.jobs.media.reading import read_content

RECORDS = [random.Random(seed).randbytes(3000) for seed in range(4)]
THREADS = 8


def read(file: Path, row: int) -> bytes:
    item = place_item(row_place(str(file), row, "data"), None, None)
    assert item
    return read_content(item, ())


def damage(file: Path, record: bytes) -> None:
    """Changes one byte in the middle of a record."""
    content = file.read_bytes()
    at = content.index(record) + len(record) // 2
    file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])


def test_a_damaged_record_is_an_error_that_names_its_file_and_the_others_are_read(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.array_record"
    writer = ArrayRecordWriter(str(file), "group_size:1,uncompressed")
    for record in RECORDS:
        writer.write(record)
    writer.close()
    damage(file, RECORDS[1])
    for row in (0, 1, 2, 3, 1, 0):
        if row == 1:
            with pytest.raises(ValueError, match=r"^a\.array_record is broken: Corrupted"):
                read(file, row)
        else:
            assert read(file, row) == RECORDS[row]
    with pytest.raises(ValueError, match=r"^a\.array_record is broken: index 4"):
        read(file, 4)


def test_a_damaged_row_group_is_an_error_that_names_its_file(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    table = pa.table({"data": pa.array(RECORDS, pa.binary())})
    options = {"compression": "none", "use_dictionary": False, "row_group_size": 1}
    pq.write_table(table, file, **options)
    content = file.read_bytes()
    header = content.index(RECORDS[1]) - 40  # of the page
    file.write_bytes(content[:header] + b"\xff" * 30 + content[header + 30 :])
    with pytest.raises(ValueError, match=r"^a\.parquet is broken: "):
        read(file, 1)
    assert read(file, 2) == RECORDS[2]


def test_threads_that_want_the_same_row_groups_load_each_once(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    records = [each * 500 for each in RECORDS]
    table = pa.table({"data": pa.array(records, pa.binary())})
    pq.write_table(table, file, row_group_size=2, compression="none")
    places._column.cache_clear()
    together = Barrier(THREADS)

    def read_all(number: int) -> bool:
        together.wait()
        # Half of them are in the next group already.
        rows = [0, 2, 1, 3] if number % 2 else [2, 0, 3, 1]
        return all(read(file, row) == records[row] for row in rows)

    with ThreadPoolExecutor(THREADS) as pool:
        assert all(pool.map(read_all, range(THREADS)))
    assert places._column.cache_info().misses == 2
