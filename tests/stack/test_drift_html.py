"""The drift report that a person reads, drawn by Evidently, which takes seconds to import."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from monitoring.html import write_html
from monitoring.stability import stability


@pytest.mark.filterwarnings("error")
def test_evidently_draws_every_column_with_our_psi(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    reference = pd.DataFrame(
        {"price": random.lognormal(3, 1, 2000), "device": 1.0, "rank": np.nan, "score": 0.5}
    )
    reference.loc[:500, "score"] = np.nan
    served = reference.assign(price=reference["price"] * 3, rank=2.0)
    path = tmp_path / "report.html"
    values = {"price": 0.2, "score": 0.2, "device": 0.2}
    found = write_html(path, reference, served, values, {"rank": 0.2})
    assert (
        found["price"] == stability(reference["price"].to_numpy(), served["price"].to_numpy()).psi
    )
    assert found["price"] > 0.2
    assert (found["score"], found["device"]) == (0.0, 0.0)
    assert found["rank is missing"] > 10
    text = path.read_text()
    assert "PSI over the deciles of training" in text
    assert all(name in text for name in found)
