"""Small corpora on which the topology controls are planted, and predictor evidence made from a planted trace."""

from __future__ import annotations

import numpy as np

from analysis.topology_controls import TopologyAim, plan_topology_controls, plant_topology
from analysis.trace import DocumentRow, LayerMeta, TraceBatch, TraceMeta
from hypotheses.topology_evidence import PredictionScores, PredictorEvidence
from tests.references.memory_trace import MemoryTrace


def corpus(domains=2, test=60, calibration=20, length=60, layers=3, experts=8, k=2, types=True, per_batch=64, seed=0):
    """Documents of `domains` domains with empty routing: rows to plant on."""
    rng = np.random.default_rng(seed)
    documents, lengths = [], []
    for d in range(domains):
        for number in range(test + calibration):
            documents.append(DocumentRow(len(documents), f"domain{d}/{number}", f"domain{d}", "test" if number < test else "calibration"))
            lengths.append(int(rng.integers(length // 2, length * 3 // 2)))
    metas = tuple(LayerMeta(f"layers.{i}.gate", i, "decoder", experts, k) for i in range(layers))
    meta = TraceMeta("planted", "0", metas, "softmax", "softmax_logits", "none", "tokenizer", 64, "tests")
    batches = []
    for start in range(0, len(documents), per_batch):
        some = range(start, min(start + per_batch, len(documents)))
        document = np.concatenate([np.full(lengths[i], i, np.int32) for i in some])
        position = np.concatenate([np.arange(lengths[i], dtype=np.int32) for i in some])
        token = rng.integers(0, 64, len(document)).astype(np.int32) if types else None
        ids = tuple(np.tile(np.arange(k, dtype=np.uint8), (len(document), 1)) for _ in range(layers))
        batches.append(TraceBatch(document, position, token, ids))
    return MemoryTrace(meta, documents, batches)


def planted(kind, base=None, seed=0, **shape):
    base = base or corpus(**shape)
    plan = plan_topology_controls(base, TopologyAim(seed=seed))
    return MemoryTrace(base.meta, base.documents, list(plant_topology(base.batches(), plan, kind)))


def predictions(domains=("domain0", "domain1"), groups=40, experts=8, layers=(1, 2), right=0.8, seed=0):
    """Prophet right with probability `right` at home and .6 abroad; baselines right less often, uniform by chance."""
    rng = np.random.default_rng(seed)

    def scores(joints):
        recall = [np.stack([np.einsum("gee->g", joint), joint.sum(axis=(1, 2))], axis=1) for joint in joints]
        return PredictionScores(joints, recall)

    made = {}
    shares = {"prophet": right, "prophet_without_attention": 0.5, "uniform": 0.0, "modal": 0.0, "token_type": 0.3, "previous_layer": 0.4}
    for target in domains:
        actual = [rng.integers(0, experts, (groups, 400)) for _ in layers]
        for source in domains:
            for name, share in shares.items():
                share = share if source == target else share * 0.75
                joints = []
                for one in actual:
                    guess = np.where(rng.random(one.shape) < share, one, rng.integers(0, experts, one.shape))
                    joint = np.zeros((groups, experts, experts), np.int64)
                    np.add.at(joint, (np.broadcast_to(np.arange(groups)[:, None], one.shape), guess, one), 1)
                    joints.append(joint)
                made[name, source, target] = scores(joints)
    learning = {"source": ["domain0", "domain0"], "epoch": [0, 1], "layer": [1, 1], "mi_bits": [0.1, 0.5], "loss": [2.0, 1.0], "accuracy": [0.2, 0.5]}
    return PredictorEvidence(layers, made, dict.fromkeys(domains, 100), learning)
