import numpy as np
import pytest

from lmia.data.marks import MARKS
from lmia.data.marks.dwtdct import DwtDct, DwtDctSpec
from lmia.data.pictures import Pictures, encode_png
from lmia.data.population import PopulationSpec
from lmia.data.sources import SOURCES
from lmia.specs import RequestError


def psnr(images, others):
    """Peak signal-to-noise ratio of each picture in dB."""
    return 10 * np.log10(255.0**2 / ((images.astype(np.float64) - others) ** 2).mean(axis=(1, 2, 3)))


def portraits(size=64, count=20):
    population, spec = SOURCES.get("population"), PopulationSpec(size=size)
    return Pictures.concat(
        [
            population.pictures(spec, source, "A", population.identities(spec, source)[: count // 2], [0])
            for source in ("north", "wild")
        ]
    )


@pytest.mark.parametrize("name", MARKS.names())
def test_marks_are_deterministic_and_leave_the_originals_alone(name):
    mark, pictures = MARKS.get(name), portraits(count=4)
    before = pictures.images().copy()
    together = mark.embed(pictures.images(), mark.Spec())
    assert together.dtype == np.uint8 and together.shape == before.shape
    assert np.array_equal(pictures.images(), before)
    alone = np.concatenate([mark.embed(image[None], mark.Spec()) for image in before])
    assert np.array_equal(together, alone)
    assert (together != before).any() == (name != "none")


def test_the_visible_logo_is_where_the_paper_has_it():
    """100 of 512 pixels at (5, 5); nothing else changes."""
    mark = MARKS.get("visible")
    grey = np.full((1, 512, 512, 3), 128, np.uint8)
    rows, columns = np.nonzero((mark.embed(grey, mark.Spec())[0] != 128).any(-1))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 104, 5, 104)
    small = np.nonzero((mark.embed(grey[:, :64, :64], mark.Spec())[0] != 128).any(-1))
    assert small[0].min() == 0 and small[0].max() == 13


def test_the_hidden_logo_cannot_be_seen():
    pictures = portraits().images()
    mark = MARKS.get("hidden")
    marked_ = mark.embed(pictures, mark.Spec())
    assert np.abs(marked_.astype(int) - pictures).max() <= 3
    assert psnr(marked_, pictures).min() > 45
    changed = (marked_ != pictures).any(-1).mean((1, 2))
    assert (changed > 0.2).all() and (marked_[:, :5] == pictures[:, :5]).all()


@pytest.mark.parametrize(("size", "message"), [(64, "lm"), (64, "lmia"), (128, "lm"), (100, "lmia")])
def test_dwtdct_is_read_again(size, message):
    pictures, spec = portraits(size), DwtDctSpec(message=message)
    kept = pictures.with_columns(image=[encode_png(image) for image in DwtDct.embed(pictures.images(), spec)])
    marked_ = Pictures.from_parquet([kept.to_parquet()]).images()
    assert DwtDct.bit_accuracy(marked_, spec).mean() > 0.99
    assert abs(DwtDct.bit_accuracy(pictures.images(), spec).mean() - 0.5) < 0.12
    assert psnr(marked_, pictures.images()).min() > 36


def test_dwtdct_copes_with_black_white_and_saturated_pictures():
    colours = [(0, 0, 0), (255, 255, 255), (0, 0, 255), (255, 255, 0), (128, 128, 128), (255, 0, 0)]
    plain = np.stack([np.full((64, 64, 3), colour, np.uint8) for colour in colours])
    noise = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    spec = DwtDctSpec()
    assert (DwtDct.bit_accuracy(DwtDct.embed(np.concatenate([plain, noise]), spec), spec) == 1).all()


def test_dwtdct_needs_room():
    with pytest.raises(RequestError, match="message of 32 bits: a picture of 32 x 32 pixels holds 16"):
        DwtDct.embed(np.zeros((1, 32, 32, 3), np.uint8), DwtDctSpec(message="lmia"))


def test_dwtdct_speaks_the_packages_language():
    """The package's decoder reads what we write, and we read from its pictures just what it does."""
    from imwatermark import WatermarkDecoder, WatermarkEncoder

    pictures, spec = portraits(256, 6).images(), DwtDctSpec(message="lm")
    decoder, bits = WatermarkDecoder("bytes", 16), WatermarkDecoder("bits", 16)

    def bgr(image):
        return np.ascontiguousarray(image[..., ::-1])

    for image in DwtDct.embed(pictures, spec):
        assert decoder.decode(bgr(image), "dwtDct") == b"lm"
    encoder = WatermarkEncoder()
    encoder.set_watermark("bytes", b"lm")
    theirs = np.stack([encoder.encode(bgr(image), "dwtDct")[..., ::-1] for image in pictures])
    read = np.array([bits.decode(bgr(image), "dwtDct") for image in theirs])
    assert np.array_equal(DwtDct.decode(theirs, spec), read)
