"""Signatures are OpenSSH's own: made, checked and refused by a real ssh-keygen."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import sekron_edge as se
from sekron_edge.bundle import Delivery, Golden, Manifest, pack, rebuild, sign_bundle, verify_bundle
from sekron_edge.errors import BundleError, ConfigError, MissingDependencyError, VerificationError
from tests.cost_models import MacsAreTime
from tests.small_bundle import hashed_again, manifest_of, network

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="OpenSSH is not installed")


def new_key(folder: Path, name: str, *, passphrase: str = "", comment: str = "builder@example.com") -> Path:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", comment, "-f", str(folder / name)]
    subprocess.run(command, check=True)
    return folder / name


Packing = Callable[..., Path]
Parts = tuple[Manifest, se.Plan, Golden, dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """All that a bundle is packed from."""
    torch.manual_seed(0)
    original, x = network(), torch.randn(4, 1, 8, 8)
    plan = se.score(original, (x[:1],), MacsAreTime()).plan(se.Budget(macs="0.7x"), profile="host", runtime="litert")
    model = se.decompose(original, plan)
    artifact = se.export(model, (x[:1],), format="litert", out=tmp_path_factory.mktemp("work"))
    delivery = Delivery(artifact=artifact, check=None, measured=None, dense_bytes=9, dense_measured=None, snippet="")
    golden = Golden((x.numpy(),), (model(x).detach().numpy(),))
    return manifest_of(plan, [delivery]), plan, golden, model.state_dict()


@pytest.fixture
def packed(parts: Parts) -> Packing:
    def packing(out: Path, *, sign: Path | None = None) -> Path:
        pack(*parts, out, sign=sign)
        return out

    return packing


def test_a_signed_bundle_says_who_built_it(packed: Packing, tmp_path: Path) -> None:
    key = new_key(tmp_path, "key")
    bundle = packed(tmp_path / "out", sign=key)
    check = verify_bundle(bundle, trusted=key.with_suffix(".pub"))
    assert check.signature is not None
    assert check.signature.signer == "builder@example.com"
    told = subprocess.run(["ssh-keygen", "-l", "-f", str(key)], capture_output=True, text=True, check=True).stdout
    assert check.signature.key.split()[1] in told
    anyone = verify_bundle(bundle).signature
    assert anyone is not None
    assert anyone.signer is None
    assert "nobody was asked" in str(anyone)


def test_openssh_checks_a_bundle_without_this_package(packed: Packing, tmp_path: Path) -> None:
    key = new_key(tmp_path, "key")
    bundle = packed(tmp_path / "out", sign=key)
    allowed = tmp_path / "allowed_signers"
    allowed.write_text(f'me@example.com namespaces="sekron-edge-bundle" {key.with_suffix(".pub").read_text()}')
    command = ["ssh-keygen", "-Y", "verify", "-f", str(allowed), "-I", "me@example.com", "-n", "sekron-edge-bundle"]
    command += ["-s", str(bundle / "manifest.json.sig")]
    with (bundle / "manifest.json").open("rb") as content:
        subprocess.run(command, stdin=content, check=True, capture_output=True)
    signature = verify_bundle(bundle, trusted=allowed).signature
    assert signature is not None
    assert signature.signer == "me@example.com"


def test_only_trusted_keys_are_believed(packed: Packing, tmp_path: Path) -> None:
    key, other = new_key(tmp_path, "key"), new_key(tmp_path, "other", comment="other@example.com")
    bundle = packed(tmp_path / "out", sign=key)
    with pytest.raises(BundleError, match=r"ED25519 SHA256:.* and .*other\.pub has no such key"):
        verify_bundle(bundle, trusted=other.with_suffix(".pub"))
    both = tmp_path / "keys"
    both.write_text("# ours\n" + other.with_suffix(".pub").read_text() + "\n" + key.with_suffix(".pub").read_text())
    signature = verify_bundle(bundle, trusted=both).signature
    assert signature is not None
    assert signature.signer == "builder@example.com"
    elsewhere = tmp_path / "git_only"
    elsewhere.write_text(f'me@example.com namespaces="git" {key.with_suffix(".pub").read_text()}')
    with pytest.raises(BundleError, match="has no such key for bundles"):
        verify_bundle(bundle, trusted=elsewhere)


def test_a_bundle_can_be_signed_later_and_by_another(packed: Packing, tmp_path: Path) -> None:
    bundle = packed(tmp_path / "out")
    key, other = new_key(tmp_path, "key"), new_key(tmp_path, "other", comment="other@example.com")
    with pytest.raises(BundleError, match="is not signed"):
        verify_bundle(bundle, trusted=key.with_suffix(".pub"))
    assert verify_bundle(bundle).signature is None
    for one in (key, other):
        sign_bundle(bundle, one)
        verify_bundle(bundle, trusted=one.with_suffix(".pub"))
    with pytest.raises(BundleError, match="has no such key"):
        verify_bundle(bundle, trusted=key.with_suffix(".pub"))


def test_a_signed_bundle_is_replaced_as_any_other(packed: Packing, tmp_path: Path) -> None:
    key = new_key(tmp_path, "key")
    packed(tmp_path / "out", sign=key)
    assert verify_bundle(packed(tmp_path / "out")).signature is None


def test_keys_that_cannot_sign_are_named_before_any_work(
    packed: Packing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = packed(tmp_path / "out")
    junk = tmp_path / "junk"
    junk.write_text("no key\n")
    junk.chmod(0o600)
    locked = new_key(tmp_path, "locked", passphrase="secret")
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "never")
    for key, said in ((tmp_path / "absent", "no key to sign with"), (junk, "junk cannot sign"), (tmp_path, "no key")):
        with pytest.raises(ConfigError, match=said):
            sign_bundle(bundle, key)
        with pytest.raises(ConfigError, match=said):
            packed(tmp_path / "new", sign=key)
        assert not (tmp_path / "new").exists()
    assert verify_bundle(bundle).signature is None
    # A passphrase is asked for on the terminal; without one, the key cannot be used.
    command = ["setsid", sys.executable, "-m", "sekron_edge", "sign", str(bundle), "--key", str(locked)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert ended.returncode == 2
    assert "locked cannot sign" in ended.stderr
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="openssh-client"):
        sign_bundle(bundle, locked)


@pytest.mark.parametrize("content", ["", "# none\n"])
def test_trusted_keys_must_be_there(content: str, packed: Packing, tmp_path: Path) -> None:
    bundle = packed(tmp_path / "out", sign=new_key(tmp_path, "key"))
    (tmp_path / "keys").write_text(content)
    with pytest.raises(ConfigError, match="has no keys"):
        verify_bundle(bundle, trusted=tmp_path / "keys")
    with pytest.raises(ConfigError, match="cannot be read as trusted keys"):
        verify_bundle(bundle, trusted=tmp_path / "absent")


def test_weights_are_compared_with_the_golden_outputs_where_the_original_is_known(
    packed: Packing, tmp_path: Path
) -> None:
    bundle = packed(tmp_path / "out")
    check = verify_bundle(bundle, original=network())
    assert set(check.comparisons) == {"weights.safetensors", "artifacts/model_fp32.tflite"}
    path = bundle / "weights.safetensors"
    before = path.read_bytes()
    path.write_bytes(before[:-64] + bytes(64))
    hashed_again(bundle, path.name)
    verify_bundle(bundle)  # finite numbers, as far as anyone can tell without the original
    with pytest.raises(VerificationError, match="does not give the golden outputs"):
        verify_bundle(bundle, original=network())
    path.write_bytes(before[:-4] + np.float32("nan").tobytes())
    hashed_again(bundle, path.name)
    with pytest.raises(BundleError, match="no finite numbers"):
        verify_bundle(bundle)
    path.write_bytes(before[:-7])
    hashed_again(bundle, path.name)
    with pytest.raises(BundleError, match="cannot be read"):
        verify_bundle(bundle)


def test_a_bundle_of_another_network_is_not_rebuilt(packed: Packing, tmp_path: Path) -> None:
    bundle = packed(tmp_path / "out")
    model = rebuild(bundle, network())
    assert sum(value.numel() for value in model.parameters()) < sum(v.numel() for v in network().parameters())
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(BundleError, match="is not of this Sequential"):
        rebuild(bundle, other)
