"""What may leave the site: nothing in it names a patient or a place on a disk."""

import json
from dataclasses import replace

from fedsynth.evaluation.anonymous_result import withhold
from fedsynth.evaluation.score import Input, Result, Score


def result():
    copies = [
        {"case": "like-Nemo-3", "patient": "Nemo", "role": "member"},
        {"case": "0007", "patient": "Ahab", "role": "member"},
    ]
    return Result(
        benchmark="memorization",
        verdict="leak",
        scores={"copied_share": Score(value=0.1)},
        inputs={"real": Input(path="/srv/Nemo-study/Ahab", sha256="x", images=2, patients=2, roles={})},
        seed=0,
        settings={"tolerance": 0.01, "spaces": ("pixels", "/home/Ishmael/net.pt")},
        seconds=1.0,
        details={
            "extraction": {"copies": copies, "alike_patients": [["Nemo", "Ahab"]]},
            "patients": {"by_site": {"": ["Nemo"]}, "rate": 0.1},
        },
    )


def test_no_name_and_no_path_is_left():
    text = json.dumps(withhold(result()).as_json()["details"]) + json.dumps(withhold(result()).as_json()["inputs"])
    text += json.dumps(withhold(result()).as_json()["settings"])
    assert not [word for word in ("Nemo", "Ahab", "Ishmael", "/srv", "/home") if word in text]
    assert "net.pt" in text


def test_a_patient_keeps_one_name_within_an_export_and_another_in_the_next():
    first, second = (withhold(result()).details for _ in range(2))
    assert first["extraction"]["copies"][0]["patient"] == first["patients"]["by_site"][""][0]
    assert first["extraction"]["copies"][1]["case"] == "0007"
    assert first["patients"] != second["patients"]


def test_scores_of_a_few_patients_and_of_all_but_a_few_stay():
    def of(n):
        return {"dice/synthetic": Score(value=0.5, n=n)}

    groups = {"few": of(5), "enough": of(6), "all but one": of(19), "all": of(20)}
    whole = replace(result(), scores=of(20), per_site=groups, details={"subgroups": {"class": groups}})
    shown = withhold(whole)
    assert set(shown.per_site) == set(shown.details["subgroups"]["class"]) == {"enough", "all"}
    read = json.loads(json.dumps(whole.as_json()["details"]))  # as a file has it
    assert set(withhold(replace(whole, details=read)).details["subgroups"]["class"]) == {"enough", "all"}
