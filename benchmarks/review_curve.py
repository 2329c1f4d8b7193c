"""Does correcting the most uncertain people teach more than correcting as many random ones?

python benchmarks/review_curve.py --data SHARED/coco --work DIR --weights pose-fast [--rate 2e-4]

COCO train2017_more: 292 people labelled by people, whom the embedded weights were not trained on. Its images are split
by a hash of their names: three fifths are a pool to correct, the others are evaluated on, with true boxes. The pool's
people are predicted as a run does; all labelled keypoints are corrected to the labels, through the journal. Of these
people, N are learned from: the first of the list by need, the first by one reason, or random ones.

What is learned is what `posecli train --corrections` learns, with its defaults: the same loss, optimiser, schedule and
augmentation. So that many trainings take minutes on a CPU, four augmented crops of each person are made once, where the
command makes new ones each time. --heads: the backbone is frozen, and its features are computed once. --turned: every
second image is turned by a quarter, so that half of the people are of a kind that the weights are bad at. --tune:
compare learning rates instead, on two halves of the pool alone. Differences are paired over resampled images, as in
`posecli eval`.
"""

import copy
import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from posecli.cli.train_corrections import DEFAULTS, sample_count
from posecli.cli.train_options import AUGMENTATION
from posecli.corrections.corrections import Corrections
from posecli.corrections.journal import journal_path
from posecli.corrections.need import Need, needs
from posecli.evaluate.bootstrap import difference, resampled
from posecli.evaluate.error_types import match_people
from posecli.evaluate.ground_truth import GroundTruth, is_evaluated, read_ground_truth
from posecli.evaluate.predictions import predict, true_boxes
from posecli.evaluate.scoring import Scores, score_keypoints
from posecli.media.write_images import write_image
from posecli.pose.config import PoseConfig
from posecli.pose.estimator import Estimator, load_estimator
from posecli.pose.loading import load_network
from posecli.pose.network import SimCC
from posecli.pose.outputs import Outputs
from posecli.pose.runner import Runner
from posecli.train.augment import Augmentation
from posecli.train.batches import normalise
from posecli.train.corrected import read_corrected
from posecli.train.engine import parameter_groups
from posecli.train.loss import kl_sums
from posecli.train.packing import pack_crops
from posecli.train.recipe import Recipe, Stage
from posecli.train.samples import Sampler
from posecli.train.schedule import Schedule
from posecli.types import Frame, Poses
from posecli.weights.files import find_weights
from tests.run_factory import make_run

SPLIT = "train2017_more"
COUNTS = (25, 50, 100)
COPIES = 4
# Reasons of need that are tried alone.
REASONS: tuple[str, ...] = ()
Key = tuple[str, int]


@dataclass(frozen=True)
class Pool:
    """The run to correct. labels: input and row of each person → its annotation."""

    out: Path
    labels: Mapping[Key, Mapping[str, Any]]


def split(truth: GroundTruth) -> tuple[set[int], set[int]]:
    """Ids of the images of the pool, and of those to evaluate on."""
    order = sorted(truth.files, key=lambda i: hashlib.blake2b(truth.files[i].name.encode()).digest())
    count = round(0.6 * len(order))
    return set(order[:count]), set(order[count:])


def only(truth: GroundTruth, images: set[int]) -> GroundTruth:
    """The ground truth of some images."""
    dataset = {
        **truth.dataset,
        "images": [image for image in truth.dataset["images"] if image["id"] in images],
        "annotations": [person for person in truth.dataset["annotations"] if person["image_id"] in images],
    }
    return GroundTruth(dataset, truth.images, truth.keypoint_set, places=truth.places)


def turned(truth: GroundTruth, folder: Path) -> GroundTruth:
    """The same with every second image, by the hash of its name, turned by a quarter, as by a camera on its side."""
    folder.mkdir(parents=True, exist_ok=True)
    order = sorted(truth.files, key=lambda i: hashlib.blake2b(b"turn" + truth.files[i].name.encode()).digest())
    chosen, places = set(order[::2]), dict(truth.files)
    heights = {}
    for image in chosen:
        pixels = truth.pixels(image)
        heights[image] = pixels.shape[0]
        places[image] = folder / f"turned-{truth.files[image].stem}.png"
        write_image(places[image], np.ascontiguousarray(np.rot90(pixels, -1)))
    images = [_turned_image(image) if image["id"] in chosen else image for image in truth.dataset["images"]]
    people = [
        _turned_person(person, heights[person["image_id"]]) if person["image_id"] in chosen else person
        for person in truth.dataset["annotations"]
    ]
    dataset = {**truth.dataset, "images": images, "annotations": people}
    return GroundTruth(dataset, folder, truth.keypoint_set, places=places)


