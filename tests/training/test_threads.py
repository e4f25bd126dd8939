"""Threads that give way: on a machine made of two clocks, whose load is set by hand."""

import logging

import pytest
import torch

from ddpm_lib.training.threads import Threads


class Machine:
    """Two cores; a step is 60 ms of work. Threads that lost their core are waited for: some 2.5 times as long."""

    def __init__(self, cores=2, work=0.06):
        self.time = self.had = 0.0
        self.cores, self.work, self.others = cores, work, 0

    def run(self, threads, steps):
        """The numbers of threads of these steps, and the mean seconds a step."""
        numbers, start = [], self.time
        for _ in range(steps):
            n = torch.get_num_threads()
            got = min(1.0, self.cores / (n + self.others))
            seconds = self.work / n / got * (2.5 if n > 1 and got < 1 else 1.0)
            self.time += seconds
            self.had += seconds * n * got
            numbers.append(n)
            threads.step()
        return numbers, (self.time - start) / steps


@pytest.fixture
def machine():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield Machine()
    torch.set_num_threads(before)


def on(machine, fixed=None):
    return Threads(fixed, clock=lambda: machine.time, used=lambda: machine.had)


def test_alone_nothing_changes(machine):
    with on(machine) as threads:
        numbers, pace = machine.run(threads, 3000)
    assert set(numbers) == {2} and pace == pytest.approx(0.03)


def test_beside_others_it_takes_fewer_and_then_all_again(machine, caplog):
    caplog.set_level(logging.INFO, "ddpm_lib")
    machine.others = 2
    with on(machine) as threads:
        numbers, pace = machine.run(threads, 300)
        assert set(numbers[:20]) == {2} and set(numbers[20:]) == {1}  # a run of twenty steps is never touched
        assert pace < 0.11  # 0.09 with one thread, 0.15 with two
        machine.others = 0
        numbers, _ = machine.run(threads, 100)
        assert set(numbers[40:]) == {2}
    one, two = (record.getMessage() for record in caplog.records)
    assert one.startswith("1 of 2 threads from here on: other programs") and one.endswith("threads=2.")
    assert two.startswith("2 of 2 threads from here on: the cores are free again")


def test_a_core_of_its_own_is_kept_and_the_other_tried_ever_more_rarely(machine):
    machine.others = 1
    with on(machine) as threads:
        numbers, pace = machine.run(threads, 3000)
    assert numbers.count(2) < 100 and pace < 1.05 * machine.work


def test_many_cores(machine):
    machine.cores, machine.others = 16, 8
    torch.set_num_threads(16)
    with on(machine) as threads:
        numbers, _ = machine.run(threads, 4000)
        assert numbers.count(8) > 3500  # the most that have cores of their own
        machine.others = 0
        numbers, _ = machine.run(threads, 4000)
        assert set(numbers[3000:]) == {16}
    assert torch.get_num_threads() == 16


def test_a_fixed_number_is_kept_and_what_was_comes_back(machine):
    machine.others = 5
    with pytest.raises(KeyError), on(machine, fixed=1) as threads:
        numbers, _ = machine.run(threads, 200)
        assert set(numbers) == {1}
        raise KeyError
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "two", True])
def test_a_number_of_threads_is_a_whole_number_above_0(wrong):
    with pytest.raises((TypeError, ValueError), match="The number of threads"):
        Threads(wrong)
