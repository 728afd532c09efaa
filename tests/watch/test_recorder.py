"""The recorder sees every construction and call, and changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from training_losses.migration.watch.inforce import catalogs_in_force, spellings, targets
from training_losses.migration.watch.log import Call, Log, read_logs
from training_losses.migration.watch.process import environment, prepare

HEAD = """
import copy, hashlib, os, random
import numpy as np, torch, torch.utils.checkpoint
from torch import nn
torch.manual_seed(0)
random.seed(0)
np.random.seed(0)
def digest():
    states = [torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()]
    return hashlib.sha256(repr(states).encode()).hexdigest()
"""

TRAIN = (
    HEAD
    + """
from src.training.losses.clip_style_loss import CLIPStyleLoss
from src.training.losses import MemoryQueueContrastiveLoss, ContrastiveLoss, compute_recall_at_k
from training_losses.contrastive.clip_loss import CLIPLoss
from training_losses.contrastive.moco_loss import MemoryQueueLoss

class Mine(CLIPStyleLoss):
    def __init__(self, scale):
        super().__init__(temperature=0.2)
        self.scale = scale
    def forward(self, a, b):
        return super().forward(a, b)["loss"] * self.scale

x, y = torch.randn(12, 8), torch.randn(12, 8)
net = nn.Linear(8, 8)
losses = [CLIPStyleLoss(0.1), Mine(2.0), MemoryQueueContrastiveLoss(dim=8, queue_size=16), CLIPLoss(),
          MemoryQueueLoss(embed_dim=8, queue_size=16),
          ContrastiveLoss(loss_type="nt_xent", input_dim=8, projection_dim=4)]
optimizer = torch.optim.Adam([*net.parameters(), *(p for l in losses for p in l.parameters())], lr=0.01)
ids = torch.arange(12)
def value(loss, a, b):
    out = loss(a, b, ids) if "Queue" in type(loss).__name__ else loss(a, b)
    return out["loss"] if isinstance(out, dict) else out
for step in range(6):
    for loss in losses:                       # gradients are accumulated over all losses
        a, b = net(x), net(y)
        if step == 3:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                a, b = net(x), net(y)
                made = value(loss, a, b)
        else:
            made = value(loss, a, b)
        made.backward()
        print(step, type(loss).__name__, made.item().hex(), vars(loss).keys() - {"x"} == set(vars(loss)))
    if step % 2:
        optimizer.step()
        optimizer.zero_grad()
with torch.no_grad():
    print([value(loss.eval(), x, y).item().hex() for loss in losses])
with torch.inference_mode():
    print([value(loss, x * 1, y).item().hex() for loss in losses])
