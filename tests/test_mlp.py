"""MLP and GatedMLP: which parameters they have."""

from course_lib.mlp import MLP, GatedMLP


def test_an_mlp_without_bias_has_none():
    for mlp in (MLP(4, 6, bias=False), GatedMLP(4, 6)):
        assert {name for name, _ in mlp.named_parameters()} <= {"gate.weight", "up.weight", "down.weight"}
    assert MLP(4, 6).down.bias is not None
    assert GatedMLP(4, 6, bias=True).down.bias is not None
