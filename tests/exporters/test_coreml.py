"""Core ML's packages keep the exporters' contract, and the reference evaluator computes what MIL means.

The evaluator is held against four others: PyTorch, coremltools' own NumPy functions (which fold constants), its
decompression of weights, and LiteRT on a model that somebody else converted to both formats.
"""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sekron_edge.artifacts import Array, Artifact, Precision, export, get_exporter, predict
from sekron_edge.errors import ExportError
from sekron_edge.exporters.coreml.evaluator._program import Program
from sekron_edge.nn import replace_layers
from sekron_edge.structure import tucker2
from sekron_edge.testing import ExporterContract
from tests.narrowing import present

Function = Callable[[Tensor], Tensor]
MODEL = "Data/com.apple.CoreML/model.mlmodel"


class TestCoreML(ExporterContract):
    format = "coreml"
    tolerance: ClassVar = {"fp32": 1e-4, "fp16": 2e-2, "int8": 0.05, "int8-weights": 0.05}


def test_the_evaluator_imports_no_sdk() -> None:
    program = "import sys, sekron_edge.exporters.coreml.evaluator; sys.exit('coremltools' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


class _Each(nn.Module):
    """Gives the output of each of several functions, so that one conversion tests them all."""

    def __init__(self, functions: Sequence[Function]) -> None:
        super().__init__()
        self.modules_ = nn.ModuleList(f for f in functions if isinstance(f, nn.Module))
        self.functions = functions

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(function(x) for function in self.functions)


def _check(
    functions: Sequence[Function], x: Tensor, tmp_path: Path, *, precision: Precision = "fp32", tolerance: float = 1e-5
) -> None:
    model = _Each(functions).eval()
    artifact = export(model, (x,), format="coreml", precision=precision, out=tmp_path)
    outputs = predict(get_exporter("coreml").load(artifact), artifact, [x.numpy()])
    with torch.no_grad():
        expected = [value.numpy() for value in model(x)]
    for function, actual, wanted in zip(functions, outputs, expected, strict=True):
        assert actual.shape == wanted.shape, function
        assert np.abs(actual - wanted).max() <= tolerance * np.abs(wanted).max(), function


def _converted(source: Any, *, target: str = "iOS17", **options: Any) -> Any:
    import coremltools as ct

    return ct.convert(
        source,
        convert_to="mlprogram",
        minimum_deployment_target=getattr(ct.target, target),
        compute_precision=ct.precision.FLOAT32,
        skip_model_load=True,
        **options,
    )


def _program(model: Any, path: Path) -> Program:
    model.save(str(path))
    return Program(path)


def _written(program: Any, path: Path) -> Program:
    import coremltools as ct

    # Without passes: an operation shall be evaluated as it was written.
    return _program(_converted(program, pass_pipeline=ct.PassPipeline.EMPTY), path)


def _edit(package: Path, change: Callable[[Any], None]) -> None:
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model()
    model.ParseFromString((package / MODEL).read_bytes())
    function = model.mlProgram.functions["main"]
    change(function.block_specializations[function.opset].operations)
    (package / MODEL).write_bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5))
    return export(model, (torch.randn(1, 3, 8, 8),), format="coreml", out=tmp_path_factory.mktemp("small"))


@pytest.fixture
def altered(small: Artifact, tmp_path: Path) -> Path:
    """A copy of the small package that a test may damage."""
    return shutil.copytree(small.path, tmp_path / "altered.mlpackage")


