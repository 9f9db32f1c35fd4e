"""What every test shares: helper modules of this folder can be imported, and `--no-skips` for CI."""

import sys
from pathlib import Path

import pytest

# The import mode `importlib` puts no folder on the path; tests/reference.py and its like are imported by name.
sys.path.insert(0, str(Path(__file__).parent))


def pytest_addoption(parser):
    parser.addoption("--no-skips", action="store_true", help="fail each test that would be skipped, with its reason")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    return fail_if_skipped(report) if item.config.getoption("--no-skips") else report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    return fail_if_skipped(report) if collector.config.getoption("--no-skips") else report


def fail_if_skipped(report):
    """A framework that is missing where all must be there is a failure, not a shrug."""
    if report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.longrepr = f"{report.nodeid} would be skipped, and --no-skips was given: {reason}"
    return report
