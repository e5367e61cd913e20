"""Raw files on S3, read from a server that speaks its protocol; skipped where s3fs or moto is not installed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.sample_store import SAMPLE

from dpo_data.ingest import paths
from dpo_data.ingest.append import append_batch
from dpo_data.schema import DataError
from dpo_data.store import batches

pytest.importorskip("s3fs")
motoserver = pytest.importorskip("moto.server")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty bucket."""
    import boto3

    server = motoserver.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    boto3.client("s3").create_bucket(Bucket="raw")
    yield "raw"
    server.stop()


@pytest.mark.filterwarnings("default")  # of boto3's own deprecations
def test_a_folder_on_s3_is_read_and_a_changed_object_is_fetched_again(bucket: str, tmp_path: Path) -> None:
    import boto3

    client = boto3.client("s3")
    for key, name in (("day one/forum.jsonl", "forum.jsonl"), ("day one/deep/studio.csv", "studio.csv")):
        client.upload_file(str(SAMPLE / name), bucket, key)
    cache, store = tmp_path / "remote", tmp_path / "store"
    found = paths.find(f"s3://{bucket}/day one", cache)
    assert [path.name for path in found] == ["studio.csv", "forum.jsonl"]
    append_batch(store, found, "s3")
    local = append_batch(tmp_path / "local", [SAMPLE / "forum.jsonl", SAMPLE / "studio.csv"], "s3")
    assert batches.open_batches(store).digest == batches.open_batches(tmp_path / "local").digest
    assert local.records > 0
    assert paths.find(f"s3://{bucket}/day one/*.jsonl", cache)[0].read_bytes() == (SAMPLE / "forum.jsonl").read_bytes()
    assert append_batch(store, paths.find(f"s3://{bucket}/day one", cache), "s3").batch is None
    client.upload_file(str(SAMPLE / "judged.jsonl"), bucket, "day one/forum.jsonl")
    again = paths.find(f"s3://{bucket}/day one/forum.jsonl", cache)
    assert again[0].read_bytes() == (SAMPLE / "judged.jsonl").read_bytes()
    with pytest.raises(DataError, match="nothing there"):
        paths.find(f"s3://{bucket}/nobody", cache)
