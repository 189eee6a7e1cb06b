"""Adam's steps by the kernel, beside torch's own."""

from __future__ import annotations

import copy
import weakref

import pytest
import torch
from interpreted import runs_interpreted
from torch import Tensor, nn

from alseg.engine.descent import TableAdam, fits, rows_of, stepper, table_of, works_on
from alseg.engine.tables import order_of

SHAPES = [(1,), (3,), (16,), (5000,), (2, 3, 3, 3), (64, 32, 1, 1), (40, 1, 5, 5), (17, 13), (8, 16, 3, 3)]
CPU = torch.device("cpu")


def adam(device: str = "cpu", decay: float = 1e-2, groups: int = 2) -> torch.optim.Adam:
    """Adam over tensors of many lengths, every third with channels last, in groups at rates of their own."""
    torch.manual_seed(0)
    made = [torch.randn(shape) for shape in SHAPES]
    made = [t.to(memory_format=torch.channels_last) if t.ndim == 4 and t.shape[1] % 3 else t for t in made]
    parameters = [nn.Parameter(t.to(device)) for t in made]
    shares = [{"params": parameters[i::groups], "lr": 0.01 * (i + 1)} for i in range(groups)]
    return torch.optim.Adam(shares, weight_decay=decay, fused=True)


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def exact(optimizer: torch.optim.Adam) -> torch.optim.Adam:
    """The same in float64, without a step done."""
    groups = [
        {"params": [nn.Parameter(p.detach().double()) for p in group["params"]], "lr": group["lr"]}
        for group in optimizer.param_groups
    ]
    return torch.optim.Adam(groups, weight_decay=optimizer.param_groups[0]["weight_decay"])


def draw(optimizer: torch.optim.Adam, twin: torch.optim.Adam, *, anew: bool = False) -> None:
    """Gradients of very different sizes, in the tensors of before or in new ones."""
    for p, other in zip(parameters_of(optimizer), parameters_of(twin), strict=True):
        if p.grad is None or anew:
            p.grad = torch.empty_like(p)
        p.grad.copy_(torch.randn(p.shape) * 10 ** float(torch.randint(-6, 3, ())))
        other.grad = p.grad.double()


def check_same(optimizer: torch.optim.Adam, twin: torch.optim.Adam) -> None:
    """Parameters and state of both are the same."""
    for p, other in zip(parameters_of(optimizer), parameters_of(twin), strict=True):
        # torch's fused step on a GPU takes 1 - 0.999 in float32, which is 1.3e-5 off; state may be by 10 * rtol
        rtol = 3e-6 if p.is_cuda else 1e-6
        torch.testing.assert_close(p.detach().double(), other.detach(), rtol=rtol, atol=rtol)
        for name, tensor in optimizer.state[p].items():
            wanted = twin.state[other][name].to(tensor.device, torch.float64)
            torch.testing.assert_close(tensor.double(), wanted, rtol=10 * rtol, atol=rtol * float(wanted.abs().max()))


def count_torch(optimizer: torch.optim.Adam) -> list[int]:
    """Grows by one at each step that torch does."""
    calls: list[int] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append(1))
    return calls


def check_all(device: str) -> None:
    """Ten and more steps, some of them torch's, at rates that change."""
    for decay in (0.0, 1e-2):
        ours = adam(device, decay)
        twin, calls, torches = exact(ours), count_torch(ours), []
        steps = TableAdam(ours)
        for i in range(14):
            for optimizer in (ours, twin):
                for group in optimizer.param_groups:
                    group["lr"] *= 0.9
            held = [p.grad for p in parameters_of(ours)]
            draw(ours, twin, anew=i == 6)
            before = len(calls)
            ours.step() if i == 9 else steps.step()
            torches.append(len(calls) > before)
            twin.step()
            check_same(ours, twin)
            if i == 6:  # as recorded steps do after a plain one
                for p, gradient in zip(parameters_of(ours), held, strict=True):
                    p.grad = gradient
        # without state, without a step before, and at 6 elsewhere
        assert [i for i, by_torch in enumerate(torches) if by_torch] == [0, 1, 6, 9]
    check_uneven(device)
    check_versions(device)


def check_uneven(device: str) -> None:
    """A group whose tensors have done different numbers of steps is torch's, and one without gradients has none."""
    ours = adam(device)
    twin, calls, steps = exact(ours), count_torch(ours), TableAdam(ours)
    for i in range(9):
        draw(ours, twin)
        if i == 0:
            parameters_of(ours)[0].grad = parameters_of(twin)[0].grad = None
        if i > 5:
            for optimizer in (ours, twin):
                for p in optimizer.param_groups[0]["params"]:
                    p.grad = None
        steps.step()
        twin.step()
        check_same(ours, twin)
    assert len(calls) == 7  # the last two are of the other group alone


def check_versions(device: str) -> None:
    """Autograd notices that the kernel has written into a weight."""
    ours = adam(device)
    steps = TableAdam(ours)
    for _ in range(4):
        draw(ours, exact(ours))
        weight = parameters_of(ours)[0]
        product = (weight * weight).sum()
        steps.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_the_kernel_gives_what_torch_gives():
    runs_interpreted("test_descent")


