"""Models on disk and on a fake Hub: what goes out comes back, and every kind of damage is told apart."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from fake_hub import TOKEN, FakeHub
from safetensors.torch import load_file, save_file

from hfgan import HFGan, StyleGAN2Discriminator, StyleGAN2Generator
from hfgan.models.base import auto_dtype
from hfgan.storage import write_json

TINY = {"resolution": 16, "channel_base": 256, "channel_max": 32}
LATENTS = {"z_dim": 32, "w_dim": 32, "mapping_layers": 2}
WEIGHTS = "diffusion_pytorch_model.safetensors"


def make(seed: int = 0, **arguments: int) -> HFGan:
    torch.manual_seed(seed)
    generator = StyleGAN2Generator(**TINY, **LATENTS, **arguments)
    generator.mapping.w_avg.normal_()
    return HFGan(generator=generator, discriminator=StyleGAN2Discriminator(**TINY))


@pytest.fixture(scope="module")
def gan() -> HFGan:
    return make()


@pytest.fixture
def saved(gan: HFGan, tmp_path: Path) -> Path:
    gan.save_pretrained(tmp_path / "toy")
    return tmp_path / "toy"


@pytest.fixture(scope="module")
def server() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


@pytest.fixture
def hub(server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """A fresh, empty Hub that huggingface_hub of this process talks to, with a cache of its own."""
    constants = huggingface_hub.constants
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, server.endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    for kept in (server.branches, server.commits, server.private, server.requests):
        kept.clear()
    return server


def same(a: HFGan, b: HFGan) -> bool:
    return a.generator.fingerprint() == b.generator.fingerprint()


# ---------------------------------------------------------------- the Hub


def test_push_then_pull_by_id_gives_the_same_pictures(gan: HFGan, hub: FakeHub) -> None:
    url = gan.push_to_hub("me/toy", token=TOKEN)
    assert url.startswith(f"{hub.endpoint}/me/toy/commit/")
    back = HFGan.from_pretrained("me/toy", dtype="float32")
    assert back.name == "me/toy"
    assert set(back.parts) == {"generator", "discriminator"}
    assert not back.generator.training
    assert same(gan, back)
    assert back.sample(seed=1).images == gan.sample(seed=1).images


def test_pushed_files_name_public_classes_and_hold_no_path(gan: HFGan, hub: FakeHub) -> None:
    gan.push_to_hub("me/toy", token=TOKEN)
    files = hub.files("me/toy")
    inside = {f"{part}/{name}" for part in gan.parts for name in ("config.json", WEIGHTS)}
    assert set(files) == {".gitattributes", "README.md", "model_index.json", *inside}
    index = json.loads(files["model_index.json"])
    assert index["generator"] == ["hfgan", "StyleGAN2Generator"]
    assert "library_name: hfgan\n" in files["README.md"].decode()


def test_a_load_asks_for_no_pickle_no_code_and_no_other_file(saved: Path, hub: FakeHub) -> None:
    files = {str(path.relative_to(saved)): path.read_bytes() for path in saved.rglob("*") if path.is_file()}
    strangers = ("generator/diffusion_pytorch_model.bin", "model.pkl", "pipeline.py", "samples/a.png")
    hub.put("me/toy", files | dict.fromkeys(strangers, b"x"))
    HFGan.from_pretrained("me/toy")
    asked = {request.split("/", 5)[-1] for request in hub.requests if "/resolve/" in request}
    assert asked == set(files)


def test_revision_is_a_branch_or_a_sha(hub: FakeHub) -> None:
    old, new, other = make(1), make(2), make(3)
    old_sha = old.push_to_hub("me/toy", token=TOKEN).rsplit("/", 1)[1]
    new.push_to_hub("me/toy", token=TOKEN)
    other.push_to_hub("me/toy", revision="other", commit_message="Another", token=TOKEN)
    assert same(HFGan.from_pretrained("me/toy"), new)
    assert same(HFGan.from_pretrained("me/toy", revision=old_sha), old)
    assert same(HFGan.from_pretrained("me/toy", revision="other"), other)


def test_one_part_alone_goes_to_and_from_the_hub(gan: HFGan, hub: FakeHub) -> None:
    gan.generator.push_to_hub("me/part", dtype=torch.float16, token=TOKEN)
    back = StyleGAN2Generator.from_pretrained("me/part")
    assert back.fingerprint() == gan.generator.fingerprint()
    gan.push_to_hub("me/toy", token=TOKEN)
    hub.requests.clear()
    StyleGAN2Generator.from_pretrained("me/toy", subfolder="generator")
    assert not [request for request in hub.requests if "discriminator/" in request]


def test_a_card_on_the_hub_is_left_alone(gan: HFGan, hub: FakeHub) -> None:
    hub.put("me/toy", {"README.md": b"my own words"})
    gan.push_to_hub("me/toy", token=TOKEN)
    assert hub.files("me/toy")["README.md"] == b"my own words"
    assert "model_index.json" in hub.files("me/toy")


def test_private_repository_opens_with_its_token_only(gan: HFGan, hub: FakeHub) -> None:
    gan.push_to_hub("me/secret", private=True, token=TOKEN)
    with pytest.raises(FileNotFoundError, match="that you may read: check the spelling, or log in"):
        HFGan.from_pretrained("me/secret", token=False)
    assert same(HFGan.from_pretrained("me/secret", token=TOKEN), gan)


def test_wrong_repository_and_wrong_revision_are_told_apart(gan: HFGan, hub: FakeHub) -> None:
    gan.push_to_hub("me/toy", token=TOKEN)
    with pytest.raises(FileNotFoundError, match=r"^me/none is neither a folder here nor a Hub repository"):
        HFGan.from_pretrained("me/none")
    with pytest.raises(FileNotFoundError, match=r"^me/toy on the Hub has no revision 'v9'"):
        HFGan.from_pretrained("me/toy", revision="v9")


def test_pickled_weights_on_the_hub_are_not_asked_for(hub: FakeHub) -> None:
    config = json.dumps({"_class_name": "StyleGAN2Generator"}).encode()
    hub.put("me/pickle", {"config.json": config, "diffusion_pytorch_model.bin": b"x"})
    with pytest.raises(FileNotFoundError, match=r"the original has only pickled weights \(`hfgan convert`\)"):
        StyleGAN2Generator.from_pretrained("me/pickle")
    assert not [request for request in hub.requests if ".bin" in request]


def test_local_files_only_reads_the_cache_and_nothing_else(gan: HFGan, hub: FakeHub) -> None:
    gan.push_to_hub("me/toy", token=TOKEN)
    with pytest.raises(FileNotFoundError, match="not in the Hub cache: load it once while online"):
        HFGan.from_pretrained("me/toy", local_files_only=True)
    HFGan.from_pretrained("me/toy")
    hub.requests.clear()
    assert same(HFGan.from_pretrained("me/toy", local_files_only=True), gan)
    with pytest.raises(FileNotFoundError, match="at revision 'v9'"):
        HFGan.from_pretrained("me/toy", revision="v9", local_files_only=True)
    assert hub.requests == []


def test_offline_variable_is_honoured_in_a_fresh_process(gan: HFGan, hub: FakeHub, tmp_path: Path) -> None:
    gan.push_to_hub("me/toy", token=TOKEN)
    HFGan.from_pretrained("me/toy")
    hub.requests.clear()
    load = "StyleGAN2Generator.from_pretrained('me/toy', subfolder='generator')"
    code = f"from hfgan import StyleGAN2Generator; print({load}.fingerprint())"
    settings = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": hub.endpoint, "HF_HUB_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | settings, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == gan.generator.fingerprint(), done.stderr
    assert hub.requests == []


# ---------------------------------------------------------------- folders


def test_folder_round_trip_is_exact(gan: HFGan, saved: Path) -> None:
    back = HFGan.from_pretrained(saved, dtype=torch.float32)
    assert back.name == "toy"
    for name, part in gan.parts.items():
        loaded = back.part(name).state_dict()
        assert all(torch.equal(tensor, loaded[key]) for key, tensor in part.state_dict().items())
        assert dict(back.part(name).config) == {k: v for k, v in part.config.items() if k[0] != "_"}


def test_saved_files_follow_the_umask_and_hold_no_path(gan: HFGan, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        gan.save_pretrained(tmp_path / "first")
        HFGan.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "again")
    finally:
        os.umask(before)
    written = [path for path in (tmp_path / "again").rglob("*") if path.is_file()]
    assert len(written) == 6
    for path in written:
        assert stat.S_IMODE(path.stat().st_mode) == 0o640, path
        assert str(tmp_path).encode() not in path.read_bytes()
        assert b"_name_or_path" not in path.read_bytes()


def test_half_precision_variant_is_half_the_size_and_computes_from_fp32(gan: HFGan, saved: Path) -> None:
    gan.save_pretrained(saved, dtype=torch.float16, variant="fp16")
    half, full = saved / "generator" / "diffusion_pytorch_model.fp16.safetensors", saved / "generator" / WEIGHTS
    assert half.stat().st_size < 0.6 * full.stat().st_size
    assert {tensor.dtype for tensor in load_file(half).values()} == {torch.float16}
    back = HFGan.from_pretrained(saved, variant="fp16")
    assert same(gan, back)
    assert {tensor.dtype for tensor in back.generator.state_dict().values()} == {torch.float32}
    full.unlink()
    with pytest.raises(FileNotFoundError, match=r"but diffusion_pytorch_model\.fp16\.safetensors does"):
        HFGan.from_pretrained(saved)
    with pytest.raises(FileNotFoundError, match=r"fp8\.safetensors does not exist"):
        HFGan.from_pretrained(saved, variant="fp8")
    with pytest.raises(ValueError, match=r"variant is '\.\./x'"):
        HFGan.from_pretrained(saved, variant="../x")


def test_values_beyond_half_precision_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    toy = make()
    with torch.no_grad():
        toy.generator.synthesis.const[0, 0, 0] = 1e5
    with pytest.raises(ValueError, match=r"synthesis.const holds values beyond torch.float16"):
        toy.save_pretrained(tmp_path / "half", dtype=torch.float16)
    assert not (tmp_path / "half" / "generator").exists()
    with pytest.raises(ValueError, match=r"dtype is torch.bfloat16: weights are stored as"):
        toy.save_pretrained(tmp_path / "half", dtype=torch.bfloat16)


def test_a_failed_save_leaves_the_old_model(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in saved.rglob("*") if path.is_file()}

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        make(5).save_pretrained(saved)
    with pytest.raises(OSError, match="No space left"):
        write_json(saved / "model_index.json", {})
    assert {path: path.read_bytes() for path in saved.rglob("*") if path.is_file()} == before


def test_a_card_in_the_folder_is_left_alone(gan: HFGan, saved: Path) -> None:
    assert "ID OR FOLDER" in (saved / "README.md").read_text()
    (saved / "README.md").write_text("my own words")
    gan.save_pretrained(saved)
    assert (saved / "README.md").read_text() == "my own words"


def test_a_load_leaves_the_callers_random_state_alone(saved: Path) -> None:
    before = torch.get_rng_state()
    HFGan.from_pretrained(saved)
    assert torch.equal(before, torch.get_rng_state())


def test_optional_part_may_be_absent(saved: Path) -> None:
    edit_json(saved / "model_index.json", discriminator=[None, None])
    toy = HFGan.from_pretrained(saved)
    assert list(toy.parts) == ["generator"]
    assert len(toy.sample(seed=0)) == 1
    with pytest.raises(RuntimeError, match=r"no discriminator: .* `accelerate launch training/train.py generator`"):
        toy.part("discriminator")
    with pytest.raises(ValueError, match="no part 'alfa': the parts are generator, discriminator, reconstr"):
        toy.part("alfa")


def test_bundled_name_wins_and_an_unknown_one_lists_them(
    gan: HFGan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gan.save_pretrained(tmp_path / "cards" / "toy-16")
    monkeypatch.setattr("hfgan.parts.BUNDLED", (tmp_path / "cards", tmp_path / "nowhere"))
    toy = HFGan.from_pretrained("toy-16")
    assert toy.name == "toy-16"
    assert same(toy, gan)
    with pytest.raises(FileNotFoundError, match=r"'toy-61' is no bundled model \(toy-16\) and no folder here"):
        HFGan.from_pretrained("toy-61")
    with pytest.raises(FileNotFoundError, match="no/such/folder does not exist: expected a folder, or a Hub id"):
        HFGan.from_pretrained("no/such/folder")
    with pytest.raises(FileNotFoundError, match="is a file"):
        HFGan.from_pretrained(tmp_path / "cards" / "toy-16" / "README.md")


# ---------------------------------------------------------------- dtype and device


def test_dtype_is_what_convolutions_compute_in(saved: Path) -> None:
    toy = HFGan.from_pretrained(saved)
    assert toy.dtype == auto_dtype() == toy.generator.synthesis.compute_dtype
    for dtype in ("bfloat16", torch.float32, "float16"):
        toy = HFGan.from_pretrained(saved, dtype=dtype)
        expected = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        assert {toy.dtype, toy.discriminator.dtype, toy.generator.synthesis.compute_dtype} == {expected}
        assert {p.dtype for p in toy.generator.parameters()} == {torch.float32}
    for wrong in ("int8", torch.float64, torch.int8, None):
        with pytest.raises(ValueError, match=r"^dtype is .*: expected 'auto', 'float32'"):
            HFGan.from_pretrained(saved, dtype=wrong)


def test_casting_sets_the_compute_dtype_and_keeps_parameters() -> None:
    toy = make()
    weight = toy.generator.synthesis.const
    casts: list[tuple[Callable[[StyleGAN2Generator], StyleGAN2Generator], torch.dtype]] = [
        (lambda g: g.to(torch.bfloat16), torch.bfloat16),
        (lambda g: g.to("cpu", torch.float32), torch.float32),
        (lambda g: g.to(dtype=torch.float16), torch.float16),
        (lambda g: g.to(torch.zeros(1, dtype=torch.bfloat16)), torch.bfloat16),
        (lambda g: g.half(), torch.float16),
        (lambda g: g.bfloat16(), torch.bfloat16),
        (lambda g: g.to("cpu"), torch.bfloat16),
        (lambda g: g.float(), torch.float32),
    ]
    for cast, expected in casts:
        assert cast(toy.generator) is toy.generator
        assert toy.generator.dtype == toy.generator.synthesis.compute_dtype == expected
        assert toy.generator.synthesis.const is weight
        assert weight.dtype == torch.float32
    assert toy.to(torch.bfloat16).dtype == toy.discriminator.dtype == torch.bfloat16


def test_fingerprint_follows_the_weights() -> None:
    toy, other = make(1), make(2)
    first = toy.generator.fingerprint()
    assert re.fullmatch("[0-9a-f]{12}", first)
    assert first == make(1).generator.fingerprint() != other.generator.fingerprint()
    with torch.no_grad():
        toy.generator.mapping.w_avg.add_(1)
    assert toy.generator.fingerprint() != first
    toy.generator.load_state_dict(other.generator.state_dict())
    assert toy.generator.fingerprint() == other.generator.fingerprint()


# ---------------------------------------------------------------- damage


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)


def three_faults(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["mapping.w_avg"], tensors["synthesis.const"]
    tensors["synthesis.extra"] = torch.zeros(1)
    tensors["mapping.layers.0.bias"] = torch.zeros(3)


def pickle_only(path: Path) -> None:
    path.unlink()
    torch.save({"weight": torch.zeros(1)}, path.with_name("diffusion_pytorch_model.bin"))


def cut(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 132\n"
DAMAGE: dict[str, tuple[str, Callable[[Path], object], type[Exception], str]] = {
    # file, what happens to it, the error, what its message says
    "missing tensor": (
        WEIGHTS,
        lambda p: edit_tensors(p, lambda t: t.pop("mapping.w_avg")),
        ValueError,
        r"does not fit its config.json. Tensors missing: mapping\.w_avg\. Save the model again",
    ),
    "extra tensor": (
        WEIGHTS,
        lambda p: edit_tensors(p, lambda t: t.update(more=torch.zeros(1))),
        ValueError,
        "Tensors unexpected: more",
    ),
    "misshapen tensor": (
        WEIGHTS,
        lambda p: edit_tensors(p, lambda t: t.update({"mapping.w_avg": torch.zeros(1, 32)})),
        ValueError,
        r"misshapen: mapping\.w_avg \[1, 32\] instead of \[32\]",
    ),
    "all three": (
        WEIGHTS,
        lambda p: edit_tensors(p, three_faults),
        ValueError,
        r"missing: mapping\.w_avg, synthesis\.const; unexpected: synthesis\.extra; misshapen: mapping\.layers",
    ),
    "truncated data": (WEIGHTS, lambda p: cut(p, 9000), ValueError, r"is truncated: 9000 bytes, expected \d{5,}"),
    "truncated header": (WEIGHTS, lambda p: cut(p, 99), ValueError, "is truncated: 99 bytes, its header alone"),
    "stub": (WEIGHTS, lambda p: cut(p, 5), ValueError, r"is not a safetensors file \(5 bytes\)"),
    "too long": (
        WEIGHTS,
        lambda p: p.write_bytes(p.read_bytes() + b"x"),
        ValueError,
        r"is too long: \d+ bytes, expected \d+\. Download it again",
    ),
    "damaged header": (
        WEIGHTS,
        lambda p: p.write_bytes(p.read_bytes().replace(b'"dtype"', b'"dtyqe"', 1)),
        ValueError,
        "is damaged|damaged header",
    ),
    "empty": (WEIGHTS, lambda p: cut(p, 0), ValueError, r"is empty \(0 bytes\)\. Download it again \(`hf download"),
    "html": (
        WEIGHTS,
        lambda p: p.write_bytes(b"<!DOCTYPE html><html>Sign in</html>"),
        ValueError,
        r"is a web page \(35 bytes\), not the weights",
    ),
    "lfs pointer": (
        WEIGHTS,
        lambda p: p.write_bytes(POINTER),
        ValueError,
        r"is a Git-LFS pointer \(68 bytes\), not the weights.*git lfs pull",
    ),
    "pickle under our name": (
        WEIGHTS,
        lambda p: torch.save({"weight": torch.zeros(1)}, p),
        ValueError,
        r"is not a safetensors file \(\d+ bytes\)",
    ),
    "pickle only": (
        WEIGHTS,
        pickle_only,
        FileNotFoundError,
        r"only as a pickle \(diffusion_pytorch_model\.bin\).*`hfgan convert`",
    ),
    "no weights": (WEIGHTS, Path.unlink, FileNotFoundError, "does not exist: the download or copy is incomplete"),
    "no config": ("config.json", Path.unlink, FileNotFoundError, "config.json does not exist"),
    "wrong class": (
        "config.json",
        lambda p: edit_json(p, _class_name="StyleGAN2Discriminator"),
        ValueError,
        "describes a StyleGAN2Discriminator, not a StyleGAN2Generator",
    ),
    "unknown config key": (
        "config.json",
        lambda p: edit_json(p, resolutoin=16),
        ValueError,
        "has keys unknown to StyleGAN2Generator: resolutoin",
    ),
    "bad config value": (
        "config.json",
        lambda p: edit_json(p, resolution=17),
        ValueError,
        "config.json describes no StyleGAN2Generator: resolution is 17",
    ),
    "later format": ("config.json", lambda p: edit_json(p, _format=99), ValueError, "format 99.*upgrade hfgan"),
    "broken json": ("config.json", lambda p: cut(p, 20), ValueError, r"config.json is not JSON \(.*line 2"),
    "no object": ("config.json", lambda p: p.write_text("[]"), ValueError, "holds a list, expected an object"),
    "binary json": ("config.json", lambda p: p.write_bytes(b"\xff\xfe"), ValueError, "config.json is not JSON"),
    "no index": ("../model_index.json", Path.unlink, FileNotFoundError, "model_index.json does not exist"),
    "broken index": ("../model_index.json", lambda p: cut(p, 9), ValueError, "model_index.json is not JSON"),
    "another library's index": (
        "../model_index.json",
        lambda p: edit_json(p, _class_name="DDPMPipeline"),
        ValueError,
        "describes a DDPMPipeline, not an HFGan",
    ),
    "code in the index": (
        "../model_index.json",
        lambda p: edit_json(p, generator=["os", "system"]),
        ValueError,
        r"has generator: \['os', 'system'\], expected \[\"hfgan\", \"StyleGAN2Generator\"\]",
    ),
    "class of another part": (
        "../model_index.json",
        lambda p: edit_json(p, generator=["hfgan", "StyleGAN2Discriminator"]),
        ValueError,
        r"has generator: .*StyleGAN2Discriminator.*expected",
    ),
    "entry that is no pair": (
        "../model_index.json",
        lambda p: edit_json(p, generator={"a": 1}),
        ValueError,
        "has generator: {'a': 1}, expected",
    ),
    "unknown part": (
        "../model_index.json",
        lambda p: edit_json(p, os=["os", "system"]),
        ValueError,
        "has an unknown part 'os', expected generator, discriminator, reconstructor, encoder, "
        "modes, alpha, matting, directions: upgrade hfgan",
    ),
    "no generator": (
        "../model_index.json",
        lambda p: edit_json(p, generator=[None, None]),
        ValueError,
        "lists no generator",
    ),
    "later index": ("../model_index.json", lambda p: edit_json(p, _format=2), ValueError, "format 2 and not 1"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_with_file_and_remedy(saved: Path, damage: str) -> None:
    name, do, kind, says = DAMAGE[damage]
    path = (saved / "generator" / name).resolve()
    do(path)
    with pytest.raises(kind, match=re.compile(says, re.DOTALL)) as caught:
        HFGan.from_pretrained(saved)
    assert type(caught.value) is kind
    assert str(path.parent) in str(caught.value)


def test_parts_of_the_wrong_class_are_refused(gan: HFGan, saved: Path) -> None:
    with pytest.raises(TypeError, match="generator is a StyleGAN2Discriminator: expected a StyleGAN2Generator"):
        HFGan(generator=gan.discriminator)
    with pytest.raises(TypeError, match="generator is a NoneType"):
        HFGan(generator=None)
    with pytest.raises(TypeError, match="discriminator is a StyleGAN2Generator"):
        HFGan(generator=gan.generator, discriminator=gan.generator)
    with pytest.raises(ValueError, match="load it as what it is"):
        StyleGAN2Generator.from_pretrained(saved / "discriminator")