leaf = x.clone().requires_grad_()
torch.utils.checkpoint.checkpoint(lambda a: value(losses[3], a, y), leaf, use_reentrant=False).backward()
print(leaf.grad.sum().item().hex())
print(leaf._backward_hooks, copy.deepcopy(losses[0])(x, y)["loss"].item().hex())
print(compute_recall_at_k(x @ y.t(), [1]))
print([sorted(loss.state_dict()) for loss in losses])
print(hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in net.parameters())).hexdigest(), digest())
"""
)


def run(script: str, tmp_path: Path, *, recorded: bool, check: bool = True) -> subprocess.CompletedProcess[str]:
    (tmp_path / "main.py").write_text(script, encoding="utf-8")
    folder = tmp_path / "log"
    if recorded:
        prepare(folder, tmp_path, targets(catalogs_in_force()))
    names = {**environment(folder if recorded else None), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "main.py"], cwd=tmp_path, env=names, capture_output=True, text=True, check=False
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def only(logs: list[Log]) -> Log:
    found = [log for log in logs if log.sites]
    assert len(found) == 1
    return found[0]


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str, str, Log]:
    folder = tmp_path_factory.mktemp("train")
    plain = run(TRAIN, folder, recorded=False)
    watched = run(TRAIN, folder, recorded=True)
    return plain.stdout, watched.stdout, plain.stderr, watched.stderr, only(read_logs(folder / "log"))


def test_the_run_is_bitwise_the_same(train: tuple[str, str, str, str, Log]) -> None:
    assert train[0]
    assert train[1] == train[0]
    assert train[3] == train[2]  # warnings at the same lines, too


def test_every_construction_has_its_place(train: tuple[str, str, str, str, Log]) -> None:
    log = train[4]
    assert log.notes == []
    built = [(s.data["code"][:12], s.what.rpartition(".")[2]) for s in log.sites if s.data["kind"] == "built"]
    assert [what for _, what in built if not _.startswith("#")][:2] == ["CLIPStyleLoss", "CLIPStyleLoss"]
    assert {s.data["file"] for s in log.sites if not s.inner} == {"main.py"}
    own = next(s for s in log.sites if s.data.get("cls") == "Mine")
    assert "super().__init__" in own.data["code"]
    names = {s.what.rpartition(".")[2] for s in log.sites}
    assert {"MemoryQueueContrastiveLoss", "CLIPLoss", "MemoryQueueLoss", "ContrastiveLoss"} <= names
    assert any(s.data["kind"] == "called" and s.what.endswith("compute_recall_at_k") for s in log.sites)
    assert any(s.data["kind"] == "copied" for s in log.sites)  # the deep copy was never built


def _calls(log: Log, name: str) -> list[Call]:
    return [call for call in log.calls if call.site.what.endswith(name) and call.site.data["kind"] == "built"]


def test_calls_hold_inputs_results_and_gradients(train: tuple[str, str, str, str, Log]) -> None:
    calls = _calls(train[4], ".CLIPLoss")
    assert len(calls) >= 8
    first = calls[0]
    inputs = first.of("in")
    assert list(inputs) == ["vision_features", "text_features"]
    assert inputs["vision_features"].shape == "12x8"
    assert "loss" in first.of("out")
    roles = {first.entries[number].role for number in first.gradients}
    assert roles == {"in", "out"}
    upstream = [value for number, (_, value) in first.gradients.items() if first.entries[number].role == "out"]
    assert upstream == [1.0]
    assert {flag for call in calls for flag in call.flags.split()} >= {"eval", "no_grad", "autocast:bfloat16"}


def test_state_is_written_when_it_changes(train: tuple[str, str, str, str, Log]) -> None:
    calls = _calls(train[4], "MemoryQueueContrastiveLoss")
    assert "queue_ptr" in calls[0].of("before")
    assert {"vision_queue", "queue_ptr"} <= set(calls[0].of("after"))  # the queue is made at the first call
    assert "queue_ptr" in calls[1].of("after")
    assert "vision_queue" not in calls[1].of("before")


def test_compiled_calls_are_the_programs_own(tmp_path: Path) -> None:
    script = (
        HEAD
        + """
from training_losses.contrastive.clip_loss import CLIPLoss
loss = CLIPLoss()
x, y = torch.randn(6, 4, requires_grad=True), torch.randn(6, 4)
fast = torch.compile(loss, backend="aot_eager", fullgraph=True)
out = fast(x, y)
out = out if torch.is_tensor(out) else out["loss"]
out.backward()
print(out.item().hex(), x.grad.sum().item().hex(), digest())
"""
    )
    plain, watched = run(script, tmp_path, recorded=False), run(script, tmp_path, recorded=True)
    assert watched.stdout == plain.stdout
    log = only(read_logs(tmp_path / "log"))
    assert [site.what.rpartition(".")[2] for site in log.sites] == ["CLIPLoss"]


DDP = (
    HEAD
    + """
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP
from training_losses.contrastive.clip_loss import CLIPLoss
from src.training.losses.clip_style_loss import CLIPStyleLoss
import gc, weakref
dist.init_process_group("gloo", init_method=f"file://{os.getcwd()}/meet{os.getpid()}", rank=0, world_size=1)
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.loss = nn.Linear(4, 4), CLIPStyleLoss(0.1)
    def forward(self, x, y):
        return self.loss(self.net(x), self.net(y))["loss"]
