"""The same code on a GPU."""

from __future__ import annotations

import copy

import pytest
import torch
from test_run import camvid_run, fingerprint, lines

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]


def test_a_run_on_the_gpu(cli, camvid, tmp_path):
    outcome = camvid_run(cli, camvid, tmp_path / "run", "--device", "cuda")
    assert outcome.code == 0
    assert lines(tmp_path / "run" / "rounds.jsonl")[-1]["device"].startswith("cuda")


# maps on which the patches around the points are fewer than the cells, and enough steps of each size to record them
AT_POINTS = ("--size", "128x128", "-o", "train.epochs=6")


def test_deterministic_runs_ask_the_same(cli, camvid, tmp_path):
    for name in ("first", "second"):
        camvid_run(cli, camvid, tmp_path / name, "--device", "cuda", "--deterministic", *AT_POINTS)
    assert fingerprint(tmp_path / "first") == fingerprint(tmp_path / "second")


def test_recorded_steps_are_plain_ones(cli, camvid, tmp_path):
    """Without dropout and in float32 both ways give the same losses but for rounding."""
    losses = []
    for graph in ("true", "false"):
        out = tmp_path / graph
        words = ("--device", "cuda", "--precision", "float32", "-o", "train.decode=dense", "-o", "train.epochs=4")
        assert camvid_run(cli, camvid, out, *words, "-o", f"train.cuda_graph={graph}").code == 0
        losses.append([line["loss"] for line in lines(out / "rounds.jsonl")])
    assert losses[0] == pytest.approx(losses[1], rel=0.2)


def test_a_run_records_its_steps_at_the_points(cli, camvid, tmp_path):
    outcome = camvid_run(cli, camvid, tmp_path / "run", "--device", "cuda", *AT_POINTS)
    assert "not recorded" not in outcome.err


def test_recorded_steps_at_the_points_give_the_plain_ones_gradients(monkeypatch):
    """In bfloat16, with all that is for recordings alone: fused norms, weights cast at once, a stream beside."""
    from test_at_points import gradients_at_points

    from alseg.engine.steps import CUDAGraph

    said: list[str] = []
    ours = gradients_at_points(monkeypatch, "cuda", torch.bfloat16, lambda model: CUDAGraph(), said.append)
    plain = gradients_at_points(monkeypatch, "cuda", torch.bfloat16)
    assert not said
    for (loss, found), (exact, wanted) in zip(ours, plain, strict=True):
        assert loss == pytest.approx(exact, rel=5e-2)
        assert float((found - wanted).norm()) <= 0.25 * float(wanted.norm())


def test_a_step_is_recorded_and_gives_the_plain_gradients():
    from test_steps import Toy, batches, plain_gradients, steps

    from alseg.engine.batches import Batch
    from alseg.engine.steps import CUDAGraph, Recorded

    series = [Batch(*(part.cuda() for part in batch.tensors())) for batch in batches([5] * 12)]
    plain, recorded = Toy().cuda(), Toy().cuda()
    said: list[str] = []
    gradients = Recorded(plain_gradients(recorded), recorded.parameters(), 5, CUDAGraph(), said.append)
    found = steps(recorded, gradients, series)
    assert not said
    assert found == pytest.approx(steps(plain, plain_gradients(plain), series), rel=1e-4)


@pytest.mark.parametrize("how", ["waits", "is refused"])
def test_steps_that_cannot_be_recorded_go_on_plainly(how):
    from test_steps import Toy, batches, plain_gradients

    from alseg.engine.batches import Batch
    from alseg.engine.steps import CUDAGraph, Recorded

    class Unfit(Toy):
        def decode(self, features):
            if how == "waits":
                features.sum().item()
            elif torch.cuda.is_current_stream_capturing():
                torch.cuda.synchronize()
            return torch.nn.functional.dropout(super().decode(features))

    model, said = Unfit().cuda(), []
    step = Recorded(plain_gradients(model), model.parameters(), 5, CUDAGraph(), said.append)
    here = torch.cuda.current_stream()
    held = []
    for batch in batches([5] * 12):
        loss = step(Batch(*(part.cuda() for part in batch.tensors())))
        assert torch.isfinite(loss)
        assert torch.cuda.current_stream() == here
        held.append(torch.cuda.memory_allocated())
    assert len(said) == 1
    assert held[-1] <= held[5] + 2**20
    assert torch.cuda.get_sync_debug_mode() == 0


