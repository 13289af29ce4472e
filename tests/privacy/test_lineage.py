"""What runs together promise whom: by hand, over groups that may, or cannot, share a patient."""

import time
from dataclasses import replace

import pytest

from fedsynth.errors import ConfigError
from fedsynth.privacy.accounting import Mechanism, compose
from fedsynth.privacy.lineage import PHANTOMS, PLAIN, UNKNOWN, UNTRAINED, Guarantee, Lineage, LineageRun, PatientGroup


def group(epsilon: float, digest: str = "", *disjoint: str, site: str = "one") -> PatientGroup:
    """Without a mechanism, so that epsilons add and can be checked in the head."""
    return PatientGroup(
        site=site, digest=digest, disjoint_from=disjoint, epsilon=epsilon, replace_one=2 * epsilon, delta=1e-5
    )


def run(name: str, *groups: PatientGroup, public: str = "", training: str = "private") -> LineageRun:
    return LineageRun(
        run=name,
        generator="g",
        images=f"set of {name}",
        steps=1,
        training=training,  # type: ignore[arg-type]
        public=public,
        patients=groups or (PatientGroup(site="one"),),
    )


def total(*runs: LineageRun) -> float | None:
    return Lineage(runs=runs).guarantee().epsilon


def test_unknown_groups_add_and_disjoint_ones_do_not() -> None:
    assert total(run("a", group(20, "x")), run("b", group(8, "y"))) == 28
    assert total(run("a", group(20, "x")), run("b", group(8, "y", "x"))) == 20
    assert total(run("a", group(20)), run("b", group(8, "y", "x"))) == 28, "nothing is known without a digest"


def test_deltas_add_with_epsilons() -> None:
    found = Lineage(runs=(run("a", group(20)), run("b", group(8)))).guarantee()
    assert found == Guarantee(epsilon=28, replace_one=56, delta=2e-5)


def test_a_middle_run_may_share_with_both_of_two_that_are_apart() -> None:
    """a and c are disjoint, b may be in either: nobody paid for all three."""
    lineage = Lineage(runs=(run("a", group(5, "x")), run("b", group(3, "y")), run("c", group(4, "z", "x"))))
    assert lineage.guarantee().epsilon == 8
    assert [lineage.promised(one).epsilon for one in lineage.runs] == [8, 8, 7]


def test_the_sites_of_one_run_are_apart_and_each_has_its_own_promise() -> None:
    first = run("a", group(5, "x", site="north"), group(1, "y", site="south"))
    later = run("b", group(2, "u", "y", site="north"), group(2, "v", "x", site="south"))
    lineage = Lineage(runs=(first, later))
    assert lineage.guarantee().epsilon == 7
    assert [lineage.promised(later, one).epsilon for one in later.patients] == [7, 3]
    assert [lineage.promised(first, one).epsilon for one in first.patients] == [7, 3]


def test_phantoms_cost_nobody_and_stand_for_patients_in_the_last_run() -> None:
    assert total(run("a", group(9), public=PHANTOMS), run("b", group(8))) == 8
    assert total(run("a", group(9)), run("b", group(8), public=PHANTOMS)) == 9
    assert total(run("a", group(8), public=PHANTOMS)) == 8


@pytest.mark.parametrize("training", ["plain", "insecure", "unknown"])
def test_an_ancestor_without_a_guarantee_leaves_none(training: str) -> None:
    exposed = run("a", training=training)
    assert total(exposed, run("b", group(8))) is None
    assert total(exposed, run("m", public=PHANTOMS, training="plain"), run("b", group(8))) is None
    lineage = Lineage(runs=(exposed, run("b", group(8))))
    assert lineage.claim().startswith("none: it goes on from a (set of a)")
    assert lineage.history()[1].endswith("its patients over the whole lineage: no guarantee")
    declared = Lineage(runs=(exposed,)).declared_public("b").then(run("b", group(8)))
    assert declared.guarantee().epsilon == 8
    assert "a (set of a) as public on the word of --public-start of b" in declared.claim()


def test_public_is_what_every_image_set_says_of_itself() -> None:
    phantoms, patients = run("a", public=PHANTOMS, training="plain"), run("b", training="plain")
    assert Lineage(runs=(phantoms,)).public
    assert not Lineage(runs=(patients, phantoms)).public
    assert not Lineage(runs=(patients,)).declared_public("c").then(phantoms).public
    assert not Lineage().public


def test_mechanisms_are_composed_where_all_are_known() -> None:
    mechanism = Mechanism(rate=1.0, noise=2.0, steps=2)
    alone = compose([mechanism], 1e-5)
    known = replace(group(alone.epsilon), mechanisms=(mechanism,))
    both = total(run("a", known), run("b", known))
    assert both == compose([mechanism, mechanism], 1e-5).epsilon < 2 * alone.epsilon


def test_many_unlike_sites_are_added_in_time() -> None:
    groups = [replace(group(1 + i / 10), mechanisms=(Mechanism(rate=1.0, noise=2.0 + i, steps=2),)) for i in range(12)]
    begun = time.monotonic()
    assert total(run("a", *groups), run("b", *groups)) == pytest.approx(2 * 2.1)
    assert time.monotonic() - begun < 5


