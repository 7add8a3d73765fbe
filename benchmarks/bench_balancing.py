"""A training step with each loss balancer over one with `balancing=fixed`, in time and memory, for 2, 5 and 8 tasks.

Run with `python benchmarks/bench_balancing.py`; about twenty minutes on two cores. All balancers take turns on one
network, `experiment=deeperlab_scenes` with two of its five heads, with all, and with three semantic heads more; those
of `sweeps/balancing_oanet.yaml` on `experiment=oanet_scenes`. Beside them stands the usual recipe, which goes back
through the whole network once per task, as a loop by hand does it.
"""

import argparse
import statistics
import subprocess
import sys
from dataclasses import dataclass

import torch
from measuring import peak_of, seconds_of
from rich.console import Console
from rich.table import Table

from panoptic.assembly import build_data, build_module
from panoptic.configuration import config_folder, load_config, resolved
from panoptic.data.loading import map_tensors
from panoptic.instantiation import build

STRATEGIES = sorted(path.stem for path in (config_folder() / "balancing").glob("*.yaml"))
USUAL = "usual recipe"
ROUNDS = {"cpu": 24, "cuda": 60}
VALUE_BAR, GRADIENT_BAR = 1.02, 1.6
"""Times a fixed step, for strategies that read values of losses and for those that read gradients."""
OF_VALUES = {"uncertainty", "dynamic_weight_average", "random_weighting", "geometric_mean"}
APART = {"fixed", "famo", USUAL}
"""Without a bar: famo has a second forward pass."""


@dataclass(frozen=True)
class Case:
    """What a table is of: the first heads of an experiment, filled up with semantic ones, and strategies."""

    experiment: str
    batch_size: int
    num_tasks: int
    strategies: list[str]


CASES = {
    **{f"deeperlab_{n}": Case("deeperlab_scenes", 8, n, STRATEGIES) for n in (2, 5, 8)},
    "oanet": Case("oanet_scenes", 4, 3, ["fixed", "pcgrad", "uncertainty", "upgrad"]),
}


def make_parts(case, device):
    """A network of so many heads, and a batch."""
    choices = [f"experiment={case.experiment}", f"data.batch_size={case.batch_size}"]
    config = resolved(load_config("train", [*choices, "data.train.length=16", "data.num_workers=0"]))
    heads = config["heads"]
    more = {f"semantic_{number}": heads["semantic"] for number in range(case.num_tasks - len(heads))}
    config["heads"] = dict(list(({**heads, **more}).items())[: case.num_tasks])
    config["loss_weights"] = {}
    data = build_data(config)
    network = build_module(config, data).network.to(device).train()
    batch = next(iter(data.train_dataloader()))
    return network, map_tensors(batch, lambda tensor: tensor.to(device), {})


def make_balancer(strategy, network, device):
    """As a run has it."""
    node = resolved(load_config("train", [f"balancing={strategy}"]))["balancing"]
    return build(node, losses_of_heads=network.losses_of_heads).to(device)


def step_with(balancer, network, batch, optimizer):
    """Forward, balancing, backward and the optimizer's step."""

    def losses_of_batch():
        outputs, features = network(batch.images, batch.image_sizes)
        return network.losses(outputs, features, batch), features

    def again():
        with torch.no_grad():
            return losses_of_batch()[0]

    optimizer.zero_grad()
    losses, features = losses_of_batch()
    balancer(losses, network.shared(features), lambda value: value).total.backward()
    optimizer.step()
    balancer.after_step(again)


def usual_step(network, batch, optimizer):
    """The gradient of every task on all parameters, then their sum."""
    optimizer.zero_grad()
    outputs, features = network(batch.images, batch.image_sizes)
    losses = network.losses(outputs, features, batch)
    parameters = list(network.parameters())
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    for names in network.losses_of_heads.values():
        task = torch.stack([losses[name] for name in names]).sum()
        gradients = torch.autograd.grad(task, parameters, retain_graph=True, materialize_grads=True)
        sums = [total + gradient for total, gradient in zip(sums, gradients, strict=True)]
    for parameter, total in zip(parameters, sums, strict=True):
        parameter.grad = total
    optimizer.step()


