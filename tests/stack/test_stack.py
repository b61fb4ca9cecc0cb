"""The embedded stack on real servers: start, serve, survive, stop."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import redis as redis_client
from numpy.typing import NDArray
from tritonclient import grpc as triton_client
from tritonclient.utils import InferenceServerException

from contracts.errors import ServiceError
from contracts.settings import Settings
from local_stack import process, stack, triton
from local_stack.services import INFRASTRUCTURE
from local_stack.state import is_supervised, read_state
from tests.stack.conftest import free_settings
from tests.stack.small_ranker import WIDTH, rows, train, write

TOLERANCE = 2e-5
MODEL = "small_ranker"


@pytest.fixture(scope="module")
def booster() -> lightgbm.Booster:
    return train()


@pytest.fixture(scope="module")
def model(
    infrastructure: Settings, booster: lightgbm.Booster
) -> Iterator[triton_client.InferenceServerClient]:
    """A client of a Triton that serves a small ranker."""
    write(infrastructure.models, MODEL, booster)
    with triton_client.InferenceServerClient(infrastructure.triton) as client:
        client.load_model(MODEL, client_timeout=60)
        yield client
        client.unload_model(MODEL, client_timeout=60)


def score(
    client: triton_client.InferenceServerClient, asked: NDArray[np.float32]
) -> NDArray[np.float32]:
    tensor = triton_client.InferInput("input__0", list(asked.shape), "FP32")
    tensor.set_data_from_numpy(asked)
    answer = client.infer(MODEL, [tensor], client_timeout=10)
    scores: NDArray[np.float32] = answer.as_numpy("output__0")
    return scores


def service(settings: Settings, name: str) -> dict[str, Any]:
    services = {each["name"]: each for each in stack.status(settings)["services"]}
    found: dict[str, Any] = services[name]
    return found


def wait(wish: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not wish():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.1)


def came_back(settings: Settings, name: str, pid: int) -> Callable[[], bool]:
    def look() -> bool:
        now = service(settings, name)
        return bool(now["ready"]) and now["pid"] != pid

    return look


def test_status_has_the_shape_that_others_read(infrastructure: Settings) -> None:
    document = json.loads(json.dumps(stack.status(infrastructure)))
    assert document["release"] is None
    by_name = {each["name"]: each for each in document["services"]}
    assert set(by_name) == {"redis", "kafka", "triton", "mlflow", "api", "consumer"}
    for name in INFRASTRUCTURE:
        assert by_name[name]["ready"] is True
        assert by_name[name]["pid"] > 0
        assert by_name[name]["rss_mb"] > 1
        assert by_name[name]["url"]
        assert by_name[name]["version"]
    assert by_name["api"]["ready"] is False
    assert by_name["api"]["pid"] is None


def test_up_twice_changes_nothing(infrastructure: Settings) -> None:
    before = stack.status(infrastructure)
    stack.up(infrastructure, only=INFRASTRUCTURE)
    after = stack.status(infrastructure)
    pids = [[each["pid"] for each in document["services"]] for document in (before, after)]
    assert pids[0] == pids[1]


def test_up_with_other_settings_names_the_one_that_differs(infrastructure: Settings) -> None:
    other = infrastructure.model_copy(update={"deadline_ms": 77})
    running = f"NEXTCLICK_DEADLINE_MS={infrastructure.deadline_ms}, this command has 77"
    with pytest.raises(ServiceError, match=running):
        stack.up(other, only=["redis"])


def test_mlflow_answers_its_own_host_and_no_other(infrastructure: Settings) -> None:
    def ask(host: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", infrastructure.mlflow_port, timeout=20)
        connection.request(
            "GET", "/api/2.0/mlflow/experiments/get?experiment_id=0", headers={"Host": host}
        )
        status = connection.getresponse().status
        connection.close()
        return status

    assert ask(f"127.0.0.1:{infrastructure.mlflow_port}") == 200
    assert ask("evil.example") == 403


def test_mlflow_keeps_artifacts_in_the_state_folder(
    infrastructure: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    (tmp_path / "note.txt").write_text("kept")
    client = mlflow.MlflowClient(tracking_uri=infrastructure.mlflow)
    run = client.create_run("0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", infrastructure.mlflow)
    client.log_artifact(run.info.run_id, str(tmp_path / "note.txt"))
    client.set_terminated(run.info.run_id)
    kept = list((infrastructure.home / "mlflow/artifacts").rglob("note.txt"))
    assert [path.read_text() for path in kept] == ["kept"]


def test_triton_scores_as_lightgbm_does(
    model: triton_client.InferenceServerClient, booster: lightgbm.Booster
) -> None:
    asked = rows(500, seed=7)
    assert np.isnan(asked).any()
    scores = score(model, asked)
    assert scores.shape == (500,)
    assert np.abs(scores - booster.predict(asked)).max() <= TOLERANCE


def test_many_clients_at_once_get_each_their_own_rows(
    model: triton_client.InferenceServerClient, booster: lightgbm.Booster
) -> None:
    parts = [rows(1 + seed % 9, seed=seed) for seed in range(64)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda part: score(model, part), parts))
    for part, answer in zip(parts, answers, strict=True):
        np.testing.assert_allclose(answer, booster.predict(part), atol=TOLERANCE)


def test_the_compiled_model_takes_over_and_agrees(
    infrastructure: Settings, model: triton_client.InferenceServerClient, booster: lightgbm.Booster
) -> None:
    log = infrastructure.logs / "triton.log"
    asked = rows(200, seed=8)

    def both_changed_over() -> bool:
        score(model, rows(1))
        return log.read_text().count(f"model '{MODEL}': changed over") == 2

    wait(both_changed_over, 90)
    assert len(list((infrastructure.home / "triton/compiled").glob("*.o"))) == 1
    assert np.abs(score(model, asked) - booster.predict(asked)).max() <= TOLERANCE


def test_a_wrong_width_is_refused_in_words(model: triton_client.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match=rf"Expected \[-1,{WIDTH}\], got \[2,3\]"):
        score(model, np.zeros((2, 3), np.float32))


def test_a_reload_leaves_a_server_that_still_passes_its_probe(
    infrastructure: Settings, model: triton_client.InferenceServerClient
) -> None:
    config = infrastructure.models / MODEL / "config.pbtxt"
    config.write_text(config.read_text() + "\n")
    model.load_model(MODEL, client_timeout=60)
    model.unload_model(MODEL, client_timeout=60)
    model.load_model(MODEL, client_timeout=60)
    triton.probe(infrastructure)


@pytest.mark.parametrize("name", ["redis", "kafka"])
def test_a_killed_service_comes_back(infrastructure: Settings, name: str) -> None:
    before = service(infrastructure, name)
    others = {each: service(infrastructure, each)["pid"] for each in INFRASTRUCTURE if each != name}
    os.kill(before["pid"], signal.SIGKILL)
    wait(came_back(infrastructure, name, before["pid"]), 90)
    assert service(infrastructure, name)["restarts"] == before["restarts"] + 1
    assert others == {each: service(infrastructure, each)["pid"] for each in others}


def test_a_dead_model_instance_brings_triton_back_whole(
    infrastructure: Settings, model: triton_client.InferenceServerClient
) -> None:
    before = service(infrastructure, "triton")["pid"]
    stubs = [
        each
        for each in process.processes_of(infrastructure.home, "triton")
        if each.name().startswith(triton.STUB)
    ]
    stubs[0].kill()
    wait(came_back(infrastructure, "triton", before), 60)
    model.load_model(MODEL, client_timeout=60)
    assert len(score(model, rows(3))) == 3


def test_restart_changes_just_that_service(infrastructure: Settings) -> None:
    redis, kafka = (service(infrastructure, name)["pid"] for name in ("redis", "kafka"))
    stack.restart(infrastructure, ["redis"])
    assert service(infrastructure, "redis")["pid"] != redis
    assert service(infrastructure, "kafka")["pid"] == kafka


def test_logs_show_what_a_service_said(infrastructure: Settings) -> None:
    assert any(
        "Ready to accept connections" in line for line in stack.logs(infrastructure, "redis", 200)
    )
    assert any("ready" in line for line in stack.logs(infrastructure, "supervisor", 200))


@pytest.fixture
def own(tmp_path: Path, booster: lightgbm.Booster) -> Iterator[Settings]:
    """Settings of a stack with a ranker that a test may break; nothing of it outlives the test."""
    settings = free_settings(tmp_path)
    write(settings.models, "ranker", booster)
    yield settings
    stack.down(settings)


def regions(settings: Settings) -> list[Path]:
    return list(triton.SHARED_MEMORY.glob(triton.region_prefix(settings) + "*"))


def kill_supervisor(settings: Settings) -> None:
    state = read_state(settings)
    assert state is not None
    os.kill(state.supervisor, signal.SIGKILL)
    wait(lambda: not is_supervised(settings), 5)


def test_down_leaves_nothing_after_the_supervisor_was_killed(own: Settings) -> None:
    stack.up(own, only=["redis", "triton"])
    assert regions(own)
    assert len(process.processes_of(own.home)) >= 5
    for each in process.processes_of(own.home, "triton"):
        each.kill()  # so that Triton cannot clear up itself
    kill_supervisor(own)
    stack.down(own)
    assert process.processes_of(own.home) == []
    assert regions(own) == []
    stack.down(own)


def test_up_after_the_supervisor_was_killed_begins_anew_and_keeps_the_data(own: Settings) -> None:
    stack.up(own, only=["redis"])
    before = service(own, "redis")["pid"]
    with redis_client.Redis(port=own.redis_port, socket_timeout=5) as client:
        client.set("kept", "yes")
    kill_supervisor(own)
    stack.up(own, only=["redis"])
    assert service(own, "redis")["pid"] != before
    assert len(process.processes_of(own.home, "redis")) == 1
    with redis_client.Redis(port=own.redis_port, socket_timeout=5) as client:
        assert client.get("kept") == b"yes"


def test_two_ups_at_once_start_one_stack(own: Settings) -> None:
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(stack.up, own, ["redis"]) for _ in range(2)]:
            done.result()
    assert len(process.processes_of(own.home, "supervisor")) == 1
    assert len(process.processes_of(own.home, "redis")) == 1


def test_a_hung_service_is_restarted(own: Settings) -> None:
    stack.up(own, only=["redis"])
    before = service(own, "redis")["pid"]
    os.kill(before, signal.SIGSTOP)
    wait(came_back(own, "redis", before), 90)


def test_a_taken_port_stops_up_before_anything_starts(own: Settings) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", own.redis_port))
        other.listen()
        with pytest.raises(ServiceError, match=f"port {own.redis_port} .* NEXTCLICK_REDIS_PORT"):
            stack.up(own, only=["redis"])
    assert process.processes_of(own.home) == []


def test_a_service_that_cannot_start_says_why(own: Settings) -> None:
    config = own.models / "ranker/config.pbtxt"
    config.write_text(config.read_text().replace('"treelite_checkpoint"', '"xgboost"'))
    with pytest.raises(ServiceError, match=r"triton does not start: .*its log: ") as caught:
        stack.up(own, only=["triton"])
    assert "ranker" in str(caught.value)