@pytest.mark.slow
def test_convolutions_with_every_attribute(tmp_path: Path) -> None:
    torch.manual_seed(0)
    attributes: list[tuple[Any, ...]] = [
        (1, 1, 0, 1, 1, True),
        (3, 1, 1, 1, 1, False),
        (3, 2, 1, 1, 4, True),
        ((3, 5), (2, 1), (0, 2), (1, 2), 2, True),
        (4, 1, "same", 1, 1, True),
        (3, 1, "same", (2, 3), 4, True),
        (4, 3, 2, 2, 1, True),
        (2, 2, "valid", 1, 1, True),
    ]
    grid = [nn.Conv2d(8, 12, *given) for given in attributes]
    reflected = nn.Conv2d(8, 12, 3, padding=2, padding_mode="reflect")
    replicated = nn.Conv2d(8, 12, 3, padding=(2, 1), padding_mode="replicate")
    depthwise = nn.Conv2d(8, 16, 3, 2, 1, groups=8)
    transposed = [
        nn.ConvTranspose2d(8, 6, 3),
        nn.ConvTranspose2d(8, 6, 3, 2, 1, output_padding=1),
        nn.ConvTranspose2d(8, 6, 4, 2, 1, groups=2, bias=False),
        nn.ConvTranspose2d(8, 6, 3, (3, 2), (0, 2), dilation=2),
    ]
    _check([*grid, reflected, replicated, depthwise, *transposed], torch.randn(2, 8, 13, 17), tmp_path)


@pytest.mark.slow
def test_pools_with_every_attribute(tmp_path: Path) -> None:
    functions = [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        nn.MaxPool2d((3, 2), (1, 2), (1, 0)),
        nn.MaxPool2d(2, 3, 1, ceil_mode=True),
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.AvgPool2d(3, 2, 0, ceil_mode=True),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True),
        nn.AvgPool2d((3, 2), (2, 3), (1, 1), count_include_pad=False, ceil_mode=True),
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveAvgPool2d((3, 4)),
        nn.AdaptiveMaxPool2d(1),
    ]
    _check(functions, torch.randn(2, 3, 12, 16) - 2, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_what_networks_are_made_of(precision: Precision, tmp_path: Path) -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(12, 3, batch_first=True)
    activations = [
        nn.ReLU6(), nn.LeakyReLU(), nn.Sigmoid(), nn.Tanh(), nn.GELU(), nn.SiLU(), nn.Softplus(), nn.Hardsigmoid(),
        nn.Hardswish(), nn.ELU(), nn.PReLU(8), nn.Mish(), nn.Softsign(), nn.Softmax(1), nn.LogSoftmax(1), nn.GLU(1),
    ]  # fmt: skip
    norms: list[Function] = [
        nn.BatchNorm2d(8), nn.InstanceNorm2d(8, affine=True), nn.LayerNorm(12), nn.GroupNorm(2, 8),
        nn.LocalResponseNorm(3), F.normalize,
    ]  # fmt: skip
    images = [
        nn.PixelShuffle(2), nn.PixelUnshuffle(2), nn.Upsample(scale_factor=2), nn.Upsample(size=(20, 9)),
        nn.Upsample(scale_factor=2, mode="bilinear"), nn.Upsample(size=(13, 30), mode="bilinear", align_corners=True),
    ]  # fmt: skip
    shapes: list[Function] = [
        lambda x: x[:, 1:7:2, ::3, -5:],
        lambda x: x.flip(2, 3),
        lambda x: torch.cat([x, x.relu()], 1),
        lambda x: torch.stack([x, x * 2], 1),
        lambda x: torch.cat(x.split([3, 5], 1)[::-1], 1),
        lambda x: x[:, torch.tensor([3, 1, 1])],
        lambda x: x.roll(2, 3),
        lambda x: x.repeat(1, 2, 1, 3),
        lambda x: F.pad(x, (1, 2, 3, 0), value=2.0),
        lambda x: x.mean((2, 3), keepdim=True).squeeze(3).squeeze(2).unsqueeze(0),
        lambda x: x.tril(),
        lambda x: F.unfold(x, 3, padding=1),
    ]
    arithmetic: list[Function] = [
        lambda x: torch.einsum("bchw,bdhw->bcd", x, x),
        lambda x: x @ x.mT,
        lambda x: attention(x[0], x[0], x[0])[0],
        lambda x: x.sum(1) + x.mean(1) + x.amax(1) + x.amin(1) + x.norm(dim=1) + x.logsumexp(1) + x.var(1),
        lambda x: x.abs().sqrt() + x.exp() + (x.abs() + 0.1).log() + (x.abs() + 0.1).rsqrt() + x.sin() + x.erf(),
        lambda x: torch.where(torch.logical_or(x > 0, x <= -1), x, x * x),
        lambda x: torch.maximum(x, -x) - torch.minimum(x, x * 2) + x.clamp(-0.5, 1) + x.abs() ** 0.5,
        lambda x: x.argmax(1).float() + x.max(1)[0] + x.topk(3, 1)[0].sum(1) + x.sort(1)[0][:, 2],
        lambda x: x.cumsum(1),
    ]
    x = torch.randn(1, 8, 10, 12)
    tolerance = 1e-5 if precision == "fp32" else 2e-2
    _check([*activations, *norms, *images, *shapes, *arithmetic], x, tmp_path, precision=precision, tolerance=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["iOS17", "iOS18"])
@pytest.mark.parametrize("kind", ["linear", "palette", "sparse"])
def test_compressed_weights_agree_with_coremltools_decompression(kind: str, target: str, tmp_path: Path) -> None:
    import coremltools.optimize.coreml as cto

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3, groups=2)).eval()
    x = torch.randn(1, 3, 8, 8)
    converted = _converted(torch.export.export(model, (x,)).run_decompositions({}), target=target)
    dtype = {"iOS17": "int8", "iOS18": "int4"}[target]
    compress, options = {
        "linear": (cto.linear_quantize_weights, cto.OpLinearQuantizerConfig(dtype=dtype, weight_threshold=0)),
        "palette": (cto.palettize_weights, cto.OpPalettizerConfig(mode="uniform", nbits=6, weight_threshold=0)),
        "sparse": (cto.prune_weights, cto.OpMagnitudePrunerConfig(target_sparsity=0.6, weight_threshold=0)),
    }[kind]
    compressed = compress(converted, cto.OptimizationConfig(global_config=options))
    (packed,) = _program(compressed, tmp_path / "packed.mlpackage").run([x.numpy()])
    (plain,) = _program(cto.decompress_weights(compressed), tmp_path / "plain.mlpackage").run([x.numpy()])
    np.testing.assert_allclose(packed, plain, rtol=1e-5, atol=1e-5)
    assert np.abs(plain - model(x).detach().numpy()).max() > 1e-3, "the compression must have done something"


