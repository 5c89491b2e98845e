"""The process of a run, before it has a job."""

import psutil

from stoker_builder.pipeline.run_process import RunProcess


async def test_it_gives_way_to_what_serves_from_its_start_on() -> None:
    before = set(psutil.Process().children())
    run = await RunProcess.start()
    try:
        (process,) = set(psutil.Process().children()) - before
        assert process.nice() == 10
    finally:
        await run.end()
