"""What may leave the site: nothing in it names a patient or a place on a disk."""

import json

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
