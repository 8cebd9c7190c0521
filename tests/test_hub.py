"""Models from the web, by a server on this machine: redirects, broken transfers, wrong bytes, two processes at once."""

import hashlib
import io
import json
import multiprocessing
import os
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from cli_tools import mmace_sim, write_tiny_model
from embedded import IRON_MODEL
from test_published_checkpoints import SHARED, assert_same_results, cases_of, kind_json, write_kind

from mmace_sim.errors import ModelFileError, OutputError, PhysicsWarning
from mmace_sim.hub import download as transfer
from mmace_sim.hub.catalogue import BUILT_IN, RemoteModel, read_catalogue, read_catalogue_file
from mmace_sim.hub.foundations import fetch_foundation, foundation
from mmace_sim.hub.store import installed_models, model_folder
from mmace_sim.interop.install import add_model, get_model
from mmace_sim.model.checkpoint import load_model, read_metadata
from mmace_sim.model.registry import DEFAULT_MODEL, resolve_model


class Server(ThreadingHTTPServer):
    """Serves `body` at /file and redirects to it from /model; misbehaves as the attributes say."""

    body = b""
    drop_after = 0  # close the connection after so many bytes, for this many requests
    n_drops = 0
    ranges = True
    status = 200
    extra = b""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/model"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server = self.server
        if self.path.startswith("/model"):
            self.send_response(302)
            self.send_header("Location", "/file?signature=short-lived")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        wanted = self.headers.get("Range")
        server.requests.append(wanted)
        if server.status != 200:
            self.send_error(server.status)
            return
        start = int(wanted[6:-1]) if wanted and server.ranges else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        rest = server.body[start:] + server.extra
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if server.n_drops:
            server.n_drops -= 1
            self.wfile.write(rest[: server.drop_after])
            self.wfile.flush()
            self.connection.close()
        else:
            self.wfile.write(rest)


@pytest.fixture
def server():
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMACE_SIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(transfer, "PAUSE", 0.001)
    return tmp_path / "cache"


@pytest.fixture
def model_bytes(tmp_path):
    return write_tiny_model(tmp_path / "source.safetensors").read_bytes()


@pytest.fixture
def catalogue(tmp_path, server, model_bytes, monkeypatch, cache):  # noqa: ARG001 - sets the cache
    """A catalogue with one model, `tiny`, on the server; returns how to change its fields."""
    server.body = model_bytes

    def write(**changes):
        fields = {
            "url": server.url,
            "filename": "tiny.model",
            "size": len(model_bytes),
            "sha256": hashlib.sha256(model_bytes).hexdigest(),
            "license": "CC-BY-4.0",
            "citation": "nobody",
            "elements": "Al Fe",
        } | changes
        file = tmp_path / "catalogue.yaml"
        file.write_text(yaml.safe_dump({"tiny": fields}))
        monkeypatch.setenv("MMACE_SIM_MODELS", str(file))

    write()
    return write


def leftovers(cache):
    return sorted(
        p.name for p in cache.rglob("*") if p.is_file() and p.parent.name in ("downloads", "models")
    )


def test_the_catalogue_of_the_package():
    published = read_catalogue()["mmace-matpes-pbe"]
    assert published.size == 84_430_851
    assert published.sha256.startswith("bdf6b8cc")
    assert published.license == "CC-BY-4.0"
    assert len(set(published.elements)) == 89
    assert [model.name for model in read_catalogue_file(BUILT_IN)] == ["mmace-matpes-pbe"]


