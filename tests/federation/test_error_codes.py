import errno

import pytest
import torch

from fedsynth import atomic_files
from fedsynth.errors import BudgetSpentError, ConfigError, FedSynthError, ImageSetError, RefusedError, SourceError
from fedsynth.federation.error_codes import LOG, ErrorCode, NeutralError, PolicyRefusedError, keep_to_itself, to_code
from fedsynth.federation.policy import Asked, Policy
from fedsynth.privacy.ledger import refuse_above
from fedsynth.training.divergence_check import DivergedError

SECRET = "/srv/hospital/patient-Meier"


def caught(work):
    with pytest.raises(BaseException) as found:
        work()
    return found.value


def write_on_a_full_disk():
    with atomic_files.told_when_unwritable("file"):
        raise OSError(errno.ENOSPC, "No space left on device")


def ask_for_too_much_memory():
    torch.empty(2**46)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError(SECRET), ErrorCode.FAILED),
        (FedSynthError(SECRET), ErrorCode.FAILED),
        (ConfigError(SECRET), ErrorCode.SETTINGS),
        (ImageSetError(SECRET), ErrorCode.DATA),
        (SourceError(SECRET), ErrorCode.DATA),
        (RefusedError(SECRET), ErrorCode.REFUSED),
        (BudgetSpentError(SECRET), ErrorCode.BUDGET),
        (DivergedError(SECRET), ErrorCode.DIVERGED),
        (MemoryError(SECRET), ErrorCode.MEMORY),
        (torch.OutOfMemoryError(SECRET), ErrorCode.MEMORY),
        (OSError(errno.ENOSPC, SECRET), ErrorCode.DISK),
        (OSError(errno.ECHILD, SECRET), ErrorCode.FAILED),
        (NeutralError(ErrorCode.BUSY), ErrorCode.BUSY),
        (PolicyRefusedError(SECRET, ErrorCode.POLICY_DELTA), ErrorCode.POLICY_DELTA),
    ],
)
def test_every_kind_of_error_has_a_code_without_its_text(error, code, tmp_path):
    assert to_code(error) is code
    assert keep_to_itself(error, tmp_path, doing="round 3") is code
    assert SECRET not in str(NeutralError(code))


@pytest.mark.parametrize(
    ("work", "code"),
    [
        (write_on_a_full_disk, ErrorCode.DISK),
        (ask_for_too_much_memory, ErrorCode.MEMORY),
        (lambda: refuse_above(3, 4), ErrorCode.BUDGET),
        (lambda: Policy().check(Asked(generator="dcgan", private=False)), ErrorCode.POLICY_PLAIN),
    ],
)
def test_errors_as_they_really_come(work, code):
    assert to_code(caught(work)) is code


def test_the_text_stays_in_the_sites_log(tmp_path):
    folder = tmp_path / "site"
    keep_to_itself(caught(lambda: int(SECRET)), folder, doing="round 1")
    keep_to_itself(MemoryError(), folder, doing="round 2")
    log = (folder / LOG).read_text()
    assert SECRET in log
    assert "Traceback" in log
    assert "round 1: failed" in log
    assert "round 2: out of memory" in log


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    assert keep_to_itself(MemoryError(), tmp_path / "file", doing="round 1") is ErrorCode.MEMORY


def test_the_server_repeats_no_text_that_is_not_a_code():
    assert ErrorCode.parse(ErrorCode.BUDGET.value) is ErrorCode.BUDGET
    assert ErrorCode.parse(f"failed: {SECRET}") is ErrorCode.FAILED
    assert ErrorCode.parse("") is ErrorCode.FAILED


def test_a_decision_is_no_failure() -> None:
    decided = {code for code in ErrorCode if code.is_decision}
    assert decided == {
        ErrorCode.BUDGET,
        ErrorCode.REFUSED,
        *(code for code in ErrorCode if code.name.startswith("POLICY")),
    }