def _turned_image(image: Mapping[str, Any]) -> dict[str, Any]:
    return {**image, "width": image["height"], "height": image["width"]}


def _turned_person(person: Mapping[str, Any], height: int) -> dict[str, Any]:
    x, y, across, down = person["bbox"]
    points = np.reshape(person["keypoints"], (-1, 3)).astype(np.float64)
    points[:, :2] = np.stack([height - 1 - points[:, 1], points[:, 0]], axis=1) * (points[:, 2:] > 0)
    return {**person, "bbox": [height - y - down, x, down, across], "keypoints": points.ravel().tolist()}


def make_pool(weights: str, truth: GroundTruth, out: Path) -> Pool:
    """Predict the people in their true boxes, and write the results of a run."""
    estimator, boxes = load_estimator(weights, runtime="torch"), true_boxes(truth)
    inputs: dict[str, list[Poses]] = {}
    labels: dict[Key, Mapping[str, Any]] = {}
    sizes = {}
    for image, path in truth.files.items():
        people = [a for a in truth.dataset["annotations"] if a["image_id"] == image and is_evaluated(a)]
        if people:
            pixels = truth.pixels(image)
            inputs[path.name] = list(estimator([Frame(pixels)], [boxes[image]]))
            sizes[path.name] = (pixels.shape[1], pixels.shape[0])
            labels |= {(path.name, row): person for row, person in enumerate(people)}
    sources = {path.name: path.resolve() for path in truth.files.values() if path.name in inputs}
    journal_path(out).unlink(missing_ok=True)  # of an earlier call
    return Pool(make_run(out, inputs, size=sizes, sources=sources), labels)


def correct(pool: Pool, people: Sequence[Key]) -> None:
    """Correct all labelled keypoints of these people, and nobody else."""
    journal_path(pool.out).unlink(missing_ok=True)
    with Corrections.open(pool.out, write=True) as corrections:
        for name, row in people:
            points = np.reshape(pool.labels[name, row]["keypoints"], (-1, 3)).tolist()
            given = {str(k): [x, y, int(v)] for k, (x, y, v) in enumerate(points)}
            edit = {"op": "keypoints", "input": name, "frame": 0, "person": f"p{row}", "keypoints": given}
            corrections.apply(edit, "benchmark")