@pytest.mark.usefixtures("catalogue")
def test_a_model_is_fetched_through_a_redirect_and_used_by_its_name(cache, server):
    seen = []
    path, fetched = get_model("tiny", advance=seen.append)
    assert fetched
    assert seen[-1] == len(server.body)
    assert leftovers(cache) == ["tiny.safetensors"]
    assert resolve_model("tiny") == path
    metadata = read_metadata("tiny")
    assert metadata["license"] == "CC-BY-4.0"
    assert metadata["source"]["sha256"] == hashlib.sha256(server.body).hexdigest()
    assert load_model("tiny").elements == [13, 26]
    assert get_model("tiny") == (path, False)
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", ["zbl_agnesi_mixed_density", "mmace_matpes_like", "mmace_no_one_body"])
def test_a_pickle_of_the_published_code_is_converted_and_keeps_its_function(
    name, tmp_path, cache, server, catalogue
):
    """From the server to energies, forces, stress and magforces of the authors' code; the pickle does not stay."""
    if name.startswith("mmace"):
        if not SHARED.is_dir():
            pytest.skip("the authors' pickles are not part of the repository")
        source, told = SHARED / f"{name}.model", json.loads((SHARED / f"{name}.json").read_text())
    else:
        source, told = write_kind(tmp_path / "up.model", name), kind_json(name)
    server.body = source.read_bytes()
    server.n_drops, server.drop_after = 1, len(server.body) // 2
    catalogue(size=len(server.body), sha256=hashlib.sha256(server.body).hexdigest())
    result = mmace_sim("models", "get", "tiny")
    assert result.exit_code == 0, result.output
    assert leftovers(cache) == ["tiny.safetensors"]
    with pytest.warns(PhysicsWarning):
        assert_same_results(load_model("tiny"), cases_of(told, "default"))


@pytest.mark.usefixtures("catalogue")
def test_a_transfer_that_breaks_off_goes_on_where_it_was(server):
    server.n_drops, server.drop_after = 3, 1000
    assert get_model("tiny")[1]
    assert server.requests == [None, "bytes=1000-", "bytes=2000-", "bytes=3000-"]


@pytest.mark.usefixtures("catalogue")
def test_a_killed_transfer_is_resumed(server):
    part = transfer.part_file(read_catalogue()["tiny"])
    part.parent.mkdir(parents=True)
    part.write_bytes(server.body[:5000])
    get_model("tiny")
    assert server.requests == ["bytes=5000-"]


@pytest.mark.usefixtures("catalogue")
def test_a_server_that_cannot_resume_starts_anew(server):
    server.ranges, server.n_drops, server.drop_after = False, 1, 700
    get_model("tiny")
    assert server.requests == [None, "bytes=700-"]
    assert load_model("tiny").elements == [13, 26]


@pytest.mark.usefixtures("catalogue")
def test_what_lay_there_from_something_else_is_fetched_anew(server):
    part = transfer.part_file(read_catalogue()["tiny"])
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 3000)
    get_model("tiny")
    assert server.requests == ["bytes=3000-", None]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "0" * 64}, "not what was announced"),
        ({"size": 1000}, "more than the 1000 bytes"),
        ({"size": 10**7}, "closed early"),
    ],
    ids=["hash", "too long", "too short"],
)
@pytest.mark.usefixtures("server")
def test_wrong_bytes_are_never_used(catalogue, cache, changes, message):
    catalogue(**changes)
    with pytest.raises(ModelFileError, match=message):
        get_model("tiny")
    assert installed_models() == {}
    assert [name for name in leftovers(cache) if not name.endswith(".part")] == []


@pytest.mark.usefixtures("catalogue")
def test_bytes_changed_on_the_way(cache, server):
    server.body = b"y" * len(server.body)
    with pytest.raises(ModelFileError, match="not what was announced"):
        get_model("tiny")
    assert leftovers(cache) == []


@pytest.mark.parametrize(("status", "n_requests"), [(404, 1), (403, 1), (503, 3)])
@pytest.mark.usefixtures("catalogue")
def test_the_server_says_no(server, status, n_requests):
    server.status = status
    with pytest.raises(ModelFileError, match=str(status)):
        get_model("tiny")
    assert len(server.requests) == n_requests


@pytest.mark.usefixtures("cache")
def test_without_a_connection_the_message_says_what_to_do_by_hand(catalogue, server, tmp_path):
    digest = hashlib.sha256(server.body).hexdigest()
    catalogue(url="http://127.0.0.1:1/model")
    result = mmace_sim("models", "get", "tiny")
    assert result.exit_code == 2
    said = " ".join(result.output.split())
    for part in ("http://127.0.0.1:1/model", digest, f"{len(server.body)} bytes", "models add tiny.model"):
        assert part in said
    by_hand = tmp_path / "fetched by hand.model"
    by_hand.write_bytes(server.body)
    assert mmace_sim("models", "add", by_hand).exit_code == 0  # known by its hash
    assert read_metadata("tiny")["license"] == "CC-BY-4.0"
    assert by_hand.exists()


