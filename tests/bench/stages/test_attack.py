"""What attacks learn."""

from bench.artifacts.learned import learned, shadow_inputs
from lmia.attacks import FitInputs, FitRun
from lmia.attacks.generated_set_classifier import GeneratedSetClassifier
from lmia.attacks.gsa import Gsa1
from lmia.attacks.secmi import SecmiNns

from .conftest import BASE, MEMBERS, OTHERS, drawn, target

CLASSIFIER = GeneratedSetClassifier(size=32, epochs=1, batch=4)


def test_what_is_learned_is_what_the_attack_says(desk, tmp_path):
    positives, negatives = drawn(target(), 6), drawn(BASE, 6)
    artifact = learned(CLASSIFIER, {"positives": positives, "negatives": negatives})
    found = desk.bench.tensors(desk.ref(artifact))
    sets = FitInputs(positives=desk.pictures(positives), negatives=desk.pictures(negatives))
    expected = CLASSIFIER.fit(sets, FitRun(partial=tmp_path))
    assert found.keys() == expected.keys() and all((found[name] == expected[name]).all() for name in found)
    (part,) = desk.manifest(artifact).parts
    assert part.name == "learned.safetensors"
    assert desk.manifest(artifact).total("nfe") == 0, "it asks no model"


def test_attacks_on_one_shadow_target_share_a_job_and_its_measurements(desk):
    shadow = shadow_inputs(target(), MEMBERS, OTHERS)
    desk.make(target(), MEMBERS, OTHERS)
    attacks = [Gsa1(), SecmiNns(epochs=1), SecmiNns(epochs=2)]
    artifacts = [learned(attack, shadow) for attack in attacks]
    (job,) = desk.jobs(*artifacts)
    assert len(job.payload.refs) == 3 and job.stage.shares_gpu and job.executor == "tune"
    desk.do(job)
    spent = [desk.manifest(artifact).total("nfe_spent") for artifact in artifacts]
    assert sum(spent) == job.payload.passes
    for attack, artifact in zip(attacks, artifacts, strict=True):
        assert desk.bench.tensors(desk.ref(artifact))
        assert desk.manifest(artifact).total("nfe") == attack.nfe * 16, "what it costs alone, shared or not"
    others = learned(Gsa1(), shadow, captions="empty")
    assert len(desk.jobs(others)) == 1, "other captions are other measurements"
