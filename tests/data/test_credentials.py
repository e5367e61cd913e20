"""Passwords, keys and signatures of an address or a recipe appear in no message and no file."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from helpers.sample_store import SAMPLE

from dpo_data.ingest import paths
from dpo_data.schema import DataError
from flows.output import failure
from flows.recipe import load

SECRET = "S3CR3T/pa+ss"
ADDRESSES = [
    f"ftp://user:{SECRET}@127.0.0.1:9/a.jsonl",
    f"s3://KEYID1234:{SECRET}@bucket/a.jsonl",
    f"https://{SECRET.replace('/', '')}@host.invalid/a.jsonl",
    f"https://host.invalid/a.jsonl?X-Amz-Date=1&X-Amz-Signature={SECRET}",
    f"simplecache::https://user:{SECRET}@host.invalid/a.jsonl?token={SECRET}",
    f"az://box/a.jsonl?sv=2024&sig={SECRET}",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_masked_and_still_names_its_file(address: str) -> None:
    masked = paths.masked(f"source x: {address}: cannot be read")
    assert "S3CR3T" not in masked and "pa+ss" not in masked
    assert "a.jsonl" in masked and masked.endswith("cannot be read")


@pytest.mark.parametrize(
    "text",
    [
        "hf://datasets/user/repo@main/data/a.parquet",
        "s3://bucket/day-?/part*.jsonl",
        "https://host.invalid:8080/a/b.jsonl",
        "What? a=b, see /tmp/a@b:c",
        "task-oriented-dialogue-with-tools",
    ],
)
def test_an_address_without_credentials_is_shown_as_it_is(text: str) -> None:
    assert paths.masked(text) == text


@pytest.mark.parametrize("address", ["ftp://user:{}@127.0.0.1:9/a.jsonl", "nosuch://user:{}@host/a.jsonl?sig={}"])
@pytest.mark.parametrize("cache", [True, False])
def test_a_remote_source_that_cannot_be_read_keeps_its_secret(address: str, cache: bool, tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        paths.find(address.replace("{}", SECRET), tmp_path if cache else None)
    assert "S3CR3T" not in str(raised.value)
    assert "environment" in str(raised.value) or not cache


def test_a_driver_that_quotes_the_parts_of_an_address_is_masked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import fsspec

    class Quoting(fsspec.AbstractFileSystem):  # type: ignore[misc]
        protocol = "quoting"

        def find(self, path: str, **_: object) -> list[str]:
            raise OSError(f"login of 'user' with 'hunter2hunter2' refused for {path}")

    fsspec.register_implementation("quoting", Quoting, clobber=True)
    with pytest.raises(DataError) as raised:
        paths.find("quoting://user:hunter2hunter2@host/a.jsonl", tmp_path)
    assert "hunter2" not in str(raised.value) and "refused" in str(raised.value)


@pytest.mark.parametrize(
    "line",
    [
        "hf_token: {}",
        "apiKey: {}",
        "training: {password: {}}",
        "sources: [{name: x, path: a, storage_options: {secret: {}, region: eu}}]",
        "sources: [{name: x, path: 's3://KEY:{}@b/a.jsonl', nosuch: 1}]",
        "token: {}: broken",
        "sources: [{}, 'https://h.invalid/?sig={}']",
    ],
)
def test_a_recipe_error_does_not_show_a_secret(line: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(line.replace("{}", "S3CR3T" if "[{}" not in line else "1").replace("sig=1", "sig=S3CR3T"))
    from flows.recipe import train_config

    with pytest.raises(DataError) as raised:
        train_config(load(recipe))
    assert "S3CR3T" not in "".join(failure(raised.value))
    with pytest.raises(DataError) as raised:
        load(recipe, ["training.api_key.x=hf_S3CR3TS3CR3TS3CR3T", "nosuch.token=S3CR3T"])
    assert "S3CR3T" not in "".join(failure(raised.value))


def test_a_wrong_value_without_a_secret_is_shown(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("curation: {tokenizer: 17, sizes: {max_response_tokens: many}}")
    with pytest.raises(DataError, match=r"found 17.*found 'many'"):
        load(recipe)


@pytest.fixture
def signed(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A signed address of a file of the sample on a server of this machine."""
    content = (SAMPLE / "studio.csv").read_bytes()

    class Files(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = self.path == f"/day/studio.csv?X-Amz-Signature={SECRET}"
            self.send_response(200 if allowed else 403)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/day/studio.csv?X-Amz-Signature={SECRET}"
    server.shutdown()
    server.server_close()


def test_the_ending_of_a_signed_address_is_that_of_its_path() -> None:
    assert paths.is_data(Path(f"https://h.invalid/a/b.jsonl.gz?sig={SECRET}&x=a.zip"))
    assert not paths.is_data(Path("https://h.invalid/a/b.zip?name=c.jsonl"))
    assert paths.is_data(Path("really? yes.jsonl"))


def test_a_signed_file_is_read_and_its_signature_is_kept_nowhere(signed: str, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    (file,) = paths.find(signed, tmp_path)
    assert file.name == "studio.csv" and file.read_bytes() == (SAMPLE / "studio.csv").read_bytes()
    assert not any("S3CR3T" in str(path) or "Signature" in str(path) for path in tmp_path.rglob("*"))
