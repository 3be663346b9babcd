"""Meta-learning of few-shot talking heads: it learns, goes on where it stopped, judges."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from metaportrait_cli.errors import UsageError
from metaportrait_cli.networks.fewshot import Assessment, Embedder, FewShotConfig, Generator
from metaportrait_cli.training.data.episodes import EpisodeDataset
from metaportrait_cli.training.data.pairs import Faces
from metaportrait_cli.training.fewshot import (
    FewShotTask,
    FewShotTraining,
    embedded,
    feature_distance,
    hinge,
    train_fewshot,
)
from metaportrait_cli.training.loop import Record
from metaportrait_cli.training.perceptual import MobileNetFeatures, PerceptualLoss
from metaportrait_cli.training.place import Place, RunOptions
from metaportrait_cli.weights.store import load_network, read_header

from .in_pieces import same_in_pieces

EVERY_STEP = RunOptions(log_every=1)
TINY = FewShotTraining(
    model=FewShotConfig(
        size=32, widths=(8, 8, 16, 16), halvings=2, blocks=1, attention=8, attention_up=16
    ),
    shots=2,
    steps=4,
    batch=2,
    warm_up=1,
    held_out=0.0,
)


def test_losses_on_numbers_worked_out_by_hand() -> None:
    # max(0, 1 - r) of real ones: 0, 0.5; max(0, 1 + r) of painted ones: 0, 1.5.
    assert hinge(torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.5])) == 1.0
    ones, none = torch.ones(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)
    seen = Assessment(features=(ones, 3 * ones), vector=none)
    assert feature_distance(seen, Assessment(features=(none, none), vector=none)) == 2.0


def test_an_embedding_is_the_mean_over_the_sources() -> None:
    class Brightness(torch.nn.Module):
        def forward(self, picture: torch.Tensor, _lines: torch.Tensor) -> torch.Tensor:
            return picture.mean(dim=(2, 3))

    pictures = torch.arange(6.0).view(2, 3, 1, 1, 1).expand(2, 3, 3, 4, 4)
    assert embedded(Brightness(), pictures, pictures).tolist() == [[1.0] * 3, [4.0] * 3]


def test_episodes_are_of_one_video_and_the_same_whoever_draws_them(prepared: Path) -> None:
    faces = Faces.load(prepared)
    people = sorted({clip.identity for clip in faces.clips})

    def drawn() -> EpisodeDataset:
        return EpisodeDataset(faces, people=people, shots=8, size=32, length=9, seed=1)

    one, again = drawn()[3], drawn()[3]
    assert one.pictures.shape == one.landmarks.shape == (9, 3, 32, 32)
    assert torch.equal(one.pictures, again.pictures)
    # The photo is no video, and the target is none of the sources.
    assert {int(drawn()[n].video) for n in range(9)} == {0, 1}
    assert not any(torch.equal(one.landmarks[k], one.landmarks[-1]) for k in range(8))
    assert one.points.max() < 40


def test_stopping_and_going_on_is_the_same_as_not_stopping(prepared: Path, tmp_path: Path) -> None:
    def run(folder: Path, stop: int | None) -> None:
        train_fewshot(TINY, prepared, folder, options=replace(EVERY_STEP, stop_at=stop))

    parts = same_in_pieces(run, tmp_path, stop=2)
    assert parts.keys() >= {"embedder", "critic_discriminator", "columns"}


def test_the_match_loss_begins_at_nothing(prepared: Path, tmp_path: Path) -> None:
    """Columns are met as embeddings: others would draw these to where rectifiers are dead."""
    records: list[Record] = []
    config = replace(TINY, batch=1, steps=1)
    train_fewshot(config, prepared, tmp_path, options=EVERY_STEP, on_record=records.append)
    assert records[0]["terms"]["match"] == 0
    parts = torch.load(tmp_path / "state.pt", weights_only=True)["parts"]
    assert parts["columns"]["weight"].any(dim=1).sum() == 1


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["lite", "paper"])
def test_the_real_configurations_go_on_where_they_stopped(
    name: str, prepared: Path, tmp_path: Path
) -> None:
    """All widths, on small pictures: two steps at once, and one after the other."""
    if not os.environ.get("METAPORTRAIT_TEST_HEAVY"):
        pytest.skip("METAPORTRAIT_TEST_HEAVY is not set")
    whole: FewShotTraining = getattr(FewShotTraining, name)()
    model = replace(whole.model, size=64)
    config = replace(whole, model=model, steps=2, batch=1, held_out=0.0)

    def run(folder: Path, stop: int | None) -> None:
        train_fewshot(config, prepared, folder, options=replace(EVERY_STEP, stop_at=stop))

    same_in_pieces(run, tmp_path, stop=1)


def test_both_variants_learn_and_what_is_saved_can_be_opened(
    prepared: Path, tmp_path: Path
) -> None:
    for config in (TINY, TINY.feed_forward()):
        folder = tmp_path / str(config.weights.match)
        records: list[Record] = []
        card = train_fewshot(
            replace(config, steps=2, held_out=0.5),
            prepared,
            folder,
            options=EVERY_STEP,
            perceptual=PerceptualLoss(MobileNetFeatures()),
            on_record=records.append,
        )
        terms = records[0]["terms"]
        assert ("match" in terms) == (config.weights.match > 0)
        assert terms.keys() >= {"pixel", "perceptual", "face", "adversarial", "features", "critic"}
        # "b" and "c" are held out at this share, "a" is not; "c" is a photo.
        assert card["data"]["videos"] == 1
        assert card["held_out"].keys() == {"copied", "one", "all"}
        assert read_header(folder / "last.safetensors").architecture == "fewshot"
        for kind, part in ((Embedder, "embedder"), (Generator, "generator")):
            network = load_network(kind, folder / "last.safetensors", part=part)
            assert network.config == TINY.model
    assert card["variant"] == "feed-forward"


def test_only_columns_of_videos_seen_change(prepared: Path, tmp_path: Path) -> None:
    config = replace(TINY, batch=1, steps=3)
    columns = []
    for stop in (1, 2, 3):
        train_fewshot(config, prepared, tmp_path, options=replace(EVERY_STEP, stop_at=stop))
        state = torch.load(tmp_path / "state.pt", weights_only=True)
        columns.append(state["parts"]["columns"]["weight"])
    faces = Faces.load(prepared)
    dataset = EpisodeDataset(faces, people=["a", "b"], shots=2, size=32, length=3, seed=0)
    for step in (1, 2):
        changed = (columns[step] != columns[step - 1]).any(dim=1)
        assert changed.nonzero().flatten().tolist() == [int(dataset[step].video)]


def test_several_processes_are_refused(prepared: Path) -> None:
    place = Place(device=torch.device("cpu"), world=2)
    with pytest.raises(UsageError, match="one process"):
        FewShotTask(TINY, prepared, place, perceptual=None)