def _fetch(_):
    path, fetched = get_model("tiny")
    return str(path), fetched


@pytest.mark.usefixtures("catalogue")
def test_two_processes_at_once_fetch_once(server):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        answers = pool.map(_fetch, range(2))
    assert sorted(fetched for _, fetched in answers) == [False, True]
    assert len(server.requests) == 1


@pytest.mark.usefixtures("catalogue")
def test_add_list_info_and_remove(tmp_path):
    file = write_tiny_model(tmp_path / "mine.safetensors", seed=5)
    assert mmace_sim("models", "add", file).exit_code == 0
    again = mmace_sim("models", "add", file)
    assert again.exit_code == 2
    assert "--force" in again.output
    assert mmace_sim("models", "add", file, "--force").exit_code == 0
    rows = json.loads(mmace_sim("models", "list", "--json").output)
    where = {row["names"][0]: row["where"] for row in rows}
    assert rows[0]["names"] == ["default", DEFAULT_MODEL]  # one file, one row
    assert where == {
        "default": "embedded",
        IRON_MODEL: "embedded",
        "mine": "installed",
        "mmace-matpes-pbe": "to fetch",
        "tiny": "to fetch",
    }
    assert json.loads(mmace_sim("models", "info", "mine", "--json").output)["elements"] == ["Al", "Fe"]
    assert "CC-BY-4.0" in mmace_sim("models", "info", "tiny").output
    assert mmace_sim("models", "remove", "mine").exit_code == 0
    assert installed_models() == {}
    for name in ("mine", "default"):
        result = mmace_sim("models", "remove", name)
        assert result.exit_code == 2
        assert "is installed in" in result.output


@pytest.mark.usefixtures("catalogue")
def test_other_bytes_are_not_installed_as_a_model_of_the_catalogue(tmp_path):
    file = write_tiny_model(tmp_path / "mine.safetensors", seed=5)
    by_hand = write_tiny_model(tmp_path / "mace_matpes_pbe_baseline_run-3.model", seed=5)
    for arguments in ((by_hand,), (file, "--name", "mmace-matpes-pbe"), (file, "--name", "tiny", "--force")):
        result = mmace_sim("models", "add", *arguments)
        assert result.exit_code == 2
        assert "not the file that the catalogue calls" in result.output
    assert installed_models() == {}
    assert mmace_sim("models", "add", by_hand, "--name", "another").exit_code == 0


@pytest.mark.usefixtures("cache")
def test_a_checkpoint_with_several_heads_is_added_by_one(tmp_path):
    name = "magmom_density_heads"
    file, heads = write_kind(tmp_path / "up.model", name), kind_json(name)["heads"]
    asked = mmace_sim("models", "add", file)
    assert asked.exit_code == 2
    assert "--head NAME" in asked.output
    assert mmace_sim("models", "add", file, "--head", heads[1]).exit_code == 0
    with pytest.warns(PhysicsWarning):
        model = load_model("up")
    assert_same_results(model, cases_of(kind_json(name), heads[1]))


@pytest.mark.usefixtures("catalogue")
def test_the_table_fits_into_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = mmace_sim("models").output.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("89 elements" in line and "CC-BY-4.0" in line for line in lines)


@pytest.mark.usefixtures("cache")
def test_embedded_models_are_not_shadowed(tmp_path):
    file = write_tiny_model(tmp_path / "default.safetensors")
    with pytest.raises(OutputError, match="of the package"):
        add_model(file)
    model_folder().mkdir(parents=True)
    (model_folder() / "default.safetensors").write_bytes(file.read_bytes())
    assert load_model("default").metadata["name"] == DEFAULT_MODEL


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden", "x" * 200])
@pytest.mark.usefixtures("cache")
def test_names_that_are_paths(tmp_path, name):
    with pytest.raises(ModelFileError):
        add_model(write_tiny_model(tmp_path / "m.safetensors"), name=name or " ")


@pytest.mark.usefixtures("cache")
def test_a_name_of_the_catalogue_that_is_not_installed():
    with pytest.raises(ModelFileError, match=r"mmace-sim models get mmace-matpes-pbe.*84 MB, CC-BY-4\.0"):
        load_model("mmace-matpes-pbe")