@pytest.mark.slow
def test_a_flexible_batch_takes_any_number(tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)).eval(), torch.randn(3, 3, 8, 8)
    exported = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=8)},))
    program = _program(_converted(exported.run_decompositions({})), tmp_path / "flexible.mlpackage")
    assert program.interface.inputs[0].shape == (None, 3, 8, 8)
    for batch in (1, 3):
        (actual,) = program.run([x[:batch].numpy()])
        np.testing.assert_allclose(actual, model(x[:batch]).detach(), rtol=1e-4, atol=1e-5)
    with pytest.raises(ExportError, match=r"flexible.mlpackage.*\(None, 3, 8, 8\), got \(3, 3, 8, 9\)"):
        program.run([np.zeros((3, 3, 8, 9), np.float32)])


@pytest.mark.slow
def test_float16_is_declared_and_rounded(tmp_path: Path) -> None:
    model, x = nn.Conv2d(3, 4, 3), torch.randn(1, 3, 8, 8)
    artifact = export(model, (x,), format="coreml", precision="fp16", out=tmp_path)
    (actual,) = predict(get_exporter("coreml").load(artifact), artifact, [x.numpy()])
    assert model.bias is not None
    halved, weight, bias = (value.half().float() for value in (x, model.weight, model.bias))
    rounded = F.conv2d(halved, weight, bias).half()
    assert artifact.outputs[0].dtype == "float16"
    assert actual.dtype == np.float16
    # Sums taken in another order may end on the neighbouring float16.
    np.testing.assert_allclose(actual, rounded.detach().numpy(), rtol=2**-10, atol=2**-12)


@pytest.mark.slow
def test_equal_models_make_equal_packages(tmp_path: Path) -> None:
    program = (
        "import sys, torch; from sekron_edge.artifacts import export; torch.manual_seed(0);"
        "model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU());"
        "artifact = export(model, (torch.randn(1, 3, 8, 8),), format='coreml', out=sys.argv[1]);"
        "print(artifact.sha256)"
    )
    # One in a process of its own, since protobuf's maps are in one order within a process.
    command = [sys.executable, "-c", program, str(tmp_path / "other")]
    other = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    artifact = export(model, (torch.randn(1, 3, 8, 8),), format="coreml", out=tmp_path / "here")
    assert artifact.sha256 == other