def make_steps(names, case, device):
    """{name: a step without arguments}, all of one network."""
    network, batch = make_parts(case, device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)
    steps = {}
    for name in names:
        if name == USUAL:
            steps[name] = lambda: usual_step(network, batch, optimizer)
            continue
        balancer = make_balancer(name, network, device)
        steps[name] = lambda balancer=balancer: step_with(balancer, network, batch, optimizer)
    return steps


def measure_times(case, device):
    """{name: quotients of its step and the fixed one of the same round}, and the median of the latter in seconds."""
    steps = make_steps([*case.strategies, USUAL], case, device)
    for step in steps.values():
        step()
    seconds = {name: [] for name in steps}
    for round_number in range(ROUNDS[device]):
        order = list(steps)[:: 1 if round_number % 2 else -1]
        for name in order:
            seconds[name].append(seconds_of(steps[name], device))
    fixed = seconds["fixed"]
    return {name: [a / b for a, b in zip(s, fixed, strict=True)] for name, s in seconds.items()}, statistics.median(
        fixed
    )


def interval_of_median(values):
    """Order statistics that enclose the median of what was sampled with 95 %."""
    ordered, reach = sorted(values), 0.98 * len(values) ** 0.5
    low, high = max(round(len(values) / 2 - reach) - 1, 0), min(round(len(values) / 2 + reach), len(values) - 1)
    return ordered[low], statistics.median(ordered), ordered[high]


def own_seconds(name, network, device):
    """Of a strategy of values alone: from losses to the gradient of their total, the median of many times."""
    balancer = make_balancer(name, network, device)
    losses = {loss: torch.rand((), device=device, requires_grad=True) for loss in network.loss_names}

    def work():
        balancer(losses, [], lambda value: value).total.backward()
        balancer.after_step(lambda: losses)

    return statistics.median([seconds_of(work, device) for _ in range(500)])


def measure_peak(name, case_name, device):
    """Megabytes of three steps beside weights and batch, in a process of its own."""
    command = [sys.executable, __file__, "--peak", name, "--case", case_name, "--device", device]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def bar_of(name):
    """The most that the median may be; None without a bar."""
    if name in APART:
        return None
    return VALUE_BAR if name in OF_VALUES else GRADIENT_BAR


def report(case_name, device):
    """Print a table; whether every bar holds."""
    case = CASES[case_name]
    ratios, fixed = measure_times(case, device)
    peaks = {name: measure_peak(name, case_name, device) for name in ratios}
    what = f"{case.experiment}, {case.num_tasks} tasks, {device}"
    title = f"{what}: a step with balancing=fixed takes {1000 * fixed:.0f} ms"
    table = Table("balancing", "time", "95 % interval", "memory", "bar", "", title=title)
    passed = True
    for name, values in ratios.items():
        low, median, high = interval_of_median(values)
        bar = bar_of(name)
        passed &= bar is None or low <= bar
        verdict = ("", "") if bar is None else (f"<= {bar:.2f}", verdict_of(low, median, bar))
        table.add_row(
            name, f"{median:.2f}", f"{low:.2f} to {high:.2f}", f"{peaks[name] / peaks['fixed']:.2f}", *verdict
        )
    Console().print(table)
    return passed


def verdict_of(low, median, bar):
    """Whether the median is within the bar, above it as noise may have it, or above it."""
    if median <= bar:
        return "[green]pass"
    return "[yellow]within noise" if low <= bar else "[red]fail"


def report_own_work(device):
    """Print what the strategies of values do beside a step, too little for the tables to resolve."""
    network, _ = make_parts(CASES["deeperlab_5"], "cpu")
    fixed = own_seconds("fixed", network, device)
    for name in sorted(OF_VALUES):
        more = 1000 * (own_seconds(name, network, device) - fixed)
        print(f"{name}: {more:.2f} ms per step more than fixed, of five losses")


def main():
    """Print the ratios and whether they pass; the exit status is 1 if one does not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peak", help="print the memory of steps with one balancer and stop")
    parser.add_argument("--case", choices=CASES, help="one table alone")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(2)
    if options.peak is not None:
        case = CASES[options.case]
        print(peak_of(make_steps([options.peak], case, options.device)[options.peak], options.device))
        return 0
    chosen = CASES if options.case is None else (options.case,)
    passed = [report(case_name, options.device) for case_name in chosen]
    report_own_work(options.device)
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
