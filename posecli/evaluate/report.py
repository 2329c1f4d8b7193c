"""report.html: a self-contained page with figures, error analysis, calibration and example people."""

import base64
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from posecli.atomic import AtomicFile
from posecli.draw.skeleton import draw_person
from posecli.errors import MediaError
from posecli.evaluate.bootstrap import FIGURES
from posecli.evaluate.error_types import ERROR_TYPES
from posecli.evaluate.evaluation import Evaluation
from posecli.evaluate.ground_truth import GroundTruth
from posecli.evaluate.predictions import Predictions
from posecli.evaluate.scoring import OKS_THRESHOLDS, RECALLS
from posecli.geometry import crop_matrices, transform, xywh_to_xyxy
from posecli.pose.crops import cut_crops
from posecli.results import html
from posecli.results.charts import Panel, Series
from posecli.results.svg_charts import svg
from posecli.types import PixelArray

SHOWN = 12
TILE = (256, 192)


def write_report(
    path: Path,
    title: str,
    truth: GroundTruth,
    evaluations: Sequence[Evaluation],
    predictions: Sequence[Predictions],
    comparison: Sequence[Mapping[str, Any]],
) -> None:
    """Write the report of one or several evaluations of the same ground truth; details are of the first."""
    first, found = evaluations[0], predictions[0]
    css = (resources.files("posecli.evaluate") / "report.css").read_text(encoding="utf-8")
    parts = [html.head(title, css), f"<main><h1>{html.text(title)}</h1>"]
    parts.append(
        f"<p>{first.scores.people} people in {first.scores.images} images. Intervals hold 95 % of "
        f"{len(next(iter(first.resamples.values())))} resamplings of the images.</p>"
    )
    remarks = [
        *first.scores.remarks,
        *(f"left out: {len(truth.missing)} missing or unreadable images" for _ in truth.missing[:1]),
    ]
    parts += [f"<p>{html.text(remark)}</p>" for remark in remarks]
    parts.append("<h2>Figures</h2>" + _card(_figures(evaluations)))
    if comparison:
        parts.append("<h2>Differences on the same images</h2>" + _card(_differences(comparison)))
        parts.append(
            "<p>Paired bootstrap: the same resampled images for both. p is the share of resamplings on the other side "
            "of zero, doubled.</p>"
        )
    if len(evaluations) > 1:
        parts.append(f"<p>Everything below is about <b>{html.text(first.name)}</b>.</p>")
    parts.append("<h2>Precision and recall</h2>" + _card(_precision(first)))
    parts.append("<h2>Errors by keypoint</h2>")
    parts.append(
        "<p>After Ronchi and Perona (ICCV 2017): jitter is close to the true position, inversion at another keypoint "
        "of the same person (left for right), swap at a keypoint of another person, miss at none. Only "
        "matched people.</p>"
    )
    parts += [_card(_error_chart(first)), _card(_keypoint_table(first)), _card(_gains(first))]
    parts.append("<h2>By size and by visible keypoints</h2>" + _card(_groups(first)))
    parts.append(
        "<p>AP of the people in each range, computed from the predictions matched to them; no false positives.</p>"
    )
    parts.append("<h2>Calibration</h2>" + _card(_calibration(first)))
    if first.std is not None:
        parts.append(_card(_std_table(first)))
    for name, rows in _extremes(first).items():
        parts.append(
            f"<h2>{name}</h2><p>Ground truth left, prediction right.</p>" + _card(_people(truth, first, found, rows))
        )
    with AtomicFile(path) as file:
        file.write(("\n".join(parts) + "\n</main></body></html>\n").encode())


def _card(content: str) -> str:
    return f"<section>{content}</section>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _figures(evaluations: Sequence[Evaluation]) -> str:
    names = list(evaluations[0].scores.values)
    rows = []
    for evaluation in evaluations:
        cells = [html.text(evaluation.name)]
        for name in names:
            text = f"{evaluation.scores.values[name]:.3f}"
            if name in evaluation.intervals:
                low, high = evaluation.intervals[name]
                text += f"<br><small>{low:.3f}–{high:.3f}</small>"
            cells.append(text)
        speed = evaluation.metadata.get("people_per_s")
        cells.append(f"{speed:.0f}" if speed else "–")
        rows.append(cells)
    return _table(["model", *names, "people/s"], rows)