@pytest.mark.slow
def test_an_unknown_operation_is_named_with_its_output_and_package(altered: Path) -> None:
    def change(operations: Any) -> None:
        next(operation for operation in operations if operation.type == "relu").type = "mystery"

    _edit(altered, change)
    with pytest.raises(ExportError, match=r"altered\.mlpackage.* mystery \(first for output relu"):
        Program(altered)


@pytest.mark.slow
def test_an_unknown_parameter_is_named_when_the_package_is_loaded(altered: Path) -> None:
    def change(operations: Any) -> None:
        relu = next(operation for operation in operations if operation.type == "relu")
        relu.inputs["slope"].CopyFrom(relu.inputs["x"])

    _edit(altered, change)
    with pytest.raises(ExportError, match=r"altered\.mlpackage.* relu .*slope"):
        Program(altered)


@pytest.mark.slow
def test_values_that_nothing_defines_and_weights_outside_the_package_are_damage(altered: Path) -> None:
    def outside(operations: Any) -> None:
        weights = [o for o in operations if o.attributes["val"].WhichOneof("value") == "blobFileValue"]
        weights[0].attributes["val"].blobFileValue.fileName = "@model_path/../../../weight.bin"

    def undefined(operations: Any) -> None:
        next(operation for operation in operations if operation.type == "relu").inputs["x"].arguments[0].name = "nought"

    for change, message in ((undefined, "nought"), (outside, "in the package")):
        _edit(altered, change)
        with pytest.raises(ExportError, match=rf"altered\.mlpackage holds a damaged program.*{message}"):
            Program(altered)


@pytest.mark.slow
def test_wrong_declared_shapes_are_not_passed_over(altered: Path) -> None:
    def change(operations: Any) -> None:
        relu = next(operation for operation in operations if operation.type == "relu")
        relu.outputs[0].type.tensorType.dimensions[1].constant.size = 7

    _edit(altered, change)
    with pytest.raises(ExportError, match=r"relu .* declares shape \(1, 7, 6, 6\), got \(1, 8, 6, 6\)"):
        Program(altered).run([np.zeros((1, 3, 8, 8), np.float32)])


