"""The network: a U-Net with three max-poolings and three skips, as in the paper.

Source of the design: doi:10.1038/s41598-022-15623-7 (poolings, skips, classes) and
arXiv:1505.04597 (the U-Net). The paper does not say how wide its network is; see `UNetConfig.width`.

Legend: N batch, K classes, C channels, H rows, W columns, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from cytoloop.domain.errors import ConfigError, ShapeError

SMALLEST_SIDE = 8
"""Pixels; below this the mirrored margin would need more image than there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetConfig:
    """Everything that decides the shape of the network's weights."""

    in_channels: int
    class_count: int
    """K, background included."""
    width: int = 16
    """Features at full resolution; doubled by every pooling. 16 runs on a CPU."""
    poolings: int = 3
    """Max-poolings, and skips."""
    dropout: float = 0.1
    """Share of feature maps that a stochastic pass leaves out, at the bottleneck and after the
    deepest decoder block. Training is always stochastic, so that the passes mean something later."""

    def __post_init__(self) -> None:
        for name, least in (("in_channels", 1), ("class_count", 2), ("width", 1), ("poolings", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ConfigError(f"network: {name} {value!r}, expected a whole number >= {least}")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"network: dropout {self.dropout}, expected 0 <= dropout < 1")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, stored with the weights."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> UNetConfig:
        """The reverse of :meth:`to_dict`; an unknown or missing key raises ConfigError."""
        if set(values) != set(cls.__dataclass_fields__):
            raise ConfigError(f"network: keys {sorted(values)}, expected {sorted(cls.__dataclass_fields__)}")
        return cls(**values)


class _Block(nn.Sequential):
    """Two 3 x 3 convolutions, each followed by batch norm and ReLU.

    Batch norm, not group norm. Crops are small but they are pixels by the ten thousand: even at the
    bottleneck a batch of eight 128 px crops gives 2048 values a feature, so small batches do not hurt
    it. In return prediction is a fixed affine map per feature: it costs nothing once folded into the
    convolution, and a pixel's answer does not depend on how much image surrounds it. Group norm
    averages over the whole input, so a tile and the image it was cut from would disagree.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(
            nn.Conv2d(in_features, out_features, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_features),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_features, out_features, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_features),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """Logits for every pixel, for images of any size from 8 x 8.

    Randomness is an argument, never a mode: with a ``dropout`` generator a pass is stochastic, without
    one it is deterministic; ``train()`` and ``eval()`` only switch the batch norms.

    Examples
    --------
    >>> net = UNet(UNetConfig(in_channels=2, class_count=3, width=4)).eval()
    >>> tuple(net(torch.zeros(1, 2, 9, 13)).shape)
    (1, 3, 9, 13)
    """

    def __init__(self, config: UNetConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        features = [config.width * 2**level for level in range(config.poolings + 1)]
        # Made without storage and filled below: the constructors would draw from the global generator.
        with torch.device("meta"):
            self.encoder = nn.ModuleList(
                _Block(before, after)
                for before, after in zip([config.in_channels, *features[:-2]], features[:-1], strict=True)
            )
            self.bottleneck = _Block(features[-2], features[-1])
            # Level 0 is full resolution in all three lists. A 2 x 2 transposed convolution
            # of stride 2 covers each output pixel once: no chequerboard from overlap.
            self.up = nn.ModuleList(nn.ConvTranspose2d(2 * f, f, 2, stride=2) for f in features[:-1])
            self.decoder = nn.ModuleList(_Block(2 * f, f) for f in features[:-1])
            self.head = nn.Conv2d(config.width, config.class_count, 1)
        self.to_empty(device="cpu")
        self._initialise(torch.Generator().manual_seed(seed))

    def forward(self, image_NCHW: Tensor, dropout: torch.Generator | None = None) -> Tensor:
        """Return logits (N, K, H, W) for normalised images (N, C, H, W); H and W may be odd.

        Parameters
        ----------
        image_NCHW : Tensor of float32
            Normalised; H and W at least 8.
        dropout : torch.Generator, optional
            On the CPU. When given, the pass is stochastic and draws its dropout from here.

        Raises
        ------
        ShapeError
            If the channels are not the network's, or a side is below 8 pixels.
        """
        height, width = image_NCHW.shape[-2:]
        return self.decode(self.encode(image_NCHW), (height, width), dropout)

    def encode(self, image_NCHW: Tensor) -> list[Tensor]:
        """Return the skips, full resolution first, and the bottleneck; the same in every pass."""
        x_NFHW = self.padded(image_NCHW)
        features = []
        for block in self.encoder:
            x_NFHW = block(x_NFHW)
            features.append(x_NFHW)
            x_NFHW = functional.max_pool2d(x_NFHW, 2)
        features.append(self.bottleneck(x_NFHW))
        return features

    def padded(self, image_NCHW: Tensor) -> Tensor:
        """Return images mirrored at their bottom and right up to a multiple of ``2 ** poolings``.

        There alone, so that the grid of the poolings starts at the image's corner and a tile cut at a
        multiple of it is pooled as in the whole image.

        Raises
        ------
        ShapeError
            As :meth:`forward`.
        """
        if image_NCHW.ndim != 4 or image_NCHW.shape[1] != self.config.in_channels:
            raise ShapeError(
                f"network: input {tuple(image_NCHW.shape)}, expected (N, {self.config.in_channels}, H, W)"
            )
        height, width = image_NCHW.shape[-2:]
        if min(height, width) < SMALLEST_SIDE:
            raise ShapeError(f"network: image ({height}, {width}), expected at least 8 x 8 pixels")
        step = 2**self.config.poolings
        pad_bottom, pad_right = -height % step, -width % step
        if pad_bottom or pad_right:
            mode = "reflect" if pad_bottom < height and pad_right < width else "replicate"
            return functional.pad(image_NCHW, (0, pad_right, 0, pad_bottom), mode=mode)
        return image_NCHW

    def decode(
        self, features: list[Tensor], size: tuple[int, int], dropout: torch.Generator | None = None
    ) -> Tensor:
        """Return logits (N, K, H, W), cut to ``size`` = (H, W), from what :meth:`encode` gave."""
        return self.finish(features, self.begin(features, dropout), size, dropout)

    def begin(self, features: list[Tensor], dropout: torch.Generator | None = None) -> Tensor:
        """Return what the deepest decoder block gives: the first part of :meth:`decode`."""
        *skips, x_NFHW = features
        return self._decoded(len(skips) - 1, self._drop(x_NFHW, dropout), skips)

    def finish(
        self,
        features: list[Tensor],
        deepest_NFHW: Tensor,
        size: tuple[int, int],
        dropout: torch.Generator | None = None,
        shared: list[Tensor] | None = None,
    ) -> Tensor:
        """Return logits from what :meth:`begin` gave: the rest of :meth:`decode`.

        ``shared`` is what :meth:`share` gave: several passes over one image are then quicker, and equal but
        for rounding.
        """
        skips = features[:-1]
        x_NFHW = self._drop(deepest_NFHW, dropout)
        for level in range(len(skips) - 2, -1, -1):
            if shared is None:
                x_NFHW = self._decoded(level, x_NFHW, skips)
            else:
                first, *others = self.decoder[level].children()
                x_NFHW = self.up[level](x_NFHW)
                weight = cast(nn.Conv2d, first).weight[:, : x_NFHW.shape[1]]
                x_NFHW = functional.conv2d(x_NFHW, weight, padding=1) + shared[level]
                for layer in others:
                    x_NFHW = layer(x_NFHW)
        logits_NKHW: Tensor = self.head(x_NFHW)
        return logits_NKHW[:, :, : size[0], : size[1]]

    def share(self, features: list[Tensor]) -> list[Tensor]:
        """Return what the skips add to the first convolution of each decoder block but the deepest.

        A convolution of two stacks of features is the sum of two, and that of the skip is the same in every
        pass.
        """
        parts = []
        for level, skip in enumerate(features[:-2]):
            first = cast(nn.Conv2d, next(self.decoder[level].children()))
            parts.append(functional.conv2d(skip, first.weight[:, -skip.shape[1] :], padding=1))
        return parts

    def _decoded(self, level: int, x_NFHW: Tensor, skips: list[Tensor]) -> Tensor:
        joined_NFHW = torch.cat((self.up[level](x_NFHW), skips[level]), dim=1)
        decoded_NFHW: Tensor = self.decoder[level](joined_NFHW)
        return decoded_NFHW

    def _drop(self, x_NFHW: Tensor, generator: torch.Generator | None) -> Tensor:
        """Leave out whole feature maps: single pixels would be averaged away by the next convolution."""
        share = self.config.dropout
        if generator is None or share == 0.0:
            return x_NFHW
        # Drawn on the CPU whatever the device, so that a seed means the same passes everywhere.
        kept_NF = torch.empty(x_NFHW.shape[:2]).bernoulli_(1.0 - share, generator=generator)
        return x_NFHW * (kept_NF / (1.0 - share)).to(x_NFHW.device, x_NFHW.dtype)[:, :, None, None]

    def _initialise(self, generator: torch.Generator) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            elif isinstance(module, nn.ConvTranspose2d):
                # Stride 2, kernel 2: each output pixel sees one tap of every input feature.
                nn.init.normal_(module.weight, std=module.in_channels**-0.5, generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
                continue
            else:
                continue
            if module.bias is not None:
                nn.init.zeros_(module.bias)