def test_weights_gradients_beside_the_pass_are_those_in_it():
    from test_aside import Counted
    from test_casts import check_same, network

    beside = Counted(torch.device("cuda"))
    check_same(network().cuda(), torch.rand(2, 3, 64, 64).cuda(), rel=3e-2, beside=beside)
    assert beside.count > 20


@pytest.mark.parametrize("recorded", [True, False])
def test_branches_side_by_side_give_the_gradients_of_one_after_the_other(recorded):
    """Ten times, as what is read before it is there need not be wrong each time."""
    from alseg.engine.aside import Aside

    ours = decoder_gradients(Aside(torch.device("cuda")), recorded)
    for found, wanted in zip(ours, decoder_gradients(None, False), strict=True):
        for name, gradient in found.items():  # 4 % where roundings of a forward pass differ
            assert float((gradient - wanted[name]).norm()) <= 0.1 * float(wanted[name].norm()), name


def decoder_gradients(beside, recorded: bool):
    """Of ASPP and the low-level branch on ten inputs; by their names, those of their two inputs among them."""
    from alseg.engine import aside
    from alseg.engine.casts import Casts
    from alseg.engine.steps import CUDAGraph
    from alseg_pixelpick.deeplab import ASPP, convolution

    torch.manual_seed(0)
    model = torch.nn.ModuleList([ASPP(320, (6, 12, 18), 256), convolution(24, 48, 1)])
    model = model.cuda().to(memory_format=torch.channels_last)
    model[0].dropout.p = 0.0
    maps = [torch.randn(4, 320, 23, 30), torch.randn(4, 24, 90, 120)]
    weights = [torch.randn(4, 256, 23, 30), torch.randn(4, 48, 90, 120)]
    high, low = (x.cuda().to(memory_format=torch.channels_last).requires_grad_() for x in maps)
    by_context, by_low = (x.cuda().to(memory_format=torch.channels_last) for x in weights)
    casts = Casts(model, torch.bfloat16)
    leaves = {"high": high, "low": low, **dict(model.named_parameters())}

    def step() -> torch.Tensor:
        for leaf in leaves.values():
            leaf.grad = None
        casts.forget()
        with casts.used(), aside.used(beside):
            with torch.autocast("cuda", dtype=torch.bfloat16):
                calls = [lambda: model[0](high.bfloat16()), lambda: model[1](low.bfloat16())]
                context, near = aside.side_by_side(calls, [high, low])
            error = (context.float() * by_context).sum() + (near.float() * by_low).sum()
            error.backward()
            if beside is not None:
                beside.join()
            casts.hand_over()
        return error.detach()

    again = step
    if recorded:
        recorder = CUDAGraph()
        for number in range(3):
            recorder.warm_up(step, number == 2)
        _, again = recorder.record(step)
        held = {name: leaf.grad for name, leaf in leaves.items()}
    for seed in range(10):  # other inputs each time, as old results would be right for the same ones
        torch.manual_seed(seed)
        with torch.no_grad():
            for x in (high, low):
                x.copy_(torch.randn(x.shape))
        again()
        torch.cuda.synchronize()
        yield {name: (held[name] if recorded else leaf.grad).float().clone() for name, leaf in leaves.items()}


def test_fused_norms_are_torch_s():
    from test_norms import check_all

    check_all("cuda")


def test_norms_are_fused_in_a_training():
    from alseg.engine.norms import fusible_here

    said: list[str] = []
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(4))
    assert fusible_here(model, torch.device("cuda"), torch.bfloat16, True, said.append)
    assert not said


def test_weights_cast_at_once_give_autocast_s_gradients():
    from test_casts import check_same, network

    casts = check_same(network().cuda(), torch.rand(2, 3, 64, 64).cuda(), rel=1e-2)  # a GPU's sums run in any order
    assert casts._table is not None


def test_weights_are_cast_by_the_kernel_as_torch_casts_them():
    from test_casts import check_all

    check_all("cuda")


def test_adam_s_kernel_is_torch_s():
    from test_descent import check_all

    from alseg.engine.descent import works_on

    check_all("cuda")
    assert works_on(torch.device("cuda"))