@pytest.mark.slow
def test_on_macos_a_mocked_core_ml_runs_the_package(small: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    class Model:
        def __init__(self, path: str) -> None:
            self.path = path

        def get_compiled_model_path(self) -> None:
            if self.path != str(small.path):
                raise RuntimeError("refused")

        def predict(self, inputs: dict[str, Array]) -> dict[str, Array]:
            (name,) = inputs
            return {small.outputs[0].name: np.full((1, 5), name == small.inputs[0].name, np.float64)}

    runtime = SimpleNamespace(models=SimpleNamespace(MLModel=Model))
    monkeypatch.setattr("sekron_edge.exporters.coreml._exporter._runtime", lambda: runtime)
    monkeypatch.setattr("sys.platform", "darwin")
    session = get_exporter("coreml").load(small)
    (output,) = session.run([np.zeros((1, 3, 8, 8), np.float32)])
    assert (session.runtime, session.measurable) == ("coreml", True)
    assert output.dtype == np.float32
    assert output.min() == 1
    with pytest.raises(ExportError, match="cannot be read by Core ML"):
        get_exporter("coreml").load(small.model_copy(update={"path": small.path / "other"}))


@pytest.fixture(scope="module")
def basic_pitch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that listens to music, which its authors ship in Core ML's format and in LiteRT's."""
    folder = tmp_path_factory.mktemp("basic-pitch")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "basic-pitch==0.4.0", "-d", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    return folder / "basic_pitch" / "saved_models" / "icassp_2022"


@pytest.mark.slow
def test_a_package_that_others_made_agrees_with_its_litert_twin(basic_pitch: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    program = Program(basic_pitch / "nmp.mlpackage")
    path = str(basic_pitch / "nmp.tflite")
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    twins = [Interpreter(path), Interpreter(path, experimental_op_resolver_type=plain)]
    samples = present(program.interface.inputs[0].shape[1])
    seconds = np.arange(samples) / 22050
    generator = np.random.default_rng(0)
    sounds = {
        "noise": 0.3 * generator.standard_normal(samples),
        "uniform": generator.uniform(-1, 1, samples),
        "sine of 440 Hz": 0.8 * np.sin(2 * np.pi * 440 * seconds),
        "sine of 880 Hz": 0.8 * np.sin(2 * np.pi * 880 * seconds),
        "chord": 0.3 * np.sin(2 * np.pi * np.outer((220, 277.2, 329.6), seconds)).sum(0),
    }
    for name, sound in sounds.items():
        x = sound.astype(np.float32).reshape(1, samples, 1)
        found = (program.run([x]), *(outputs_of(twin, x) for twin in twins))
        for declared, actual, one, other in zip(program.interface.outputs, *found, strict=True):
            error = np.abs(actual - one).max()
            # The network takes the logarithm of near silence, which is rounding: there LiteRT's kernels disagree among
            # themselves, on processors with wide vectors by more than a thousandth.
            allowed = max(1e-3, np.abs(one - other).max())
            assert error <= allowed <= 5e-3, f"{name}, {declared.name}: {error}"


def outputs_of(twin: Any, x: Array) -> list[Array]:
    twin.allocate_tensors()
    twin.set_tensor(twin.get_input_details()[0]["index"], x)
    twin.invoke()
    # The converter numbered the outputs :0, :1, :2 in the order that the package has them in.
    details = sorted(twin.get_output_details(), key=lambda detail: detail["name"])
    return [twin.get_tensor(detail["index"]) for detail in details]


def _int8_network() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1)).eval()
    return replace_layers(dense, {"0": tucker2((64, 64, 3, 3), 32, 32)}), torch.randn(16, 64, 8, 8)


@pytest.mark.slow
def test_weights_in_int8_take_a_quarter(tmp_path: Path) -> None:
    model, x = _int8_network()
    expected = model(x).detach().numpy()
    sizes = {}
    limits: dict[Precision, float] = {"fp32": 1e-5, "int8-weights": 0.02, "int8": 0.05}
    for precision, most in limits.items():
        artifact = export(model, (x[:1],), format="coreml", precision=precision, out=tmp_path, calibration=(x[4:],))
        sizes[precision] = artifact.size_bytes
        (found,) = predict(get_exporter("coreml").load(artifact), artifact, [x.numpy()])
        assert np.linalg.norm(found - expected) < most * np.linalg.norm(expected), precision
    assert sizes["int8-weights"] < 0.3 * sizes["fp32"]
    assert sizes["int8"] < 0.32 * sizes["fp32"]


@pytest.mark.slow
def test_in_int8_every_convolution_takes_and_multiplies_integers(tmp_path: Path) -> None:
    from sekron_edge.exporters.coreml.evaluator._program import _main, _read_model

    model, x = _int8_network()
    artifact = export(model, (x[:1],), format="coreml", precision="int8", out=tmp_path, calibration=(x,))
    _, block = _main(_read_model(artifact.path)[0])
    made_by = {value.name: operation.type for operation in block.operations for value in operation.outputs}
    convolutions = [operation for operation in block.operations if operation.type == "conv"]
    assert len(convolutions) == 4
    for operation in convolutions:
        assert made_by[operation.inputs["x"].arguments[0].name] == "dequantize"
        assert made_by[operation.inputs["weight"].arguments[0].name] == "constexpr_affine_dequantize"


@pytest.mark.slow
def test_int8_takes_its_ranges_from_the_calibration_data(tmp_path: Path) -> None:
    model, x = _int8_network()
    expected = model(x).detach().numpy()
    errors = []
    for calibration in (x, 0.1 * x):
        artifact = export(model, (x[:1],), format="coreml", precision="int8", out=tmp_path, calibration=(calibration,))
        (found,) = predict(get_exporter("coreml").load(artifact), artifact, [x.numpy()])
        errors.append(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    assert errors[0] < 0.05
    assert errors[1] > 0.5  # a tenth of the range cuts off nearly everything