@dataclass(frozen=True, eq=False)
class Samples:
    """S augmented crops as a Form stores them. rows (S,): each one's person; points, weights: its labels."""

    stored: Tensor
    rows: NDArray[np.int64]
    points: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Form:
    """What is trained of a network: all of it, on crops, or only the layers after the backbone, on stored features."""

    config: PoseConfig
    heads: bool

    def store(self, network: SimCC, crops: NDArray[np.uint8]) -> Tensor:
        """Crops (S, H, W, 3) as `logits` takes them."""
        whole = torch.from_numpy(crops)
        if not self.heads:
            return whole
        with torch.no_grad():
            return torch.cat([network._features(self._normalised(part))[0][-1] for part in torch.split(whole, 16)])

    def logits(self, network: SimCC, stored: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs of a network over x and y."""
        if not self.heads:
            x, y, *_ = network(self._normalised(stored))
            return x, y
        maps = network.final(network._enlarged([stored])).flatten(2)
        return network.fc_x(maps), network.fc_y(maps)

    def _normalised(self, crops: Tensor) -> Tensor:
        return normalise(crops, self.config, torch.device("cpu"))


def make_samples(form: Form, network: SimCC, pool: Pool, work: Path) -> tuple[Samples, list[Key]]:
    """COPIES augmented crops of each corrected person, and who these people are."""
    data = read_corrected([pool.out], work / "crops", 0)
    crops = pack_crops(data.people(), work / "crops")
    count = COPIES * len(crops)
    drawn = {name: value for name, value in DEFAULTS.items() if name in AUGMENTATION}
    stage = Stage(form.config.input_size, count, count)
    recipe = Recipe(model=form.config, stages=(stage,), augmentation=Augmentation(**drawn))
    sampler = Sampler(crops, recipe, stage, count)
    samples = [sampler.sample(number) for number in range(count)]
    made = sampler(0)
    found = Samples(
        form.store(network, made["crops"]),
        np.array([sample.row for sample in samples]),
        torch.from_numpy(made["points"]),
        torch.from_numpy(made["weights"]),
    )
    return found, [(one.input, int(one.person.key[1:])) for one in data.training]


def learn(form: Form, start: SimCC, samples: Samples, rows: Sequence[int], rate: float, seed: int = 0) -> SimCC:
    """A network that learned from some of the people."""
    network, config, size = copy.deepcopy(start), form.config, DEFAULTS["batch_size"]
    network.backbone.requires_grad_(not form.heads)
    mine = np.flatnonzero(np.isin(samples.rows, rows))
    total = sample_count(len(rows))
    groups = parameter_groups(network, weight_decay=0.05, backbone_lr_factor=DEFAULTS["backbone_lr_factor"])
    optimiser = torch.optim.AdamW(groups, lr=rate)
    schedule = Schedule(rate, total, min(DEFAULTS["warmup_samples"], total // 10), DEFAULTS["constant_fraction"])
    random = np.random.default_rng(seed)
    for seen in range(0, total, size):
        for group in optimiser.param_groups:
            group["lr"] = group["factor"] * schedule.at(seen)
        part = torch.from_numpy(random.choice(mine, size))
        losses, weight = kl_sums(
            form.logits(network, samples.stored[part]),
            samples.points[part],
            samples.weights[part],
            split_ratio=config.split_ratio,
            sigma=config.sigma,
            temperature=config.temperature,
        )
        optimiser.zero_grad()
        (losses / weight).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([p for p in network.parameters() if p.grad is not None], 5.0)
        optimiser.step()
    return network


class Scorer:
    """Scores networks on true boxes."""

    def __init__(self, form: Form, start: SimCC, truth: GroundTruth) -> None:
        self._form, self._start, self._truth, self._known = form, start, truth, dict[bytes, Tensor]()

    def __call__(self, network: SimCC) -> tuple[Scores, float]:
        """The scores, and the mean OKS of matched people."""

        def run(crops: NDArray[np.uint8]) -> Outputs:
            key = hashlib.blake2b(crops.tobytes()).digest()
            if key not in self._known:
                self._known[key] = self._form.store(self._start, crops)
            with torch.no_grad():
                x, y = self._form.logits(network, self._known[key])
            return Outputs((x.numpy(), y.numpy()))

        estimator = Estimator(self._form.config, Runner(run, "torch", "cpu", "fp32"))
        found = predict(estimator, self._truth, true_boxes(self._truth))
        scores = score_keypoints(self._truth.dataset, found.results, self._truth.keypoint_set)
        return scores, float(match_people(self._truth, found).oks.mean())


def chosen_by_need(found: Sequence[Need], count: int) -> list[Key]:
    """The first people of a list."""
    return [(need.input, int(need.person[1:])) for need in found[:count]]


def choices(pool: Pool, seeds: int) -> dict[str, list[list[Key]]]:
    """Way of choosing → orders of all people of the pool, one each, or one a seed."""
    with Corrections.open(pool.out, write=False) as corrections:
        found = needs(corrections)
        ways = {"need": [chosen_by_need(found, len(found))]}
        ways |= {reason: [chosen_by_need(found.by(reason), len(found))] for reason in REASONS}
    people = sorted(pool.labels)
    ways["random"] = [
        [people[i] for i in np.random.default_rng(seed).permutation(len(people))] for seed in range(seeds)
    ]
    return ways


def tune(form: Form, start: SimCC, whole: GroundTruth, pool: Pool, work: Path) -> None:
    """Print the AP of learning rates, on each half of the pool after learning from the other."""
    correct(pool, sorted(pool.labels))
    samples, people = make_samples(form, start, pool, work)
    images = {path.name: image for image, path in whole.files.items()}
    names = sorted({name for name, _ in people}, key=lambda name: hashlib.blake2b(name.encode()).digest())
    click.echo("| learned from | rate | AP of the other half | mean OKS |\n|---|---|---|---|")
    for half in (names[::2], names[1::2]):
        rows = [row for row, (name, _) in enumerate(people) if name in half]
        scorer = Scorer(form, start, only(whole, {images[name] for name in names if name not in half}))
        for rate in (0.0, 1e-4, 3e-4, 1e-3):
            scores, oks = scorer(start if not rate else learn(form, start, samples, rows, rate))
            click.echo(f"| {len(rows) if rate else 0} | {rate:g} | {scores.values['AP']:.4f} | {oks:.4f} |")


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder for the pool's run and crops.")
@click.option("--seeds", default=2, help="Random choices.")
@click.option("--weights", default="pose", help="The start.")
@click.option("--heads", is_flag=True, help="Train the layers after the backbone only.")
@click.option("--rate", default=float(DEFAULTS["learning_rate"]), help="Learning rate.")
@click.option("--way", default="", help="Learn from one choice only, such as need0 or random1, and print nothing.")
@click.option("--turned", "turns", is_flag=True, help="Turn every second image by a quarter.")
@click.option("--tune", "tunes", is_flag=True, help="Compare learning rates on the pool.")
def main(
    data: Path, work: Path, seeds: int, weights: str, heads: bool, rate: float, way: str, turns: bool, tunes: bool
) -> None:
    """Print Markdown tables."""
    whole = read_ground_truth(data / "annotations" / f"person_keypoints_{SPLIT}.json", data / SPLIT)
    if turns:
        whole = turned(whole, work / "turned")
    start, config = load_network(find_weights(weights))
    form = Form(config, heads)
    to_correct, to_score = split(whole)
    pool, truth = make_pool(weights, only(whole, to_correct), work / "pool"), only(whole, to_score)
    if tunes:
        tune(form, start, only(whole, to_correct), pool, work)
        return
    orders = choices(pool, seeds)
    correct(pool, sorted(pool.labels))
    evaluated = sum(is_evaluated(a) for a in truth.dataset["annotations"])
    click.echo(f"{len(pool.labels)} people in the pool, {evaluated} to evaluate on in {len(to_score)} images\n")
    wanted = {
        (name, count, seed): (work / f"learned-{name}-{count}-{seed}.pt", order[:count])
        for name, of_way in orders.items()
        for seed, order in enumerate(of_way)
        for count in (COUNTS if way in ("", f"{name}{seed}") else ())
    }
    if not all(file.is_file() for file, _ in wanted.values()):
        samples, people = make_samples(form, start, pool, work)
        rows = {key: row for row, key in enumerate(people)}
        for (_, _, seed), (file, chosen) in wanted.items():
            if not file.is_file():
                network = learn(form, start, samples, [rows[key] for key in chosen], rate, seed)
                torch.save(network.state_dict(), file)
    if way:
        return
    scorer = Scorer(form, start, truth)
    scores = {("start", 0, 0): scorer(start)}
    for key, (file, _) in wanted.items():
        network = copy.deepcopy(start)
        network.load_state_dict(torch.load(file, weights_only=True))
        scores[key] = scorer(network)
    report(scores)


def report(scores: Mapping[tuple[str, int, int], tuple[Scores, float]]) -> None:
    """Print the tables; random choices as the mean of their seeds, also within each resample."""
    start, start_oks = scores["start", 0, 0]
    draws = {key: resampled(found)["AP"] for key, (found, _) in scores.items()}
    click.echo(f"start: AP {start.values['AP']:.3f}, mean OKS {start_oks:.3f}\n")
    click.echo(
        "| people corrected | N | AP | gain in AP (95 %) | mean OKS | against random (95 %) |\n" + "|---" * 6 + "|"
    )
    for count in sorted({count for _, count, _ in scores if count}):
        mean = {}
        for way in dict.fromkeys(way for way, n, _ in scores if n == count):
            keys = [key for key in scores if key[:2] == (way, count)]
            aps = [scores[key][0].values["AP"] for key in keys]
            mean[way] = float(np.mean(aps)), np.mean([draws[key] for key in keys], axis=0)
        for way, (ap, drawn) in mean.items():
            gain = difference(draws["start", 0, 0], drawn, ap - start.values["AP"])
            oks = np.mean([scores[key][1] for key in scores if key[:2] == (way, count)])
            against = ""
            if way != "random":
                other = difference(mean["random"][1], drawn, ap - mean["random"][0])
                against = f"{other.value:+.3f} ({other.low:+.3f} to {other.high:+.3f})"
            gained = f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
            click.echo(f"| {way} | {count} | {ap:.3f} | {gained} | {oks:.3f} | {against} |")


if __name__ == "__main__":
    main()