def test_a_private_run_without_a_group_is_refused() -> None:
    with pytest.raises(ConfigError, match="promises nobody"):
        replace(run("a", group(1)), patients=())


def test_a_promise_under_an_assumption_says_so_wherever_it_counts() -> None:
    against = "a server that colludes with at most 1 of the 4 sites"
    summed = run("a", replace(group(5, "x"), assumption=against), replace(group(5, "y"), assumption=against))
    said = f"the promise of a holds only against {against}"
    assert Lineage(runs=(summed,)).claim().count(said) == 1
    assert said in Lineage(runs=(summed, run("b", group(3, "z")))).claim()
    assert "holds only against" not in Lineage(runs=(run("b", group(3, "z")),)).claim()


def test_the_claim_of_two_runs_by_hand() -> None:
    """Whoever was in the first may have been at either site of the second: 5 and 3, and the Renyi bounds 6 and 4."""
    first = run("a", replace(group(5, "x"), renyi=6.0))
    sites = (replace(group(2, "y", site="north"), renyi=2.5), replace(group(3, "z", site="south"), renyi=4.0))
    lineage = Lineage(runs=(first, run("b", *sites)))
    assert lineage.guarantee() == Guarantee(epsilon=8, replace_one=16, renyi=10, delta=2e-5)
    assert lineage.digests == ("x", "y", "z")
    assert lineage.claim() == (
        "epsilon 8 at delta 2e-05 per patient, add/remove (replace-one 16; 10 by Renyi accounting); covers this "
        "generator and what is drawn from it; counts the whole lineage (a: g, 1 steps on set of a, epsilon 5 at delta "
        "1e-05; this run alone epsilon 3); at every site alike, where no patient is in two of them"
    )
    assert Lineage(runs=(run("a", group(5)),)).claim() == (
        "epsilon 5 at delta 1e-05 per patient, add/remove (replace-one 10); covers this generator and what is drawn "
        "from it"
    )


def test_the_history_tells_every_run_and_whose_word_counts() -> None:
    made, told = run("a", group(9), public=PHANTOMS), run("b", group(7), public="--public-start of c")
    sites = (group(2, "y", site="north"), group(3, "z", site="south"))
    lineage = Lineage(runs=(made, told, run("c", *sites)))
    assert lineage.history() == [
        "a: g, 1 steps on set of a, epsilon 9 at delta 1e-05; its images are phantoms: nobody",
        "b: g, 1 steps on set of b, epsilon 7 at delta 1e-05; its images count as public on the word of --public-start "
        "of c: they are not covered",
        "c: g, 1 steps on set of c, epsilon 3 at delta 1e-05; its patients over the whole lineage: epsilon 3",
    ]
    assert Lineage(runs=(made,)).history()[0].endswith("its patients over the whole lineage: epsilon 9")
    assert lineage.caveats() == [
        "counts the images of b (set of b) as public on the word of --public-start of c: they are not covered"
    ]


def test_without_a_private_run_of_patients_the_last_run_says_what_holds() -> None:
    made, drawn = run("a", public=PHANTOMS, training="plain"), run("b", training="untrained")
    assert Lineage(runs=(made, drawn)).guarantee() == Guarantee(epsilon=None, why=UNTRAINED)
    assert Lineage(runs=(made, drawn)).claim() == UNTRAINED
    assert Lineage(runs=(run("a", group(8)), run("b", training="plain"))).claim() == PLAIN
    assert Lineage().claim() == Lineage().guarantee().why == UNKNOWN


def test_sites_that_cost_the_same_are_told_apart_by_whom_they_share() -> None:
    """By hand: nobody of one site is in the second run, and somebody of the other may be."""
    first = run("a", group(1, "x", site="north"), group(1, "y", site="south"))
    assert total(first, run("b", group(5, "u", "x"))) == 6
    assert total(first, run("b", group(5, "u", "x", "y"))) == 5
    assert total(first, run("b", group(5, "u", "x", site="north"), group(2, "v", "y", site="south"))) == 6


def test_mechanisms_are_composed_at_the_smallest_delta() -> None:
    mechanism = Mechanism(rate=1.0, noise=2.0, steps=2)
    early = replace(group(3), mechanisms=(mechanism,), delta=1e-6)
    found = Lineage(runs=(run("a", early), run("b", replace(early, delta=1e-4)))).guarantee()
    assert (found.epsilon, found.delta) == (compose([mechanism, mechanism], 1e-6).epsilon, 1e-6)


def test_statements_of_three_runs_name_each_in_its_place() -> None:
    runs = [run(name, group(epsilon)) for name, epsilon in (("a", 1), ("b", 2), ("c", 3))]
    assert "(a: g, 1 steps on set of a, epsilon 1 at delta 1e-05; b: g, 1 steps" in Lineage(runs=tuple(runs)).claim()
    assert Lineage(runs=tuple(runs)).digests == ()
    plain = [run(name, training="plain") for name in "ab"]
    assert Lineage(runs=(*plain, runs[2])).claim().startswith("none: it goes on from a (set of a)")
    last = replace(plain[1], patients=(), training="untrained")
    assert Lineage(runs=(runs[0], runs[1], last)).claim() == UNTRAINED
