"""Requests are looked at before they are decoded only while others are refused."""

from __future__ import annotations

from pathlib import Path

from service.settings import Settings
from tests.service.conftest import sign_body
from tests.service.inprocess import serving

INFER = "/v2/models/sign/infer"


def test_bodies_are_left_undecoded_where_others_were_just_refused(models: Path) -> None:
    """A hopeless request whose body is none is told of the body, and of its SLO while others are refused."""
    hopeless = {"x-slo-latency-ms": "0.001", "content-type": "application/json"}
    with serving(Settings(models=models, slots=1)) as client:
        assert 400 == client.post(INFER, content=b"{}", headers=hopeless).status_code
        refused = client.post(INFER, json=sign_body(1.0), headers=hopeless)
        assert (429, "deadline_infeasible") == (refused.status_code, refused.headers["x-request-dropped-reason"])
        unread = client.post(INFER, content=b"{}", headers=hopeless)
        assert 429 == unread.status_code
        for one in (refused, unread):
            assert "no variant that may answer can ever meet the SLO of 0.001 ms: the quickest" in one.json()["error"]
        assert 200 == client.post(INFER, json=sign_body(1.0)).status_code
