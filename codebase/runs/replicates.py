"""Many runs of one model, on one machine or several, and the table of their figures.

Under torchrun the processes take runs from one counter in the store that torch.distributed
provides: whoever is done takes the next, so that no slow worker holds up the rest. A run that has
its results is never done again, and one that was interrupted goes on where it stopped: whatever
dies, the same command completes the table.
"""

import contextlib
import io
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from codebase import UserError, checkpoints, data
from codebase.machine.terminal import bar
from codebase.runs import records, table
from codebase.runs.begin import in_other_company
from codebase.runs.experiment import Run
from codebase.runs.folders import training_lock
from codebase.runs.progress import Display
from codebase.runs.run import BANNER, train_together
from codebase.runs.wanted import Settings, Wanted, has_begun
from codebase.runs.workers import Workers


def replicate(wanted: Wanted, settings: Settings, count: int, together: int) -> None:
    """Train runs that differ in their numbers and seeds; print their table.

    Args:
        wanted: the first of them
        settings: how to train each
        count: how many
        together: how many to train at once, as one ensemble

    Raises:
        UserError: what is recorded of one contradicts the flags, or the other runs
    """
    workers = Workers()
    if settings.threads is None:
        workers.share_cores()
    settings = replace(settings, iter_max=settings.iter_max or wanted.experiment.iter_max)
    source = workers.agree_on(lambda: _source(_members(wanted, count), settings))
    if source == "synthetic" and workers.rank == 0:
        print(BANNER.format(wanted.experiment.dataset.upper()), file=sys.stderr)
    given = workers.agree_on(lambda: _shared(wanted, _members(wanted, count), source))
    members = _members(Wanted(wanted.experiment, given), count)
    groups = workers.agree_on(lambda: _groups(members, source, settings.iter_max, together))
    total = count * settings.iter_max
    with bar(
        total=total, desc="replicates", unit="it", disable=workers.rank > 0, smoothing=0
    ) as shown:

        def report(iterations: int) -> None:
            done = workers.add_iterations(iterations)
            shown.set_postfix({"runs": f"{workers.num_published()} of {count}"}, refresh=False)
            shown.update(done - shown.n)

        for index in workers.claims(len(groups)):
            group = [members[i] for i in groups[index]]
            found = _complete(group, source, settings, Display(report))
            for i, results in zip(groups[index], found, strict=True):
                workers.publish(i, results)
        if workers.rank > 0:
            return
        while workers.num_published() < count:
            report(0)
            time.sleep(0.5)
        report(0)
    results = [workers.results(i) for i in range(count)]
    table.write(table.rows(results), records.LOGS / members[0].run(source).group)


def _members(wanted: Wanted, count: int) -> list[Wanted]:
    """The replicates: numbers, and seeds where one was given, count upwards."""
    first = wanted.given.get("run", 0)
    members = []
    for i in range(count):
        own = {"run": first + i}
        if "seed" in wanted.given:
            own["seed"] = wanted.given["seed"] + i
        for flag, value in own.items():
            try:
                wanted.experiment.types()[flag].check(value)
            except ValueError as error:
                raise UserError(f"--replicates {count}: --{flag} {error}") from None
        members.append(Wanted(wanted.experiment, {**wanted.given, **own}))
    return members


def _source(members: Sequence[Wanted], settings: Settings) -> str:
    """The data that the replicates which have begun were trained on, else the usual ones."""
    experiment = members[0].experiment
    if "data" not in members[0].given:
        begun = {
            source
            for source in (experiment.dataset, "synthetic")
            if any(has_begun(member.run(source).name) for member in members)
        }
        if begun == {"synthetic"}:
            return "synthetic"
    given = members[0].given.get("data", "auto")
    return data.find_or_download(experiment.dataset, given, settings.data_dir)


def _shared(wanted: Wanted, members: Sequence[Wanted], source: str) -> dict:
    """The flags that were given, and what is recorded of those that were not.

    Raises:
        UserError: a record contradicts a flag, or two records each other; or two seeds are the same
    """
    given, seeds = dict(wanted.given), {}
    for member in members:
        record = _record(member.run(source))
        run = member.agreed(record.run) if record else member.run(source)
        if run.seed in seeds:
            raise UserError(
                f"--replicates: {run.name} and {seeds[run.seed]} have the same seed, {run.seed}: "
                "they would be one run counted twice; take others with another --run"
            )
        seeds[run.seed] = run.name
        for flag in ("batch_size", "lr", "compile"):
            if record is None or flag in wanted.given:
                continue
            value = getattr(run, flag)
            if given.setdefault(flag, value) != value:
                raise UserError(
                    f"--replicates: {run.name} is recorded with --{flag} {value}, others with "
                    f"{given[flag]}: take others with another --run"
                )
    return given


def _record(run: Run) -> records.Record | None:
    return records.read_record(checkpoints.run_folder(run.name))


def _groups(
    members: Sequence[Wanted], source: str, iter_max: int, together: int
) -> list[list[int]]:
    """The replicates by their positions, those that are trained as one ensemble in one list.

    Those that have begun go on in the company in which they began.
    """
    positions = {member.given["run"]: i for i, member in enumerate(members)}
    groups, alone, fresh = [], [], []
    for i, member in enumerate(members):
        record = _record(member.run(source))
        if record is None:
            fresh.append(i)
        elif not record.together or records.finished(record.run, iter_max):
            alone.append(i)
        elif set(record.together) <= positions.keys():
            groups.append([positions[number] for number in record.together])
        else:
            raise UserError(in_other_company(record))
    groups = [group for n, group in enumerate(groups) if group not in groups[:n]]
    taken = {i for group in groups for i in group}
    fresh = [i for i in fresh if i not in taken]
    groups += [[i] for i in alone if i not in taken]
    groups += [fresh[i : i + together] for i in range(0, len(fresh), together)]
    return sorted(groups)


def _complete(
    group: Sequence[Wanted], source: str, settings: Settings, display: Display
) -> list[dict]:
    """The results of some replicates, which are trained and reported as far as they are not."""
    if len(group) == 1:
        run = group[0].run(source)
        with training_lock(run.name):
            record = _record(run)
            results = record and records.finished(group[0].agreed(record.run), settings.iter_max)
        if results:
            display.report(settings.iter_max)
            return [results]
    # What runs say of themselves is for somebody who starts one; here the table is the report.
    with contextlib.redirect_stdout(io.StringIO()):
        return train_together(group, source, settings, "resume", display)