def test_a_table_has_each_number_once():
    optimizer = adam(groups=1)
    for p in parameters_of(optimizer):
        p.grad = torch.zeros_like(p)
    optimizer.step()
    (rows,) = rows_of(optimizer)
    table = table_of(rows, 32)
    for column in range(4):
        places = [line[column] + 4 * i for line in table for i in range(line[4])]
        wanted = [row[column].data_ptr() + 4 * i for row in rows for i in range(row[column].numel())]
        assert places == wanted
    assert [line[5] for line in table if line[5]] == [row[4].data_ptr() for row in rows]
    assert max(line[4] for line in table) == 32


def rowed(tensor: Tensor) -> tuple[Tensor, ...]:
    return (tensor, *(torch.empty_like(tensor) for _ in range(3)), torch.zeros(()))


def test_only_tensors_in_one_order_fit():
    plain = torch.empty(4, 3, 5, 5)
    last = plain.to(memory_format=torch.channels_last)
    assert fits(rowed(plain)) and fits(rowed(last))
    assert not fits((plain, last, *rowed(plain)[2:]))
    assert not fits((plain.double(), *rowed(plain)[1:]))
    assert not fits((torch.empty(5)[1:], *rowed(torch.empty(4))[1:]))  # whole vectors do not start there
    assert not fits(rowed(torch.empty(0)))
    assert not fits((plain, plain[:, :1].expand_as(plain), *rowed(plain)[2:]))
    # a dimension of one number may have any stride
    small = torch.empty(4, 3, 1, 1)
    assert fits((small, small.to(memory_format=torch.channels_last), *rowed(small)[2:]))
    assert order_of(torch.empty(8)[::2]) is None and order_of(torch.empty(())) == ()


CHANGES = ("gradient", "no gradient", "average", "state", "parameter", "option", "loaded")


def change(optimizer: torch.optim.Adam, how: str) -> None:
    """Something that a table does not stay right with."""
    weight = parameters_of(optimizer)[3]
    if how.endswith("gradient"):
        weight.grad = None if how == "no gradient" else torch.zeros_like(weight)
    elif how == "average":
        optimizer.state[weight]["exp_avg"] = torch.zeros_like(weight)
    elif how == "state":
        optimizer.state[weight] = dict(optimizer.state[weight])
    elif how == "parameter":
        weight.data = weight.data.clone()
    elif how == "option":
        optimizer.param_groups[0]["maximize"] = True
    else:
        optimizer.load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("how", CHANGES)
def test_only_the_same_tensors_are_stepped_without_a_look(monkeypatch, how):
    launched, looks = [], []
    monkeypatch.setattr("alseg.engine.descent_kernels.adam", lambda *given: launched.append(1))
    monkeypatch.setattr("alseg.engine.descent.rows_of", lambda given: looks.append(1) or rows_of(given))
    optimizer = adam()
    steps = TableAdam(optimizer)
    for p in parameters_of(optimizer):
        p.grad = torch.zeros_like(p)
    for _ in range(5):
        steps.step()
    assert len(looks) == 3 and len(launched) == 6  # two groups, from the third step on
    gradient = weakref.ref(parameters_of(optimizer)[3].grad)
    change(optimizer, how)
    assert (gradient() is None) == how.endswith("gradient")  # not kept
    steps.step()
    assert len(looks) == 4


@pytest.mark.parametrize("how", ["amsgrad", "maximize", "a rate on the device", "not fused", "sparse"])
def test_what_the_kernel_does_not_know_is_torch_s(how):
    optimizer = adam()
    for p in parameters_of(optimizer):
        p.grad = torch.zeros_like(p)
    assert rows_of(optimizer) is None  # there is no state yet
    optimizer.step()
    assert rows_of(optimizer) is not None
    if how == "sparse":
        weight = parameters_of(optimizer)[0]
        weight.grad = torch.zeros_like(weight).to_sparse()
    else:
        changes = {"a rate on the device": {"lr": torch.tensor(0.1)}, "not fused": {"fused": None}}
        optimizer.param_groups[0] |= changes.get(how, {how: True})
    assert rows_of(optimizer) is None


def test_gradients_that_never_stay_are_torch_s():
    ours = adam()
    twin, calls, steps, held = copy.deepcopy(ours), count_torch(ours), TableAdam(ours), []
    for _ in range(5):
        draw(ours, exact(ours), anew=True)
        held += [p.grad for p in parameters_of(ours)]  # so that no memory is given out again
        for p, other in zip(parameters_of(ours), parameters_of(twin), strict=True):
            other.grad = p.grad.clone()
        steps.step()
        twin.step()
    assert len(calls) == 5
    assert all(torch.equal(*pair) for pair in zip(parameters_of(ours), parameters_of(twin), strict=True))


def test_steps_are_torch_s_where_runs_are_to_be_the_same_bit_for_bit(monkeypatch):
    monkeypatch.setattr("alseg.engine.descent.works_on", lambda device: True)
    optimizer = adam()
    assert stepper(optimizer, CPU).__func__ is TableAdam.step
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert stepper(optimizer, CPU) == optimizer.step


def test_steps_on_a_cpu_and_of_other_optimisers_are_torch_s():
    optimizer = adam()
    assert stepper(optimizer, CPU) == optimizer.step
    sgd = torch.optim.SGD(parameters_of(optimizer), lr=0.1)
    assert stepper(sgd, torch.device("cuda")) == sgd.step
    assert not works_on(CPU)