def _differences(comparison: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for row in comparison:
        cells = [f"{html.text(row['name'])} <small>against {html.text(row['against'])}</small>"]
        for name in FIGURES:
            found = row[name]
            sure = "up" if found["low"] > 0 else "down" if found["high"] < 0 else ""
            cells.append(
                f'<span class="{sure}">{found["value"]:+.4f}</span><br>'
                f"<small>{found['low']:+.4f} to {found['high']:+.4f}, p {found['p_value']:.3f}</small>"
            )
        rows.append(cells)
    return _table(["", *FIGURES], rows)


def _precision(evaluation: Evaluation) -> str:
    curves = [
        Series(f"OKS {OKS_THRESHOLDS[i]:.2f}", RECALLS.tolist(), evaluation.scores.precision[i].tolist())
        for i in (0, 2, 4, 5, 6, 8)
    ]
    return svg([Panel("Precision by recall", "recall", "precision", curves, y_limits=(0, 1.02), x_limits=(0, 1))])


def _error_chart(evaluation: Evaluation) -> str:
    rows = [row for row in evaluation.keypoints if row["count"]]
    names = [row["keypoint"] for row in rows]
    series = [Series(kind, names, [row[kind] for row in rows]) for kind in ERROR_TYPES]
    return svg([Panel("Share of labelled keypoints", "", "", series, kind="stacked", y_limits=(0, 1))], height=4.0)


def _keypoint_table(evaluation: Evaluation) -> str:
    head = ["keypoint", "labelled", "OKS", "PCK@0.05", "PCK@0.1", "mean error", "median error", *ERROR_TYPES]
    rows = []
    for row in evaluation.keypoints:
        cells = [html.text(row["keypoint"]), str(row["count"])]
        if row["count"]:
            cells += [f"{row[key]:.3f}" for key in ("oks", "pck_05", "pck_10")]
            cells += [f"{row[key]:.1f} px" for key in ("mean_error_px", "median_error_px")]
            cells += [f"{row[kind]:.1%}" for kind in ERROR_TYPES]
        rows.append(cells)
    return _table(head, rows)


def _gains(evaluation: Evaluation) -> str:
    ap = evaluation.scores.values["AP"]
    rows = [
        [kind, f"{evaluation.error_types[kind]:.1%}", f"{value:.3f}", f"{value - ap:+.3f}"]
        for kind, value in evaluation.ap_if_corrected.items()
    ]
    return _table(["error", "share of keypoints", "AP if all of them were corrected", "gain"], rows)


def _groups(evaluation: Evaluation) -> str:
    panels = []
    for title, label, groups in (
        ("AP by size of the person", "square root of the area in pixels", evaluation.by_size),
        ("AP by labelled keypoints", "labelled keypoints", evaluation.by_visible),
    ):
        rows = [row for row in groups if row["people"]]
        names = [f"{row['range']}\n{row['people']} people" for row in rows]
        panels.append(Panel(title, label, "AP", [Series("AP", names, [row["AP"] for row in rows])], kind="bars"))
    return svg(panels, columns=2, width=10.5, height=3.6)


def _calibration(evaluation: Evaluation) -> str:
    panels = []
    if evaluation.score_bins:
        scores = [row["score"] for row in evaluation.score_bins]
        measured = Series("measured", scores, [row["oks"] for row in evaluation.score_bins])
        ideal = Series("score = OKS", [0, 1], [0, 1], dashed=True)
        panels.append(
            Panel(
                "Keypoint score against its OKS", "predicted score", "mean OKS", [measured, ideal], y_limits=(0, 1.02)
            )
        )
    if evaluation.std is not None:
        std = evaluation.std
        names = ["within 1σ", "within 2σ"]
        panels.append(
            Panel(
                "Share of keypoints within the predicted σ",
                "",
                "share",
                [
                    Series("as predicted", names, [std.within_1, std.within_2]),
                    Series(f"σ × {std.scale:.2f}", names, [std.within_1_scaled, std.within_2_scaled]),
                    Series("Gaussian", names, [0.6827, 0.9545]),
                ],
                kind="bars",
                y_limits=(0, 1.02),
            )
        )
    if not panels:
        return "<p>The results file has neither keypoint scores nor standard deviations.</p>"
    return svg(panels, columns=len(panels), width=10.5 if len(panels) > 1 else 6, height=3.6)


def _std_table(evaluation: Evaluation) -> str:
    assert evaluation.std is not None
    keys = ("within_1", "within_2", "within_1_scaled", "within_2_scaled")
    rows = [[html.text(row["keypoint"]), *(f"{row[key]:.1%}" for key in keys)] for row in evaluation.std.rows]
    scale = f"σ × {evaluation.std.scale:.3f}"
    return _table(["keypoint", "within 1σ", "within 2σ", f"within 1σ, {scale}", f"within 2σ, {scale}"], rows)


def _extremes(evaluation: Evaluation) -> dict[str, list[int]]:
    order = np.argsort(evaluation.matches.oks, kind="stable").tolist()
    return {"Worst people": order[:SHOWN], "Best people": order[::-1][:SHOWN]}


def _people(truth: GroundTruth, evaluation: Evaluation, predictions: Predictions, rows: Sequence[int]) -> str:
    figures = []
    matches, keypoint_set = evaluation.matches, truth.keypoint_set
    for row in rows:
        annotation = matches.people[matches.true[row]]
        try:
            image = truth.pixels(annotation["image_id"])
            name = truth.files[annotation["image_id"]].name
        except MediaError:
            continue  # Results files are scored without images, too.
        box = xywh_to_xyxy(np.array([annotation["bbox"]], np.float64))
        crops, _ = cut_crops([image], [box.astype(np.float32)], TILE, 1.25)
        matrix = crop_matrices(box, TILE, 1.25)[0]
        scores = predictions.keypoint_scores
        shown = np.ones(len(keypoint_set)) if scores is None else scores[matches.predicted[row]]
        true = draw_person(crops[0], transform(matrix, matches.labels[row]), matches.labelled[row], keypoint_set)
        predicted = draw_person(crops[0], transform(matrix, matches.points[row]), np.maximum(shown, 0.31), keypoint_set)
        data = _jpeg(np.hstack([true, predicted]))
        figures.append(
            f'<figure><img alt="person {html.text(annotation["id"])}" src="data:image/jpeg;base64,{data}">'
            f"<figcaption>OKS {matches.oks[row]:.3f} · {html.text(name)}</figcaption></figure>"
        )
    if not figures:
        return "<p>The images were not found.</p>"
    return f'<div class="people">{"".join(figures)}</div>'


def _jpeg(pixels: PixelArray) -> str:
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    return base64.b64encode(encoded.tobytes()).decode()