model = DDP(Model())
x, y = torch.randn(6, 4), torch.randn(6, 4)
for _ in range(2):
    model(x, y).backward()
print(model.module.net.weight.grad.sum().item().hex())
pid = os.fork()
if not pid:
    made = CLIPLoss()(x, y)
    print("child", (made["loss"] if isinstance(made, dict) else made).item(), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
loss = CLIPLoss(); a = torch.randn(6, 4, requires_grad=True); out = loss(a * 1, y)
gone = [weakref.ref(loss), weakref.ref(a)]
del loss, a, out; gc.collect()
print([ref() for ref in gone])
dist.destroy_process_group()
"""
)


def test_ddp_forked_children_and_nothing_kept_alive(tmp_path: Path) -> None:
    plain, watched = run(DDP, tmp_path, recorded=False), run(DDP, tmp_path, recorded=True)
    assert watched.stdout == plain.stdout
    assert "[None, None]" in watched.stdout
    parent, child = [log for log in read_logs(tmp_path / "log") if log.sites]
    assert child.header["forked"]
    assert child.header["pid"] != parent.header["pid"]
    assert [call.site.what.rpartition(".")[2] for call in child.calls].count("CLIPLoss") >= 1


def test_a_killed_process_leaves_a_readable_log(tmp_path: Path) -> None:
    script = (
        HEAD
        + """
from src.training.losses.clip_style_loss import CLIPStyleLoss
loss = CLIPStyleLoss(0.1)
for step in range(100):
    loss(torch.randn(4, 4), torch.randn(4, 4))
    if step == 40:
        os.kill(os.getpid(), 9)
"""
    )
    done = run(script, tmp_path, recorded=True, check=False)
    assert done.returncode == -signal.SIGKILL
    log = only(read_logs(tmp_path / "log"))
    assert not log.ended
    assert [call.number for call in log.calls] == list(range(41))
    # a line that was torn is passed over
    path = next((tmp_path / "log").glob("*.jsonl"))
    path.write_bytes(path.read_bytes()[:-7])
    assert len(only(read_logs(tmp_path / "log")).calls) == 40


def test_both_spellings_are_watched() -> None:
    found = targets(catalogs_in_force())
    for module in ("legacy.clip_style_loss", "training_losses.legacy.clip_style_loss"):
        assert found[module]["CLIPStyleLoss"][0] == "old"
    for module in spellings("training.losses.contrastive.clip_loss"):
        assert found[module]["CLIPLoss"][0] == "new"
    assert "src.training.losses.clip_style_loss" in found  # old files that still lie in a tree


def test_without_the_variable_nothing_is_installed() -> None:
    names = {**environment(None, shims=False), "OMP_NUM_THREADS": "1"}
    code = "import sys; print(any('watch' in type(f).__module__ for f in sys.meta_path))"
    done = subprocess.run([sys.executable, "-c", code], env=names, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_missing_plan_is_said_and_the_program_runs(tmp_path: Path) -> None:
    names = {**environment(tmp_path / "nowhere"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", "print(1)"], env=names, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    assert "not recorded" in done.stderr


def test_lines_are_json(train: tuple[str, str, str, str, Log], tmp_path: Path) -> None:
    del train
    run(HEAD + "from src.training.losses.clip_style_loss import CLIPStyleLoss\nCLIPStyleLoss()(torch.full((3, 3), float('nan'), requires_grad=True), torch.zeros(3, 3))['loss'].backward()", tmp_path, recorded=True)  # fmt: skip  # noqa: E501
    for path in (tmp_path / "log").glob("*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            json.loads(line)
    assert os.listdir(tmp_path / "log")
