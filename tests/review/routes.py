"""The routes of the server of `posecli review`, and what a refusal of theirs is."""

from tests.review.client import Answer

GETS = (
    "/",
    "/static/review.js",
    "/api/session",
    "/api/inputs",
    "/api/frame?input=1&frame=0",
    "/api/image?input=1&frame=0",
    "/api/needs",
    "/api/tracks?input=1",
    "/api/changes?since=0",
)
POSTS = ("/api/edit", "/api/undo", "/api/redo", "/api/propagate", "/api/propagate/accept", "/api/finish")
SECRET = "the content of a file outside of OUT"
GOOD = {"op": "keypoints", "input": 1, "frame": 0, "person": "p0", "keypoints": {"7": [1, 2, 2]}}


def refused(answer: Answer, *statuses: int) -> None:
    assert answer.status in (statuses or range(400, 500)), (answer.status, answer.content[:300])
    assert SECRET.encode() not in answer.content
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    assert len(answer.content.strip().splitlines()) <= 1
    if answer.headers["content-type"] == "application/json":
        assert {*answer.json} == {"error"} and "Traceback" not in answer.json["error"]
