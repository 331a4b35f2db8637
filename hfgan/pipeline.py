"""HFGan: the facade. What one does with a model, in PIL, strings and seeds; each verb delegates.

What is drawn from seeds is in `drawing.py`; here is what is done with photos and with what was drawn: cut out, invert.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL.Image import Image
from torch import Tensor

from hfgan import images, inversion, sampling
from hfgan.alignment import Align
from hfgan.altering import Altering
from hfgan.captions import file_name
from hfgan.drawing import SampleOutput
from hfgan.editing import EditOutput
from hfgan.inversion import Interest, Inversion
from hfgan.latents import Search, look_for
from hfgan.models.perceptual import Perceptual, load_perceptual
from hfgan.refinement import KeepGoing
from hfgan.segmentation import Cutout

Photo = Image | images.Source


class HFGan(Altering):
    """A generator and the parts that go with it.

    Args:
        generator: Draws the pictures.
        discriminator: Its opponent, for going on with training; None for none.
        reconstructor: Image to the one w that draws it best, for filtering; None for none.
        encoder: Photo and its interest region to w_plus; None for none.
        modes: Clusters of w, for multi-modal truncation; None for none.
        alpha: Alpha of what the generator draws; None for none.
        matting: Alpha of photos; None for none.
        directions: Named moves of w_plus, for edits; None for none.
    """

    _net: Perceptual | None = None  # loaded when it is needed

    @torch.no_grad()
    def cutouts(
        self, source: SampleOutput | EditOutput | Inversion | Photo | Sequence[Photo], *, refine: bool = True,
        batch_size: int = 16,
    ) -> list[Cutout]:  # fmt: skip
        """The subjects of pictures, each with a soft alpha at the picture's own size.

        Args:
            source: What `sample`, `mix`, `edit`, `replay` or `invert` returned, whose alpha the part `alpha` reads off
                the generator; or one or several photos (PIL, path, bytes or open file), whose alpha `matting` finds.
            refine: Let the alpha follow the edges of the picture (guided filter).
            batch_size: How many samples are drawn at once.
        """
        if isinstance(source, SampleOutput):
            found = zip(source.images, self._alphas(source, batch_size), source.recipes, strict=True)
            return [Cutout.from_alpha(picture, alpha, refine, recipe=recipe, name=Path(file_name(recipe)).stem)
                    for picture, alpha, recipe in found]  # fmt: skip
        if isinstance(source, EditOutput):
            found = zip(source.images, self._edited_alphas(source), source.recipes, strict=True)
            return [Cutout.from_alpha(images.with_channels(picture, 3), alpha, refine, recipe=recipe,
                                      name=Path(file_name(recipe)).stem if recipe else source.inversion.name)
                    for picture, alpha, recipe in found]  # fmt: skip
        if isinstance(source, Inversion):
            alpha = self._alpha_of(source)
            return [Cutout.from_alpha(images.with_channels(source.image, 3), alpha, refine, name=source.name)]
        net = self.part("matting")
        photos = source if isinstance(source, list | tuple) else [source]
        pictures = [images.with_channels(images.load_image(photo), 3) for photo in photos]
        return [Cutout.from_alpha(picture, net.see(picture), refine, name=_stem(photo))
                for picture, photo in zip(pictures, photos, strict=True)]  # fmt: skip

    def cutout(self, source: SampleOutput | EditOutput | Inversion | Photo, *, refine: bool = True) -> Cutout:
        """The subject of one picture, such as `gan.cutout("me.jpg").save("me.png")`: see `cutouts`."""
        if isinstance(source, SampleOutput | EditOutput | list | tuple) and len(source) != 1:
            raise ValueError(
                f"{len(source)} pictures given, expected one: choose one, such as out[0], or call cutouts"
            )
        return self.cutouts(source, refine=refine)[0]

    def segment(self, source: SampleOutput | EditOutput | Inversion | Photo, *, refine: bool = True) -> Tensor:
        """The soft alpha (n, 1, h, w) in [0, 1] of a photo or of n samples at their own size: see `cutouts`."""
        cuts = self.cutouts(source, refine=refine)
        if len({cut.image.size for cut in cuts}) != 1:
            raise ValueError(
                f"{len(cuts)} pictures of no one size given: call cutouts, each of which has its own alpha"
            )
        return torch.stack([cut.alpha[None] for cut in cuts])

    @torch.no_grad()
    def background(self, out: SampleOutput, *, batch_size: int = 16) -> list[Image]:
        """What the generator draws around the subjects of samples when the subject's layers are silenced."""
        self._check_own(out)
        layer, how = self.part("alpha").config.background_layer, out.recipes[0]["noise_mode"]
        return self._draw(out.w_plus.to(self.device), how, self._noise(out.recipes), batch_size, silenced=layer)

    def composite(
        self, source: SampleOutput | Inversion | Photo | Sequence[Photo],
        background: str | tuple[int, ...] | Image | SampleOutput,
        *, refine: bool = True,
    ) -> list[Image]:  # fmt: skip
        """Pictures with another background.

        Args:
            source: As for `cutouts`.
            background: A colour, a picture, "blur" for their own, or one sample, whose background the generator draws.
        """
        drawn = self.background(background)[0] if isinstance(background, SampleOutput) else background
        return [cut.on(drawn) for cut in self.cutouts(source, refine=refine)]

    def invert(
        self, photo: Photo, interest: Interest = None, *, align: Align = "center", method: str = "encoder",
        steps: int | None = None, refine: int = 0, noise_steps: int = 0, tune_steps: int = 0,
        keep_going: KeepGoing | None = None,
    ) -> Inversion:  # fmt: skip
        """Find the latent that draws a photo, faithful inside its interest region.

        What lies outside a marked region has no influence on the latent, whatever it is.

        Args:
            photo: PIL, path, bytes or open file; turned upright.
            interest: What matters: None for all (or for what is not transparent), a region as large as the photo (PIL,
                array, tensor or file; its lighter half), a box (x0, y0, x1, y1) in pixels or shares, or "auto": the
                subject that `matting` finds, without what stands before it.
            align: Which square is seen: "center", "none", a box, or the points of a face; see `find_alignment`.
            method: "encoder", or from the mean, slowly: "projector" (StyleGAN2's, one w) or "image2stylegan".
            steps: Of the method; None is the encoder's `default_steps`, and 1000 for the others.
            refine: Further steps of descent in w_plus, toward the photo inside the interest; 50 are a good number.
            noise_steps: Then of the noise images; they repeat the photo's grain and stay behind in edits.
            tune_steps: Then of the weights, a little; the change is in `tuned` and can be saved.
            keep_going: Is told of every step of descent (`refinement.Step`); False ends it, and the best is kept.

        Raises:
            ValueError: no readable photo, or an interest that is none. RuntimeError: the model lacks a part.
        """
        how = Search(method, steps, refine, noise_steps, tune_steps, keep_going)
        auto, generator = isinstance(interest, str) and interest == inversion.AUTO, self.generator
        encoder = self.part("encoder") if auto or method == "encoder" else self.encoder
        matting = self.part("matting") if auto else None
        seen = inversion.frame(photo, None if auto else interest, align, generator)
        region, source = seen.interest, seen.source
        if auto:
            each = encoder.default_steps
            region, source = inversion.auto_interest(generator, encoder, matting, self.alpha, seen.image, each)
        found = look_for(generator, encoder, self._perceptual, seen.image, region, how)
        whole = torch.ones_like(seen.image[:, :1]) if region is None else (region >= 0.5).float().cpu()
        drawn = found.drawn.cpu()
        inside, _ = inversion.distances(seen.image, drawn, whole)
        _, outside = inversion.distances(seen.square, drawn, whole)
        nearest = self.nearest_modes(found.w_plus.mean(1), assignment="l2").item() if self.modes else None
        return Inversion(
            image=images.to_pil(found.drawn)[0], w_plus=found.w_plus.cpu(), interest=whole, interest_source=source,
            steps=[images.to_pil(step)[0] for step in found.taken], distance_inside=inside, distance_outside=outside,
            mode=nearest, photo=seen.photo, alignment=seen.alignment, fingerprint=generator.fingerprint(),
            noise=found.noise and [image.cpu() for image in found.noise], tuned=found.tuned, method=method,
            name=_stem(photo),
        )  # fmt: skip

    def read_latents(self, path: str | Path) -> Tensor:
        """The w_plus (n, num_ws, w_dim) that `Inversion.save` wrote, for `render`; another model's is refused."""
        return inversion.read_latents(path, self.generator.fingerprint())

    def _perceptual(self) -> Perceptual:
        """What sees how alike two pictures are, where the generator is."""
        if self._net is None or self._net.device != self.device:
            self._net = load_perceptual().to(self.device)
        return self._net

    @torch.no_grad()
    def _alpha_of(self, inv: Inversion) -> Tensor:
        """The alpha (1, 1, r, r) of what was drawn of a photo, with fitted weights off the model's own."""
        inversion.check_generator(inv.fingerprint, self.generator.fingerprint(), "the inversion")
        return self.part("alpha")(self.generator, inv.w_plus.to(self.device))[1].sigmoid().cpu()

    def _alphas(self, out: SampleOutput, batch_size: int) -> list[Tensor]:
        """The alpha (1, 1, r, r) of each sample, read off the generator while it draws them again."""
        self._check_own(out)
        net, size = self.part("alpha"), sampling.check_count(batch_size, "batch_size")
        how, noise = out.recipes[0]["noise_mode"], self._noise(out.recipes)
        rows = [slice(start, start + size) for start in range(0, len(out), size)]
        logits = [net(self.generator, out.w_plus[row].to(self.device), how, noise[row])[1] for row in rows]
        return list(torch.cat(logits).sigmoid().cpu().split(1))


def _stem(photo: Photo) -> str | None:
    """What to call the cut-out of a photo; None where the photo has no name."""
    return Path(photo).stem if isinstance(photo, str | os.PathLike) else None
