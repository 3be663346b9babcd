"""What results say of their origin, and what they don't say of the people in them."""

from __future__ import annotations

import datetime
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from metaportrait_cli.errors import UsageError
from metaportrait_cli.face.track import LARGEST_FACE
from metaportrait_cli.media.writer import VideoWriter
from metaportrait_cli.pipeline.animate import animate
from metaportrait_cli.pipeline.animation import AnimateOptions
from metaportrait_cli.pipeline.batch.jobs import Job
from metaportrait_cli.pipeline.batch.run import BatchOptions
from metaportrait_cli.pipeline.batch.workers import run_here
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.person.portrait_file import Portrait, save_portrait
from metaportrait_cli.pipeline.provenance import Label, Signing, problems
from metaportrait_cli.pipeline.source import load_sources
from tests.clips import decoded, scene, write_clip


def test_the_label_is_in_a_corner_and_can_be_read() -> None:
    for height, width in ((64, 64), (512, 384), (1080, 1920)):
        picture = np.full((height, width, 3), 120, np.uint8)
        labelled = Label()(picture)
        changed = np.argwhere((labelled != picture).any(axis=2))
        assert changed[:, 0].min() > 0.6 * height
        assert labelled.max() > 190
        assert labelled.min() < 60
        assert (picture == 120).all()


def test_where_a_photo_was_taken_stays_behind(
    portrait: NDArray[np.uint8], portrait_path: Path, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x010F] = "SecretCamera"
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0)})
    photo = tmp_path / "photo.jpg"
    Image.open(portrait_path).convert("RGB").save(photo, exif=exif, quality=95)
    assert b"SecretCamera" in photo.read_bytes()
    clip = write_clip(tmp_path / "a.mp4", [scene(portrait, [(60, 20, 200)])] * 2)
    picture, film, person = tmp_path / "o.png", tmp_path / "o.mp4", tmp_path / "o.portrait"
    with Engine("none") as engine:
        small = AnimateOptions(full=False, size=64, label=True)
        animate([photo], clip, film, small, engine=engine)
        animate([photo], portrait_path, picture, small, engine=engine)
        source = load_sources([photo], choice=LARGEST_FACE, detector=engine.detector)
    nobody = np.zeros(128, np.float32)
    save_portrait(person, Portrait(source, np.zeros(60, np.float32), nobody))
    for result in (film, picture, person):
        assert b"SecretCamera" not in result.read_bytes()
    with Image.open(picture) as image:
        assert not image.getexif()
        assert "AI-generated" in image.info["Comment"]
    with av.open(str(film)) as container:
        assert set(container.metadata) <= {"major_brand", "minor_version", "compatible_brands"} | {
            *("comment", "encoder"),
        }
        assert "AI-generated" in container.metadata["comment"]


def certificate(folder: Path) -> Signing:
    """One for tests, of an authority for tests."""
    pytest.importorskip("c2pa")
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    def name(text: str):
        oid = x509.oid.NameOID
        return x509.Name(
            [
                x509.NameAttribute(oid.COMMON_NAME, text),
                x509.NameAttribute(oid.ORGANIZATION_NAME, "t"),
            ]
        )

    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    now = datetime.datetime.now(datetime.UTC)
    parts = []
    for subject, own, is_authority in (("authority", keys[0], True), ("signer", keys[1], False)):
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("authority"))
            .public_key(own.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=not is_authority,
                    key_cert_sign=is_authority,
                    crl_sign=is_authority,
                    encipher_only=False,
                    decipher_only=False,
                    **usage,
                ),
                critical=True,
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key()),
                critical=False,
            )
        )
        if not is_authority:
            purpose = x509.oid.ExtendedKeyUsageOID.EMAIL_PROTECTION
            builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        parts.append(builder.sign(keys[0], hashes.SHA256()))
    pem = serialization.Encoding.PEM
    chain = b"".join(part.public_bytes(pem) for part in reversed(parts))
    (folder / "cert.pem").write_bytes(chain)
    private = keys[1].private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    return Signing(folder / "cert.pem", folder / "key.pem")


def written(path: Path, signing: Signing | None) -> Path:
    frames: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 255, (5, 64, 64, 3), np.uint8)
    seal = signing.seal if signing else None
    with VideoWriter(path, width=64, height=64, rate=Fraction(25), seal=seal) as out:
        for frame in frames:
            out.write(frame)
    return path


def test_a_signed_result_shows_what_was_changed_after(tmp_path: Path) -> None:
    signing = certificate(tmp_path)
    signing.check(tmp_path / "a.mp4")
    path = written(tmp_path / "a.mp4", signing)
    assert problems(path) == []
    content = bytearray(path.read_bytes())
    place = content.index(b"mdat") + 600
    content[place] ^= 0xFF
    path.write_bytes(content)
    assert problems(path) != []
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "cert.pem", "key.pem"]


def test_results_of_a_batch_are_marked_and_signed(
    portrait: NDArray[np.uint8], portrait_path: Path, tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "a.mp4", [scene(portrait, [(60, 20, 200)])] * 2)
    options = BatchOptions(weights="none", label=True, signing=certificate(tmp_path))
    settings = {"full": False, "size": 64}
    (result,) = run_here(
        [Job(1, clip, tmp_path / "o.mp4", source=(portrait_path,), settings=settings)], options
    )
    assert result.status == "done", result.error
    assert problems(tmp_path / "o.mp4") == []
    corner = decoded(tmp_path / "o.mp4")[0][-12:, :12]
    assert corner.min() < 40


def test_what_can_not_be_signed_is_said_before_the_work(tmp_path: Path) -> None:
    signing = certificate(tmp_path)
    with pytest.raises(UsageError, match=r"signed are \.mp4"):
        signing.check(tmp_path / "a.mkv")
    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(UsageError, match=r"key\.pem"):
        signing.check(tmp_path / "a.mp4")
    with pytest.raises(UsageError, match=r"key\.pem"):
        written(tmp_path / "a.mp4", signing)
    assert not (tmp_path / "a.mp4").exists()