@pytest.mark.usefixtures("cache")
def test_files_of_the_environment_variable(tmp_path, monkeypatch):
    folder = tmp_path / "lab"
    folder.mkdir()
    write_tiny_model(folder / "ours.safetensors")
    monkeypatch.setenv("MMACE_SIM_MODELS", str(folder))
    assert load_model("ours").elements == [13, 26]
    monkeypatch.setenv("MMACE_SIM_MODELS", str(tmp_path / "gone"))
    with pytest.raises(ModelFileError, match="MMACE_SIM_MODELS"):
        load_model("ours")


@pytest.mark.parametrize(
    "text",
    ["[1, 2]", "tiny: 3", "tiny: {url: 'ftp://x/y'}", "tiny: {nonsense: 1}", "a: [", "'../x': {}", "\x00"],
)
def test_broken_catalogues(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ModelFileError, match=r"c\.yaml"):
        read_catalogue_file(tmp_path / "c.yaml")


@pytest.mark.usefixtures("catalogue")
def test_a_broken_catalogue_hides_no_others(tmp_path, monkeypatch):
    broken = tmp_path / "broken.yaml"
    broken.write_text("ours: 3")
    assert mmace_sim("models", "list").exit_code == 0
    monkeypatch.setenv("MMACE_SIM_MODELS", os.pathsep.join([str(broken), os.environ["MMACE_SIM_MODELS"]]))
    done = mmace_sim("models", "list", "--json")
    assert done.exit_code == 3
    rows = json.loads(done.output)
    assert {"default", "tiny"} <= {name for row in rows for name in row["names"]}
    (problem,) = [row["problem"] for row in rows if "problem" in row]
    assert problem.startswith(f"{broken}: model 'ours'")
    done = mmace_sim("models")
    assert done.exit_code == 3
    assert problem in done.output
    assert mmace_sim("models", "info", "tiny").exit_code == 0
    assert mmace_sim("models", "get", "tiny").exit_code == 2  # a later catalogue may say otherwise of it


def test_what_is_at_hand_need_not_be_fetched_and_a_broken_file_is_no_success(tmp_path):
    done = mmace_sim("models", "get", "default")
    assert done.exit_code == 0
    assert "is at hand" in done.output
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing")
    done = mmace_sim("models", "info", broken)
    assert done.exit_code == 3
    assert "problem" in done.output


def test_only_encrypted_addresses():
    fields = {"name": "a", "filename": "a", "size": 1, "sha256": "0" * 64, "license": "x", "citation": "y"}
    with pytest.raises(ValueError, match="https"):
        RemoteModel(url="http://example.org/a", **fields)


@pytest.fixture
def foundations(server, tmp_path):
    """Addresses of foundations on the server, and mace-torch's cache."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", b"x" * 5000)
    server.body = buffer.getvalue()
    return {"medium-mpa-0": server.url + "/mace-mpa-0-medium.model"}, tmp_path / "mace"


@pytest.mark.usefixtures("cache")
def test_a_foundation_is_fetched_into_the_cache_of_mace(foundations, server):
    urls, folder = foundations
    server.n_drops, server.drop_after = 1, 500
    path = fetch_foundation("medium-mpa-0", urls, folder)
    assert path == folder / "macempa0mediummodel"
    assert path.read_bytes() == server.body
    assert server.requests == [None, "bytes=500-"]
    assert fetch_foundation("medium-mpa-0", urls, folder) == path  # from the cache
    assert len(server.requests) == 2


@pytest.mark.usefixtures("cache")
def test_a_page_in_place_of_a_foundation(foundations, server):
    urls, folder = foundations
    server.body = b"<html>not found</html>"
    with pytest.raises(ModelFileError, match="no checkpoint of torch"):
        fetch_foundation("medium-mpa-0", urls, folder)
    assert not list(folder.glob("*"))
    with pytest.raises(ModelFileError, match="medium-mpa-0"):
        fetch_foundation("huge", urls, folder)


def test_licences_of_foundations(foundations):
    urls, _ = foundations
    assert foundation("medium-mpa-0", urls).license == "MIT"
    assert "academic" in foundation("medium-omat-0", {"medium-omat-0": "https://x.org/a.model"}).license
    assert "look it up" in foundation("new", {"new": "https://x.org/a.model"}).license
