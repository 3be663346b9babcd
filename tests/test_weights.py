"""Finding, checking and strictly loading weights; every failure is one line and exit code 5."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typer.testing import CliRunner

from metaportrait_cli.cli.weights import app
from metaportrait_cli.errors import WeightsError
from metaportrait_cli.networks.network import Network
from metaportrait_cli.networks.swift.quantized import key_of
from metaportrait_cli.render.compact import region_networks
from metaportrait_cli.weights import bundled_path, ranges, read_manifest, resolve
from metaportrait_cli.weights.manifest import ManifestEntry, bundled_folder
from metaportrait_cli.weights.ranges import known_ranges
from metaportrait_cli.weights.store import load_network, read_header, save_networks

runner = CliRunner()


@dataclass(frozen=True)
class TinyConfig:
    widths: tuple[int, ...] = (2, 3)


class Tiny(Network):
    config_type = TinyConfig

    def __init__(self, config: TinyConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(nn.Linear(width, width) for width in config.widths)
        self.register_buffer("scale", torch.tensor(2.0))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_networks(path, {"tiny": Tiny(TinyConfig((4, 5, 6)))}, architecture="test")
    return path


def rewrite(
    path: Path,
    *,
    change: Callable[[dict[str, Tensor]], object] = lambda _: None,
    metadata: dict[str, str] | None = None,
) -> None:
    with safe_open(path, "pt") as file:
        known = file.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, known if metadata is None else metadata)


def test_a_file_says_how_to_build_its_network(saved: Path) -> None:
    network = load_network(Tiny, saved, part="tiny")
    assert network.config == TinyConfig((4, 5, 6))
    assert not network.training
    stored = load_file(saved)
    for key, value in network.state_dict().items():
        assert torch.equal(value, stored[f"tiny.{key}"])
        assert value.device.type == "cpu"
    header = read_header(saved)
    assert header.architecture == "test"
    assert header.shapes["tiny.layers.0.weight"] == (4, 4)
    assert header.shapes["tiny.scale"] == ()


def test_missing_unexpected_and_misshapen_tensors_are_all_named(saved: Path) -> None:
    def damage(tensors: dict[str, Tensor]) -> None:
        del tensors["tiny.layers.0.bias"]
        tensors["tiny.stranger"] = torch.zeros(1)
        tensors["tiny.layers.1.weight"] = torch.zeros(5, 7)

    rewrite(saved, change=damage)
    with pytest.raises(WeightsError) as caught:
        load_network(Tiny, saved, part="tiny")
    text = str(caught.value)
    assert "1 missing: layers.0.bias" in text
    assert "1 unexpected: stranger" in text
    assert "layers.1.weight is 5x7, not 5x5" in text
    assert str(saved) in text
    assert "\n" not in text
    assert caught.value.exit_code == 5


def test_long_key_lists_are_abbreviated(saved: Path) -> None:
    rewrite(saved, change=lambda t: t.update({f"tiny.x{n}": torch.zeros(1) for n in range(50)}))
    with pytest.raises(WeightsError, match=r"50 unexpected: x0, x1, x10, and 47 more") as caught:
        load_network(Tiny, saved, part="tiny")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("kept", [0.5, 0.01, 0.0])
def test_truncated_file(saved: Path, kept: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(WeightsError, match=r"whole safetensors|is empty") as caught:
        load_network(Tiny, saved, part="tiny")
    assert "\n" not in str(caught.value)


def test_git_lfs_pointer_says_so(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    for read in (resolve, read_header):
        with pytest.raises(WeightsError, match="Git LFS pointer"):
            read(path)


def test_foreign_file_and_absent_part(saved: Path) -> None:
    with pytest.raises(WeightsError, match="holds no 'warping' network, only tiny"):
        load_network(Tiny, saved, part="warping")
    rewrite(saved, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="does not say which network"):
        load_network(Tiny, saved, part="tiny")


@pytest.mark.parametrize(
    "config",
    [
        *({"widths": "x"}, {"depth": 3}, {"widths": [-1]}, {"widths": None}, {"widths": [10**9]}),
        *({"widths": {"a": 1}}, {"widths": [float("nan")]}),
    ],
)
def test_config_of_another_version(saved: Path, config: dict[str, Any]) -> None:
    metadata = {"architecture": "test", "config": json.dumps({"tiny": config})}
    rewrite(saved, metadata=metadata)
    with pytest.raises(WeightsError, match="does not fit this version"):
        load_network(Tiny, saved, part="tiny")


@pytest.mark.parametrize("config", ["7", "[]", "null", "[" * 100_000, "{"])
def test_config_that_is_none(saved: Path, config: str) -> None:
    rewrite(saved, metadata={"architecture": "test", "config": config})
    with pytest.raises(WeightsError, match="does not say which network"):
        load_network(Tiny, saved, part="tiny")


@pytest.mark.parametrize("value", [torch.full((4,), torch.nan), torch.ones(4, dtype=torch.int64)])
def test_what_would_spoil_every_picture(saved: Path, value: Tensor) -> None:
    rewrite(saved, change=lambda tensors: tensors.update({"tiny.layers.0.bias": value}))
    with pytest.raises(WeightsError, match=r"layers\.0\.bias holds"):
        load_network(Tiny, saved, part="tiny")


def test_weights_are_found_by_their_content(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = f"sha256:{hashlib.sha256(saved.read_bytes()).hexdigest()}"
    monkeypatch.setenv("METAPORTRAIT_WEIGHTS", str(saved.parent))
    assert resolve(spec) == saved
    entry = read_manifest()["compact"]
    assert resolve(f"sha256:{entry.sha256}") == bundled_path("compact")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="no regular file"):
        read_header(tmp_path / "w.safetensors")


def test_failed_write_leaves_the_old_file(saved: Path) -> None:
    before = saved.read_bytes()
    network = Tiny(TinyConfig())
    network.layers[0].weight = network.layers[1].weight  # shared: safetensors refuses
    with pytest.raises(RuntimeError):
        save_networks(saved, {"tiny": network}, architecture="test")
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_manifest_lists_what_is_bundled() -> None:
    for entry in read_manifest().values():
        assert len(entry.sha256) == 64
        assert entry.licence
        path = bundled_folder() / entry.file
        if path.is_file():
            assert path.stat().st_size == entry.size
            assert hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256
    expected = bundled_folder() / "face_landmarker.task"
    assert bundled_path("face_landmarker") == bundled_path("face_landmarker.task") == expected


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ManifestEntry:
    """A manifest of one entry whose right content is b"right", in a bundle folder of its own."""
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    entry = ManifestEntry(
        name="thing",
        file="thing.safetensors",
        size=5,
        sha256=hashlib.sha256(b"right").hexdigest(),
        licence="MIT",
        source="",
        revision="1",
        about="",
    )
    for module in ("manifest", "sources"):
        monkeypatch.setattr(f"metaportrait_cli.weights.{module}.bundled_folder", lambda: bundle)
    monkeypatch.setattr(
        "metaportrait_cli.weights.manifest.read_manifest", lambda: {entry.name: entry}
    )
    monkeypatch.delenv("METAPORTRAIT_WEIGHTS", raising=False)
    return entry


def test_resolution_order(
    entry: ManifestEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=r"\$METAPORTRAIT_WEIGHTS"):
        resolve("thing")
    bundled = tmp_path / "bundle" / entry.file
    bundled.write_bytes(b"right")
    assert resolve("thing") == bundled
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setenv("METAPORTRAIT_WEIGHTS", str(own))
    assert resolve("thing") == bundled
    (own / entry.file).write_bytes(b"right")
    assert resolve(entry.file) == own / entry.file
    (tmp_path / "thing").write_bytes(b"any file of that name comes first")
    assert resolve("thing") == Path("thing")


def test_damaged_file_is_not_taken(entry: ManifestEntry, tmp_path: Path) -> None:
    (tmp_path / "bundle" / entry.file).write_bytes(b"wrong")
    with pytest.raises(WeightsError, match="damaged or another version"):
        resolve("thing")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no-such-name", "no weights of that name"),
        ("some/folder/file.pth", "no such file"),
        ("ftp://host/file", "is not hf://"),
        ("hf://only-owner/file", "is not hf://"),
        ("https://host/file.safetensors", "another tool"),
        ("sha256:0123", "64 hexadecimal digits"),
    ],
)
def test_unusable_specs(spec: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        resolve(spec)


def test_commands_print_paths_alone_and_fail_with_one_line(saved: Path) -> None:
    listed = runner.invoke(app, ["list", "--json"])
    assert [row["name"] for row in json.loads(listed.stdout)] == sorted(read_manifest())
    pulled = runner.invoke(app, ["pull", "face_landmarker"])
    assert pulled.stdout == f"{bundled_path('face_landmarker')}\n"
    verified = runner.invoke(app, ["verify", str(saved)])
    assert verified.stdout == f"{saved}\n"
    assert "test (tiny)" in verified.stderr
    saved.write_bytes(saved.read_bytes()[:100])
    failed = runner.invoke(app, ["verify", str(saved)])
    assert failed.exit_code == 5
    assert failed.stdout == ""
    assert failed.stderr.startswith("error: ")
    assert failed.stderr.count("\n") == 1


def test_what_goes_into_the_networks_that_ship_is_known() -> None:
    """After a change of these, `python -m benchmarks.ranges` makes it known anew."""
    convolutions = {
        key_of(module.weight.detach().numpy().tobytes())
        for network in region_networks(bundled_path("compact")).values()
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    }
    assert known_ranges()
    assert known_ranges().keys() <= convolutions


def test_a_broken_list_of_ranges_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "bundled_folder", lambda: tmp_path)
    for text in (None, "[1]", '{"mouth": {"0": "wide"}}', "{"):
        if text is not None:
            (tmp_path / ranges.RANGES).write_text(text)
        assert known_ranges.__wrapped__() == {}