def test_ten_steps_of_adam_s_kernel_on_a_network_are_torch_s():
    from alseg.engine.descent import stepper
    from benchmarks.material import model

    weights = []
    for by_kernel in (True, False):
        torch.manual_seed(0)
        network = model("mobilenetv2_100").cuda().to(memory_format=torch.channels_last)
        descent = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=2e-4, fused=True)
        calls: list[int] = []
        descent.register_step_pre_hook(lambda *_, calls=calls: calls.append(1))
        step = stepper(descent, torch.device("cuda")) if by_kernel else descent.step
        for parameter in network.parameters():
            parameter.grad = torch.empty_like(parameter)
        for _ in range(10):
            for parameter in network.parameters():
                parameter.grad.normal_()
            step()
        assert len(calls) == (2 if by_kernel else 10)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in network.parameters()]))
    torch.testing.assert_close(*weights, rtol=1e-6, atol=1e-6)


def test_depthwise_convolutions_are_torch_s():
    from test_depthwise import check_all

    from alseg.engine.depthwise import has_kernels

    check_all("cuda")
    assert has_kernels(torch.device("cuda"))


def test_the_decoder_s_inputs_are_joined_as_torch_does():
    from test_resizing import check_all

    from alseg_pixelpick.resizing import has_kernels

    check_all("cuda")
    assert has_kernels(torch.device("cuda"))


def test_maps_are_pooled_as_torch_does():
    from test_pooling import check_all

    check_all("cuda")


def test_cells_are_looked_up_as_torch_does():
    from test_looking_up import check_all

    check_all("cuda")


def block_s_step(model, ways, x, *, lower, direct):
    """A block's output, and the gradients of its input and parameters."""
    from test_layers import graph

    from alseg.engine.layers import quickened

    model.zero_grad()
    x = x.clone().requires_grad_()
    with quickened(ways), torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=lower):
        out = model(x.contiguous(memory_format=torch.channels_last))
    assert ("_Direct" in graph(out)) == direct
    out.double().sin().sum().backward()
    return [out.detach(), x.grad, *(parameter.grad for parameter in model.parameters())]


def check_block(device, stride, lower):
    """A block's training step is not much further from the exact one than torch's is."""
    from test_layers import block

    from alseg.engine.layers import ways_of

    model = block(stride=stride).to(device)
    exact, ways, found = copy.deepcopy(model).double(), ways_of(model), []
    # some gradients are sums that cancel to less than bfloat16's errors, whose size only many draws tell
    for seed in range(16):
        x = torch.randn(2, 8, 33, 24, generator=torch.Generator().manual_seed(seed)).to(device)
        ours = block_s_step(model, ways, x, lower=lower, direct=True)
        theirs = block_s_step(model, {}, x, lower=lower, direct=False)
        assert [part.dtype for part in ours] == [part.dtype for part in theirs]
        found.append((ours, theirs, block_s_step(exact, {}, x.double(), lower=False, direct=False)))
    for i in range(len(found[0][0])):
        ours, theirs, wanted = (torch.stack([draw[which][i].double() for draw in found]) for which in range(3))
        few = (3e-2 if lower else 5e-3) * float(wanted.norm())  # cuDNN multiplies float32 in TF32
        assert float((ours - wanted).norm()) <= 1.5 * float((theirs - wanted).norm()) + few, i


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float32])
def test_a_block_s_training_step_gives_torch_s_gradients(stride, precision):
    check_block("cuda", stride, precision == torch.bfloat16)


def test_batches_made_beside_the_training_are_whole(cli, camvid, tmp_path):
    """What the augmentation's stream hands out is what one stream would give, however slow its user is."""
    from alseg.engine.batches import BatchSource
    from alseg.engine.images import DecodedImages
    from alseg.settings import Augmentation
    from benchmarks.material import CLASSES, generated, labels_of

    images = DecodedImages(generated(tmp_path, 24, (96, 128)), CLASSES, 2**30)
    labels = labels_of(images, 5)
    made = []
    for slow in (True, False):
        source = BatchSource(
            images, labels, CLASSES, Augmentation(), size=(96, 128), batch_size=4, seed=0, round=0, device="cuda"
        )
        sums = []
        for epoch in range(4):
            for batch in source.epoch(epoch):
                if slow:
                    torch.cuda._sleep(20_000_000)  # cycles before the batch is read
                sums.append(batch.images.double().sum((1, 2, 3)))
                if not slow:
                    torch.cuda.synchronize()
        made.append(torch.cat(sums))
    assert torch.equal(*made)
